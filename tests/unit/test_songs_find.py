"""Find songs by id, file name or glob."""

from bandscope_dagster.songs.find import matching

SONGS = [f"song-{number}" for number in range(30)]


def test_a_glob_matches_ids_and_file_names() -> None:
    names = {"song-3": "Falcon 69.mp4"}
    assert matching(SONGS, names, "song-2?") == SONGS[20:]
    assert matching(SONGS, names, "Falcon*") == ["song-3"]
    assert matching(SONGS, names, None) == SONGS
