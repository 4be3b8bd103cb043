"""A song's materializations: one event per song and table, with the versions that Dagster would have added.

Dagster reports all partitions of a run at once. A song is reported as soon as it is stored, so its events are ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from bandscope_dagster.input_digests import CODE_VERSIONS
from bandscope_dagster.orchestration.in_force import versions_in_force
from bandscope_dagster.orchestration.private_api import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from bandscope_dagster.pipeline.outcomes import SongAnalyzed
from bandscope_dagster.storage.tables.lineage import Lineage

UPLOADS_ASSET: Final = "uploads"  # external: the folder that songs are read from
DATA_VERSION_DIGITS: Final = 16  # hex digits of the input digest that are shown as data version


def already_emitted(context: dg.AssetExecutionContext) -> set[tuple[str, str]]:
    """The (asset, song) pairs that an earlier attempt of this step has reported in this run."""
    if context.retry_number == 0:
        return set()
    entries = context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    materialized = [entry.asset_materialization for entry in entries]
    return {(m.asset_key.to_user_string(), m.partition) for m in materialized if m and m.partition}


class Upstream:
    """The last materializations of the assets that a batch's songs are computed from: each is looked up once."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._records: dict[tuple[str, str], dg.EventLogRecord | None] = {}

    def record(self, asset: str, song_id: str) -> dg.EventLogRecord | None:
        """The song's last materialization of an asset; None if there is none."""
        key = (asset, song_id)
        if key not in self._records:
            self._records[key] = self._find(asset, song_id)
        return self._records[key]

    def made(self, asset: str, song_id: str) -> dg.EventLogRecord | None:
        """The same, looked up again: this run has just reported a materialization."""
        self._records.pop((asset, song_id), None)
        return self.record(asset, song_id)

    def version_tags(self, dependencies: Sequence[str], song_id: str) -> dict[str, str]:
        """The tags with the versions of ``dependencies`` that a song's materialization was computed from."""
        tags = {"dagster/data_version_is_user_provided": "true"}
        for dependency in dependencies:
            record = self.record(dependency, song_id)
            event = record.asset_materialization if record else None
            # Dagster writes NULL for an upstream asset that was never materialized for this song.
            version = (event.tags or {}).get("dagster/data_version") if event else None
            tags[f"dagster/input_data_version/{dependency}"] = version or "NULL"
            tags[f"dagster/input_event_pointer/{dependency}"] = str(record.storage_id) if record else "NULL"
        return tags

    def forget(self, song_id: str) -> None:
        """Drop the records of a song that is done."""
        for key in [key for key in self._records if key[1] == song_id]:
            del self._records[key]

    def _find(self, asset: str, song_id: str) -> dg.EventLogRecord | None:
        found = self._context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[song_id]), limit=1
        )
        return found.records[0] if found.records else None


def materialization(
    outcome: SongAnalyzed,
    table: str,
    dependencies: Sequence[str],
    metadata: Mapping[str, Any],
    upstream: Upstream,
) -> dg.AssetMaterialization:
    """The event of one table of a finished song, with data, code and input versions.

    ``dependencies`` names the upstream assets; ``metadata`` is shown in the UI.
    """
    plan = outcome.plan
    kept = plan.keep.get(table)
    lineage = plan.compute[table] if kept is None else kept.lineage
    versions = {
        "dagster/data_version": data_version(lineage),
        "dagster/code_version": versions_in_force()[table],
    }
    return dg.AssetMaterialization(
        asset_key=table,
        partition=plan.song_id,
        metadata=dict(metadata) | {"reused": kept is not None},
        tags=versions | upstream.version_tags(dependencies, plan.song_id),
    )


def song_materialization(song_id: str, metadata: Mapping[str, Any]) -> dg.AssetMaterialization:
    """The event of a song's row in ``songs``.

    All songs share the data version; this is correct, because a partition key already identifies the upload's content.
    """
    tags = {
        "dagster/data_version": CODE_VERSIONS["songs"],
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": versions_in_force()["songs"],
        # Dagster's version of an external asset; with another one, the UI would show every song as outdated.
        f"dagster/input_data_version/{UPLOADS_ASSET}": "INITIAL",
        f"dagster/input_event_pointer/{UPLOADS_ASSET}": "NULL",
    }
    return dg.AssetMaterialization("songs", partition=song_id, metadata=dict(metadata), tags=tags)


def step_output(asset: str) -> dg.MaterializeResult[Any]:
    """The output of a step that has reported its songs one by one, so that the next steps of the run go on.

    Dagster records an output as a materialization of every song of the run; the mark in its metadata prevents that.
    """
    return dg.MaterializeResult(
        asset_key=asset, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
    )


def data_version(lineage: Lineage) -> str:
    """The version by which Dagster sees that a song's rows would differ."""
    return f"{lineage.code_version}-{lineage.input_digest[:DATA_VERSION_DIGITS]}"
