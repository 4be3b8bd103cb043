"""Ranges of songs: a run covers only songs that are neighbours in the order of registration."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from bandscope_dagster.orchestration.run_tags import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG


@dataclass(frozen=True, slots=True)
class SongRange:
    """Songs of one run: neighbours in the order of registration."""

    songs: tuple[str, ...]  # never empty

    @property
    def tags(self) -> dict[str, str]:
        """The run tags that make Dagster run the range."""
        return {RANGE_START_TAG: self.songs[0], RANGE_END_TAG: self.songs[-1]}


def songs_of_tags(tags: Mapping[str, str], places: Mapping[str, int]) -> set[str]:
    """The songs of a run with these tags. ``places`` are the positions of all songs, in the order of registration."""
    if RANGE_START_TAG not in tags:
        return {tags[PARTITION_TAG]} if PARTITION_TAG in tags else set()
    first, last = places.get(tags[RANGE_START_TAG]), places.get(tags.get(RANGE_END_TAG, ""))
    if first is None or last is None:
        return set()
    return set(islice(places, first, last + 1))


def song_ranges(
    songs: Sequence[str], wanted: Collection[str], songs_per_run: int, *, may_pass_over: Collection[str] = ()
) -> list[SongRange]:
    """Cover ``wanted`` with few ranges of ``songs`` (neighbours, in order), each of at most ``songs_per_run``.

    A range may include any number of songs of ``may_pass_over``: a kept result costs about a tenth of a second, and
    another run costs its start and the loading of the models. A range includes no other song.
    """
    ranges: list[SongRange] = []
    current: list[str] = []  # from a wanted song to a wanted song
    gap: list[str] = []

    def close() -> None:
        if current:
            ranges.append(SongRange(tuple(current)))
        current.clear()
        gap.clear()

    for song in songs:
        if song in wanted:
            if len(current) + len(gap) + 1 > songs_per_run:
                close()
            current += [*gap, song] if current else [song]
            gap.clear()
        elif current and song in may_pass_over:
            gap.append(song)
        else:
            close()
    close()
    return ranges
