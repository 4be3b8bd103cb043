"""Song ids: readable, safe in paths, and unique per upload."""

from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.songs.song_ids import song_id
from bandscope_dagster.storage.tables.schemas import SONG_ID


@given(key=st.text(min_size=1, max_size=300), fingerprint=st.text(max_size=80))
def test_any_upload_gets_an_id_of_the_grammar(key: str, fingerprint: str) -> None:
    assert SONG_ID.fullmatch(song_id("uploads/" + key, fingerprint))


def test_the_id_begins_with_the_files_name() -> None:
    assert song_id("uploads/mia/Señor Coconut - Smoke, 01.flac", "1").startswith("senor-coconut-smoke-01-")


def test_a_name_without_latin_letters_is_still_an_id() -> None:
    assert SONG_ID.fullmatch(song_id("uploads/..mp3", "1"))
    assert song_id("uploads/🎸.mp3", "1").startswith("song-")


def test_a_replaced_upload_is_a_new_song() -> None:
    assert song_id("uploads/a.wav", "etag-1") != song_id("uploads/a.wav", "etag-2")


def test_the_same_file_of_two_owners_is_two_songs() -> None:
    assert song_id("uploads/mia/a.wav", "e") != song_id("uploads/tom/a.wav", "e")


def test_the_id_is_the_same_in_every_process() -> None:
    assert song_id("uploads/mia/a.wav", "e") == "a-694dd0ccef1c"
