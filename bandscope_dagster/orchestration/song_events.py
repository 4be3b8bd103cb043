"""From the keys of a run to outcomes, and from outcomes to events: the one place that knows partial success.

Dagster speaks of a whole run's partitions at once; a batch of songs succeeds song by song. So every song's
materialization is an event of its own, emitted the moment it is stored, with the versions that Dagster would have
added; and what failed is raised at the end, when all other songs are done (Dagster 1.13: events before a raise stay).
"""

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg

from bandscope_dagster.errors import (
    CannotAnalyze,
    ModelFileError,
    SettingsError,
    SongRejected,
)
from bandscope_dagster.pipeline.failures import failure_text
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import CODE_VERSIONS
from bandscope_dagster.storage.tables.lineage import Lineage

REUSE_TAG: Final = "bandscope/reuse"
RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"

SONGS_TAG: Final = "bandscope/songs"
FIRST_SONG_TAG: Final = "bandscope/first-song"
LAST_SONG_TAG: Final = "bandscope/last-song"
OWNERS_TAG: Final = "bandscope/owners"
SHOWN_OWNERS: Final = 3  # in a run's tag; more would not fit the UI's list of runs

LAUNCHER_TAG: Final = "bandscope/launched-by"
LAUNCHER: Final = "bandscope run"  # of the runs in that command's own process

INTERRUPTED: Final = "Interrupted"  # begins what a step says that was stopped from outside

# As Dagster's own webserver has them, but for the timeout, since nobody waits in front of a page.
STATEMENT_TIMEOUT_MS: Final = 60_000
RECYCLED_AFTER_S: Final = 3600
MORE_CONNECTIONS: Final = 20  # than one, where several threads ask at once

DATA_VERSION_DIGITS: Final = 16  # hex digits of the input digest that are shown as data version


def wants_reuse(context: dg.AssetExecutionContext) -> bool:
    """Whether stored results of the same input and code are kept: in a step's retry, a re-executed run, on request."""
    return (
        context.retry_number > 0
        or context.run.parent_run_id is not None
        or context.run.tags.get(REUSE_TAG) == "true"
    )


def keep_connections_open(instance: dg.DagsterInstance) -> None:
    """Let this process, which reports thousands of events, keep its connections to PostgreSQL.

    By default Dagster opens one for every statement, three quarters of what an event costs. SQLite is not concerned.
    """
    instance.optimize_for_webserver(
        statement_timeout=STATEMENT_TIMEOUT_MS, pool_recycle=RECYCLED_AFTER_S, max_overflow=MORE_CONNECTIONS
    )


def search_tags(songs: Sequence[str], owners: Iterable[str | None]) -> dict[str, str]:
    """The run tags by which people find a batch: how many songs, the first and the last, and whose they are."""
    tags = {SONGS_TAG: str(len(songs)), FIRST_SONG_TAG: songs[0], LAST_SONG_TAG: songs[-1]}
    names = sorted({owner for owner in owners if owner is not None})
    if names:
        tags[OWNERS_TAG] = ", ".join([*names[:SHOWN_OWNERS], *(["…"] if len(names) > SHOWN_OWNERS else [])])
    return tags


def tag_run(context: dg.AssetExecutionContext, owners: Iterable[str | None] = ()) -> None:
    """Give the run its search tags, unless it has them: those that the UI and backfills start come without."""
    run = context.instance.get_run_by_id(context.run.run_id)
    # Dagster takes a range whose ends are swapped for one without songs.
    if run is not None and SONGS_TAG not in run.tags and context.partition_keys:
        context.instance.add_run_tags(run.run_id, search_tags(context.partition_keys, owners))


def songs_checked(number: int, songs: int) -> str:
    """How far ``songs`` is, as its step logs it: its materializations come all at once, at its end."""
    return f"{number} of {songs} songs checked"


def checked_by(message: str) -> int | None:
    """The number in a message of ``songs_checked``; None for any other."""
    found = re.fullmatch(r"(\d+) of \d+ songs checked", message)
    return int(found[1]) if found else None


