"""From the keys of a run to outcomes, and from outcomes to events: the one place that knows partial success.

Dagster speaks of a whole run's partitions at once; a batch of songs succeeds song by song. So every song's
materialization is an event of its own, emitted the moment it is stored, with the versions that Dagster would have
added; and what failed is raised at the end, when all other songs are done (Dagster 1.13: events before a raise stay).
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg

from bandscope_dagster.errors import (
    BandscopeError,
    CannotAnalyze,
    ModelFileError,
    SettingsError,
    SongRejected,
)
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import CODE_VERSIONS
from bandscope_dagster.storage.lineage import Lineage

REUSE_TAG: Final = "bandscope/reuse"
RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"

SONGS_TAG: Final = "bandscope/songs"
FIRST_SONG_TAG: Final = "bandscope/first-song"
LAST_SONG_TAG: Final = "bandscope/last-song"
OWNERS_TAG: Final = "bandscope/owners"
SHOWN_OWNERS: Final = 3  # in a run's tag; more would not fit the UI's list of runs

INTERRUPTED: Final = "Interrupted"  # begins what a step says that was stopped from outside

DATA_VERSION_DIGITS: Final = 16  # hex digits of the input digest that are shown as data version


def wants_reuse(context: dg.AssetExecutionContext) -> bool:
    """Whether stored results of the same input and code are kept: in a step's retry, a re-executed run, on request."""
    return (
        context.retry_number > 0
        or context.run.parent_run_id is not None
        or context.run.tags.get(REUSE_TAG) == "true"
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


def already_emitted(context: dg.AssetExecutionContext) -> set[tuple[str, str]]:
    """The (asset, song) pairs that an earlier attempt of this step has reported in this run."""
    if context.retry_number == 0:
        return set()
    entries = context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    materialized = [entry.asset_materialization for entry in entries]
    return {(m.asset_key.to_user_string(), m.partition) for m in materialized if m and m.partition}


def materializations(
    context: dg.AssetExecutionContext,
    outcome: SongAnalyzed,
    dependencies: Mapping[str, Sequence[str]],
    metadata: Mapping[str, Mapping[str, Any]],
    emitted: Collection[tuple[str, str]],
) -> Iterator[dg.AssetMaterialization]:
    """One event per table of a finished song, with data, code and input versions.

    ``dependencies`` names the upstream assets of each; ``metadata`` what people look at.
    """
    plan = outcome.plan
    for table in plan.tables:
        if (table, plan.song_id) in emitted:
            continue
        lineage = plan.compute.get(table) or plan.keep[table]
        yield dg.AssetMaterialization(
            asset_key=table,
            partition=plan.song_id,
            metadata=dict(metadata[table]) | {"reused": table in plan.keep},
            tags=_version_tags(context, lineage, dependencies[table], table),
        )


def data_version(lineage: Lineage) -> str:
    """What Dagster compares to tell whether a song's rows would come out differently."""
    return f"{lineage.code_version}-{lineage.input_digest[:DATA_VERSION_DIGITS]}"


def _version_tags(
    context: dg.AssetExecutionContext, lineage: Lineage, dependencies: Sequence[str], table: str
) -> dict[str, str]:
    tags = {
        "dagster/data_version": data_version(lineage),
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": CODE_VERSIONS[table],
    }
    for dependency in dependencies:
        records = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(dependency), asset_partitions=[lineage.song_id]),
            limit=1,
        ).records
        event = records[0].asset_materialization if records else None
        # An upstream table that was never made for this song has no version: Dagster's word for that is NULL.
        version = (event.tags or {}).get("dagster/data_version") if event else None
        tags[f"dagster/input_data_version/{dependency}"] = version or "NULL"
        tags[f"dagster/input_event_pointer/{dependency}"] = str(records[0].storage_id) if event else "NULL"
    return tags


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
    causes = "\n".join(f"  {song.song_id}: {_sentence(song.error)}" for song in failed)
    raise dg.Failure(
        description=f"{len(failed)} of {songs} songs failed; the others are done.\n{causes}",
        metadata={"failed_songs": dg.MetadataValue.json({s.song_id: _sentence(s.error) for s in failed})},
        allow_retries=not all(isinstance(song.error, CannotAnalyze | SongRejected) for song in failed),
    )


def _sentence(error: Exception) -> str:
    text = str(error) or "no message"
    return text if isinstance(error, BandscopeError) else f"{type(error).__name__}: {text}"
