"""The event log under the name by which homes of version 0.1 have it in their ``dagster.yaml``."""

from bandscope_dagster.orchestration.event_log import SqliteEventLog as SqliteEventLog