def already_emitted(context: dg.AssetExecutionContext) -> set[tuple[str, str]]:
    """The (asset, song) pairs that an earlier attempt of this step has reported in this run."""
    if context.retry_number == 0:
        return set()
    entries = context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    materialized = [entry.asset_materialization for entry in entries]
    return {(m.asset_key.to_user_string(), m.partition) for m in materialized if m and m.partition}


class Upstream:
    """The last materializations of what a batch's songs are made from: looked up once, and kept as they are made."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._records: dict[tuple[str, str], dg.EventLogRecord | None] = {}

    def record(self, asset: str, song_id: str) -> dg.EventLogRecord | None:
        """The song's last materialization of an asset; None where there is none."""
        key = (asset, song_id)
        if key not in self._records:
            self._records[key] = self._find(asset, song_id)
        return self._records[key]

    def made(self, asset: str, song_id: str) -> dg.EventLogRecord | None:
        """The same of a materialization that this run has just reported."""
        self._records.pop((asset, song_id), None)
        return self.record(asset, song_id)

    def version_tags(self, dependencies: Sequence[str], song_id: str) -> dict[str, str]:
        """The tags that say from which versions of ``dependencies`` a song's materialization was made."""
        tags = {"dagster/data_version_is_user_provided": "true"}
        for dependency in dependencies:
            record = self.record(dependency, song_id)
            event = record.asset_materialization if record else None
            # An upstream asset that was never made for this song has no version: Dagster's word for that is NULL.
            version = (event.tags or {}).get("dagster/data_version") if event else None
            tags[f"dagster/input_data_version/{dependency}"] = version or "NULL"
            tags[f"dagster/input_event_pointer/{dependency}"] = str(record.storage_id) if record else "NULL"
        return tags

    def forget(self, song_id: str) -> None:
        """The song is done: nothing of it is asked for again."""
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

    ``dependencies`` names the upstream assets; ``metadata`` is what people look at.
    """
    plan = outcome.plan
    kept = plan.keep.get(table)
    lineage = plan.compute[table] if kept is None else kept.lineage
    versions = {"dagster/data_version": data_version(lineage), "dagster/code_version": CODE_VERSIONS[table]}
    return dg.AssetMaterialization(
        asset_key=table,
        partition=plan.song_id,
        metadata=dict(metadata) | {"reused": kept is not None},
        tags=versions | upstream.version_tags(dependencies, plan.song_id),
    )


def data_version(lineage: Lineage) -> str:
    """What Dagster compares to tell whether a song's rows would come out differently."""
    return f"{lineage.code_version}-{lineage.input_digest[:DATA_VERSION_DIGITS]}"


@contextmanager
def without_useless_retries() -> Generator[None]:
    """End the step for good where another attempt would meet the same: an interrupt, wrong settings, missing weights.

    Dagster counts an interrupt (Ctrl-C, or "terminate" in the UI) as a failed attempt, and a step with a retry policy
    would begin again.

    Raises:
        dg.Failure: it is not retried. What was stored stays.
    """
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as interrupt:
        raise dg.Failure(
            description=f"{INTERRUPTED}: what is done stays, and a re-execution goes on from there.",
            allow_retries=False,
        ) from interrupt
    except (ModelFileError, SettingsError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def raise_failures(failed: Sequence[SongFailed], songs: int) -> None:
    """End the step as failed if any song did, naming each with its cause.

    The step may be retried unless every cause is one that a retry in this run cannot mend.

    Raises:
        dg.Failure: at least one song failed.
    """
    if not failed:
        return
    causes = "\n".join(f"  {song.song_id}: {failure_text(song.error)}" for song in failed)
    raise dg.Failure(
        description=f"{len(failed)} of {songs} songs failed; the others are done.\n{causes}",
        metadata={"failed_songs": dg.MetadataValue.json({s.song_id: failure_text(s.error) for s in failed})},
        allow_retries=not all(isinstance(song.error, CannotAnalyze | SongRejected) for song in failed),
    )
