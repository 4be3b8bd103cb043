"""Hands failed and missing songs to the Dagster daemon as one backfill: few range runs that keep finished songs.

A process that is neither the daemon nor the webserver has no workspace, and so cannot submit runs itself
(``DagsterInstance.submit_run`` needs one). It can request a backfill, as a click in the UI does. The daemon splits the
backfill into runs by the assets' backfill policy, and people watch and cancel it as one item.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg

from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home import is_in_use
from bandscope_dagster.orchestration.outdated import find_outdated
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS
from bandscope_dagster.orchestration.private_api import (
    AssetGraphSubset,
    BulkActionStatus,
    PartitionBackfill,
    make_new_backfill_id,
)
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges
from bandscope_dagster.orchestration.run_tags import RETRY_TAG, REUSE_TAG
from bandscope_dagster.orchestration.unfinished import find_unfinished
from bandscope_dagster.orchestration.used_stores import check_not_empty
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.song_files import list_all_files

ALIVE_WITHIN_S: Final = 180.0  # the daemon's heartbeat comes every 30 to 60 s
DAEMONS: Final = frozenset({"SENSOR", "BACKFILL", "QUEUED_RUN_COORDINATOR"})


class CannotRetry(BandscopeError):
    """A retry cannot be requested now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The songs that were found, and the backfill that was requested for them."""

    unfinished: int  # songs that failed or are missing, without a queued or running run
    in_progress: int  # songs with a queued or running run, which computes them
    left_out: int  # songs that would fail again: the analysis rejected them, or their upload is gone
    ranges: list[SongRange]  # may contain finished songs between unfinished ones
    backfill_id: str | None  # None if no song is unfinished


def daemon_is_alive(instance: dg.DagsterInstance) -> bool:
    """True if a Dagster daemon has sent a heartbeat to this instance in the last minutes."""
    beats = instance.get_daemon_heartbeats()
    alive_since = time.time() - ALIVE_WITHIN_S
    return any(beat.timestamp > alive_since for name, beat in beats.items() if name in DAEMONS)


def retry_songs(
    instance: dg.DagsterInstance,
    store: ObjectStore,
    assets: Collection[str],
    settings: Settings,
    *,
    outdated: bool = False,
    pattern: str | None = None,
) -> Retry:
    """Request a backfill of the songs that failed or are missing in one of ``assets``, in the records or in ``store``.

    With ``outdated``, of the songs instead that were computed with other models, parameters or code than those in
    force. ``pattern``, if given, is the id or file name of a song, or a glob: only matching songs are requested.

    Failed songs are scattered, and Dagster batches only neighbours. The ranges therefore include finished songs, which
    the runs keep (by the reuse tag). That costs a tenth of a second per song; one more run would start a process and
    load the models. No range is longer than the setting ``songs_per_run``.

    Raises:
        CannotRetry: a ``bandscope run`` or an earlier retry computes the same songs now.
        StoreLost: the store is empty.
        NoSuchSong: no song matches ``pattern``.
    """
    if is_in_use(Path(instance.root_directory)):
        raise CannotRetry("`bandscope run` is computing these songs; wait for it, or stop it")
    for backfill in instance.get_backfills(status=BulkActionStatus.REQUESTED):
        if RETRY_TAG in backfill.tags:
            raise CannotRetry(
                f"backfill {backfill.backfill_id}, an earlier retry, is still running; wait for it,"
                " or cancel it in the UI"
            )
    end_dead_runs(instance)  # their songs would otherwise count as in progress
    songs = list(instance.get_dynamic_partitions(SONGS_NAME))
    files, listing = list_all_files(store, SOURCES), list_uploads(store)
    check_not_empty(store, Path(instance.root_directory), listing, files, songs)
    chosen = set(songs) if pattern is None else listing.matching(songs, pattern)
    found = find_unfinished(instance, files, listing, songs, assets)
    todo, others = found.songs, set[str]()
    if outdated:
        todo, others = find_outdated(instance, store, settings, songs, assets).songs_to_report, found.songs
    # Those of `found.songs` are to be done, also without upload: the run keeps their results, and reports them.
    wanted = (todo & chosen) - found.in_progress - (found.left_out if outdated else set[str]())
    may_pass_over = set(songs) - todo - others - found.in_progress - found.left_out
    ranges = song_ranges(songs, wanted, settings.songs_per_run, may_pass_over=may_pass_over)
    backfill_id = None
    if ranges:
        title = f"{'Update' if outdated else 'Retry'} of {counted(len(wanted), 'song')}"
        backfill_id = _request(instance, assets, ranges, title)
    given_up = found.given_up | found.cannot_complete
    return Retry(len(wanted), len(found.in_progress & chosen), len(given_up & chosen), ranges, backfill_id)


def _request(
    instance: dg.DagsterInstance, assets: Collection[str], ranges: Collection[SongRange], title: str
) -> str:
    """Request a backfill of ``ranges`` in each of ``assets``; returns its id."""
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
