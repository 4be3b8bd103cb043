"""The event log by its name in version 0.1: the ``dagster.yaml`` of homes of that version has it."""

from bandscope_dagster.orchestration.event_log import SqliteEventLog as SqliteEventLog
