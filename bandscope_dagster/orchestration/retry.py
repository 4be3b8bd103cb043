"""Failed and missing songs, handed to the Dagster daemon as one backfill: few range runs that keep what is done.

A process that is neither the daemon nor the webserver has no workspace, and so cannot submit runs itself
(``DagsterInstance.submit_run`` asks for one). What it can do is what a click in the UI does: leave a request for a
backfill, which the daemon cuts into runs by the assets' backfill policy, and which people can watch and cancel as one
thing. Dagster 1.13 has no public name for such a request; this module is the only one that uses the private ones.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_backfill_id

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home_lock import is_in_use
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS, song_states
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges
from bandscope_dagster.orchestration.song_events import REUSE_TAG

ALIVE_WITHIN_S: Final = 180.0  # the daemon's heartbeat comes every 30 s, at most 60 s where it sleeps between
RETRY_TAG: Final = "bandscope/retry"
DAEMONS: Final = frozenset({"SENSOR", "BACKFILL", "QUEUED_RUN_COORDINATOR"})


class CannotRetry(BandscopeError):
    """No retry can be requested now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What was found, and what was asked of the daemon for it."""

    unfinished: int  # songs that failed or were never made, and that no run is queued for or doing
    in_progress: int  # songs that are left to such runs
    ranges: list[SongRange]  # with done songs between those that are not
    backfill_id: str | None  # None where there is nothing to do


def daemon_is_alive(instance: dg.DagsterInstance) -> bool:
    """Whether a Dagster daemon has given a sign of life on this instance in the last minutes."""
    beats = instance.get_daemon_heartbeats()
    alive_since = time.time() - ALIVE_WITHIN_S
    return any(beat.timestamp > alive_since for name, beat in beats.items() if name in DAEMONS)


def retry_songs(instance: dg.DagsterInstance, assets: Collection[str], songs_per_run: int) -> Retry:
    """Ask the daemon for the songs that failed or are missing in one of ``assets``.

    Failed songs are scattered, and Dagster batches only neighbours. So the ranges pass over done songs, which the
    runs keep (they carry the reuse tag): a tenth of a second each, where one more run would start a process and load
    the models. No range is longer than ``songs_per_run``.

    Raises:
        CannotRetry: a ``bandscope run`` or an earlier retry is at work on the same songs.
    """
    if is_in_use(Path(instance.root_directory)):
        raise CannotRetry("`bandscope run` is at work and takes these songs; wait for it, or stop it")
    for backfill in instance.get_backfills(status=BulkActionStatus.REQUESTED):
        if RETRY_TAG in backfill.tags:
            raise CannotRetry(
                f"backfill {backfill.backfill_id}, an earlier retry, is still at work; wait for it,"
                " or cancel it in the UI"
            )
    end_dead_runs(instance)  # else their songs would be left to them
    songs = list(instance.get_dynamic_partitions(SONGS_NAME))
    states = song_states(instance, songs, assets)
    wanted = states.unfinished - states.in_progress
    ranges = song_ranges(songs, wanted, songs_per_run, may_pass_over=set(songs) - states.unfinished)
    backfill_id = None
    if ranges:
        title = f"Retry of {len(wanted)} song{'' if len(wanted) == 1 else 's'}"
        backfill_id = _request(instance, assets, ranges, title)
    return Retry(len(wanted), len(states.in_progress), ranges, backfill_id)


def _request(
    instance: dg.DagsterInstance, assets: Collection[str], ranges: Collection[SongRange], title: str
) -> str:
    """Leave a request for a backfill of ``ranges`` in every one of ``assets``; returns its id."""
    songs = [song for part in ranges for song in part.songs]
    subset = SONGS_PARTITIONS.subset_with_partition_keys(songs)
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=make_new_backfill_id(),
        backfill_timestamp=time.time(),
        tags={RETRY_TAG: "true", REUSE_TAG: "true"},
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset(
            partitions_subsets_by_asset_key={dg.AssetKey(asset): subset for asset in assets}
        ),
        title=title,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id
