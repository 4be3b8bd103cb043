"""The partitions: one per song. Their definition, the registration of uploads, and the state of each song."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg

from bandscope_dagster.pipeline.uploads import Listing

SONGS_NAME: Final = "songs"
SONGS_PARTITIONS: Final = dg.DynamicPartitionsDefinition(name=SONGS_NAME)
"""One dynamic partition per song, in the order in which songs were registered."""


@dataclass(frozen=True, slots=True)
class SongStates:
    """The state of songs in Dagster's records, over some of the per-song assets."""

    unfinished: set[str]  # not materialized in every asset: new, failed, interrupted, or in progress
    in_progress: set[str]  # songs of a queued or running run


def register_uploads(instance: dg.DagsterInstance, listing: Listing, limit: int | None = None) -> list[str]:
    """Add a partition for every upload without one, oldest first; returns the new song ids.

    Drops the partitions of forgotten songs, which another home may have. At most ``limit`` songs are added, if it is
    given; the next call continues.
    """
    known = set(instance.get_dynamic_partitions(SONGS_NAME))
    for song in sorted(known & listing.forgotten):
        instance.delete_dynamic_partition(SONGS_NAME, song)
    new = [upload.song_id for upload in listing.uploads if upload.song_id not in known][:limit]
    if new:
        instance.add_dynamic_partitions(SONGS_NAME, new)
    return new


def song_states(instance: dg.DagsterInstance, songs: Sequence[str], assets: Collection[str]) -> SongStates:
    """The state of ``songs`` in ``assets``."""
    states = SongStates(set(), set())
    for asset in assets:
        statuses = _statuses(instance, songs, asset)
        for song in songs:
            if statuses.get(song) != dg.AssetPartitionStatus.MATERIALIZED:
                states.unfinished.add(song)
            if statuses.get(song) == dg.AssetPartitionStatus.IN_PROGRESS:
                states.in_progress.add(song)
    return states


def untouched_songs(instance: dg.DagsterInstance, songs: Sequence[str], asset: str) -> set[str]:
    """The songs without any run in ``asset``: none that is queued, runs, succeeded or failed."""
    statuses = _statuses(instance, songs, asset)
    return {song for song in songs if statuses.get(song) is None}


def _statuses(
    instance: dg.DagsterInstance, songs: Sequence[str], asset: str
) -> Mapping[str, dg.AssetPartitionStatus | None]:
    return instance.get_status_by_partition(dg.AssetKey(asset), songs, SONGS_PARTITIONS) or {}
