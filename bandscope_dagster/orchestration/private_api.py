"""Every private name of Dagster that Bandscope uses, with the feature that needs it.

Dagster may move or remove a private name in any release. ``pyproject.toml`` therefore allows one minor version, and
``tests/unit/test_orchestration_private_api.py`` lists each name that an upgrade removed.
"""

# The event log: the schema of its option in dagster.yaml.
from dagster._config import StringSource

# Checks: says which materialization a check is of; without it the UI shows the check on an earlier materialization.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

# The retry backfill: its songs per asset.
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset

# The steps over songs: their outputs are not materializations of every song.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

# Dead runs: a code server could not be reached.
from dagster._core.errors import DagsterUserCodeUnreachableError

# The retry backfill: the request for it, and the state of earlier ones.
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

# Dead runs: run processes are on this machine.
from dagster._core.launcher import DefaultRunLauncher

# The event log: the class that it extends, and the name of the database over all runs.
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage

# Dead runs: one machine uses the home.
from dagster._core.storage.runs import SqliteRunStorage

# The retry backfill: its id.
from dagster._core.utils import make_new_backfill_id

# Dead runs: asks a code server for its runs.
from dagster._grpc.client import DagsterGrpcClient

# Dead runs: the code server's answer.
from dagster._grpc.types import GetCurrentRunsResult

# The event log: its configuration, which Dagster hands to a new process. Dead runs: reads the code server's answer.
from dagster._serdes import ConfigurableClassData, deserialize_value

__all__ = [
    "INDEX_SHARD_NAME",
    "SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetGraphSubset",
    "BulkActionStatus",
    "ConfigurableClassData",
    "DagsterGrpcClient",
    "DagsterUserCodeUnreachableError",
    "DefaultRunLauncher",
    "GetCurrentRunsResult",
    "PartitionBackfill",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
    "StringSource",
    "deserialize_value",
    "make_new_backfill_id",
]
