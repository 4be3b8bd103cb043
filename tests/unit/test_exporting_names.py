"""Names of files: any title becomes one safe segment of a path on every system."""

import unicodedata
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.exporting.names import (
    LONGEST_PART_BYTES,
    comparable,
    numbered,
    plain_text,
    safe_name,
    song_name,
)

DEVICES = ["CON", "nul", "Com1", "LPT9.live", "con .txt", "AUX.tar.gz", "COM¹"]


@pytest.mark.parametrize(
    "title, name",
    [
        ("Night Bus", "Night Bus"),
        ("AC/DC: Back\\Slash?", "AC_DC_ Back_Slash_"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("...Baby One More Time", "Baby One More Time"),
        ("ends with dots and spaces . .", "ends with dots and spaces"),
        ("-rf *", "rf _"),
        (".hidden", "hidden"),
        ("two\nlines\tand\x00nothing", "two lines andnothing"),
        ("gpj.\u202eexe", "gpj.exe"),  # a direction mark that disguises the name
        ("שיר לילה", "שיר לילה"),
        ("أغنية", "أغنية"),
        ("👩\u200d🎤 live", "👩\u200d🎤 live"),  # a singer: two emoji and a joiner
        ("Ku\u0308sse", "Küsse"),
    ],
)
def test_a_title_becomes_a_name_that_people_recognise(title: str, name: str) -> None:
    assert safe_name(title, "song") == name


@pytest.mark.parametrize("title", DEVICES)
def test_a_device_of_windows_is_no_name(title: str) -> None:
    assert safe_name(title, "song") == f"_{title}"


@pytest.mark.parametrize("title", [None, "", " ", "..", "\u202e", "\x00", "-"])
def test_where_nothing_is_left_the_fallback_stands(title: str | None) -> None:
    assert safe_name(title, "song-0123") == "song-0123"


def test_a_long_name_ends_between_characters() -> None:
    assert safe_name("x" * 300, "song") == "x" * LONGEST_PART_BYTES
    assert safe_name("🎸" * 300, "song") == "🎸" * (LONGEST_PART_BYTES // 4)
    assert len(f"{song_name('é' * 300, '🎸' * 300, 'song')} (99)".encode()) <= 143


def test_a_song_is_called_by_its_artist_and_title() -> None:
    assert song_name("Mia", "Night Bus", "id") == "Mia - Night Bus"
    assert song_name(None, "Night Bus", "id") == "Night Bus"
    assert song_name("Mia", None, "id") == "Mia - id"
    assert song_name("..", "CON", "id") == "_CON"


@given(st.text(), st.text())
def test_no_title_leaves_its_folder(artist: str, title: str) -> None:
    name = song_name(artist, title, "song-0123")
    assert name and name.isprintable() | any(c in name for c in "\u200c\u200d") | any(
        unicodedata.category(c) in ("Cn", "Co", "Zs") for c in name
    )
    assert not set(name) & set('<>:"/\\|?*\0\n\r')
    assert not name.startswith((".", "-", " ")) and not name.endswith((".", " "))
    assert len(name.encode()) <= 143


def test_names_are_the_same_where_some_file_system_says_so() -> None:
    assert comparable("Küsse") == comparable("KU\u0308SSE")
    assert comparable("Küsse") != comparable("Kusse")


def test_a_taken_name_is_numbered() -> None:
    assert list(islice(numbered("Night Bus"), 3)) == ["Night Bus", "Night Bus (2)", "Night Bus (3)"]


def test_the_text_of_a_tag_is_one_line() -> None:
    assert plain_text(" a\r\nb\x1b[31m\u2066c ") == "a b[31mc"
