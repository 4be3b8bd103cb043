"""Ranges of songs: Dagster runs contiguous ones only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.commands.runs import RunError, matching, only_one, song_ranges

SONGS = [f"song-{number}" for number in range(30)]
subsets = st.sets(st.sampled_from(SONGS))


def covered(ranges, songs=SONGS) -> list[list[str]]:
    return [songs[songs.index(r.first) : songs.index(r.last) + 1] for r in ranges]


@given(wanted=subsets, done=subsets, size=st.integers(1, 10))
def test_ranges_cover_what_is_wanted_once_and_pass_over_only_what_is_done(wanted, done, size) -> None:
    done = done - wanted
    ranges = song_ranges(SONGS, wanted, size, may_pass_over=done)
    songs = [song for part in covered(ranges) for song in part]
    assert len(songs) == len(set(songs))
    assert wanted <= set(songs) <= wanted | done
    assert all(r.count == len(part) <= size for r, part in zip(ranges, covered(ranges), strict=True))
    assert songs == sorted(songs, key=SONGS.index)


def test_scattered_failures_of_one_batch_become_one_run() -> None:
    wanted = {"song-1", "song-4", "song-9"}
    assert len(song_ranges(SONGS, wanted, 64, may_pass_over=set(SONGS) - wanted)) == 1
    assert len(song_ranges(SONGS, wanted, 64)) == 3


def test_a_glob_matches_ids_and_file_names() -> None:
    names = {"song-3": "Falcon 69.mp4"}
    assert matching(SONGS, names, "song-2?") == SONGS[20:]
    assert matching(SONGS, names, "Falcon*") == ["song-3"]
    assert matching(SONGS, names, None) == SONGS


def test_two_commands_cannot_work_on_one_home(tmp_path) -> None:
    with only_one(tmp_path), pytest.raises(RunError, match="another"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        assert (tmp_path / "bandscope-run.lock").exists()
