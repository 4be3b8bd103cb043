"""Ranges of songs: Dagster runs only contiguous ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.orchestration.ranges import song_ranges, songs_of_tags
from bandscope_dagster.orchestration.run_tags import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG

SONGS = [f"song-{number}" for number in range(30)]
subsets = st.sets(st.sampled_from(SONGS))


@given(wanted=subsets, done=subsets, size=st.integers(1, 10))
def test_ranges_cover_wanted_songs_once_and_include_only_finished_ones_besides(wanted, done, size) -> None:
    done = done - wanted
    ranges = song_ranges(SONGS, wanted, size, may_pass_over=done)
    songs = [song for part in ranges for song in part.songs]
    assert len(songs) == len(set(songs))
    assert wanted <= set(songs) <= wanted | done
    for part in ranges:
        begin, end = SONGS.index(part.tags[RANGE_START_TAG]), SONGS.index(part.tags[RANGE_END_TAG])
        assert list(part.songs) == SONGS[begin : end + 1], "Dagster runs every song between the ends"
        assert len(part.songs) <= size
    assert songs == sorted(songs, key=SONGS.index)


def test_scattered_failures_of_one_batch_become_one_run() -> None:
    wanted = {"song-1", "song-4", "song-9"}
    assert len(song_ranges(SONGS, wanted, 64, may_pass_over=set(SONGS) - wanted)) == 1
    assert len(song_ranges(SONGS, wanted, 64)) == 3


def test_a_range_is_as_long_as_a_run_may_be() -> None:
    assert [len(part.songs) for part in song_ranges(SONGS, set(SONGS), 10)] == [10, 10, 10]
    wanted = {"song-0", "song-9", "song-19"}  # ten songs from the first to the second, eleven to the third
    between = set(SONGS) - wanted
    assert [len(part.songs) for part in song_ranges(SONGS, wanted, 10, may_pass_over=between)] == [10, 1]


@pytest.mark.parametrize(
    ("tags", "songs"),
    [
        ({RANGE_START_TAG: "song-3", RANGE_END_TAG: "song-5"}, {"song-3", "song-4", "song-5"}),
        ({RANGE_START_TAG: "song-3", RANGE_END_TAG: "song-3"}, {"song-3"}),
        ({RANGE_START_TAG: "gone", RANGE_END_TAG: "song-3"}, set()),
        ({RANGE_START_TAG: "song-3", RANGE_END_TAG: "gone"}, set()),
        ({RANGE_START_TAG: "song-3"}, set()),
        ({PARTITION_TAG: "song-3"}, {"song-3"}),
        ({}, set()),
    ],
)
def test_the_tags_of_a_run_name_its_songs_as_far_as_they_are_registered(tags, songs) -> None:
    assert songs_of_tags(tags, {song: place for place, song in enumerate(SONGS)}) == songs
