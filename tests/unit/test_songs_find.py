"""Songs by name: without case, by a glob, by a part of a title, and with suggestions."""

import pytest

from bandscope_dagster.songs.find import NoSuchSong, select

SONGS = {
    "night-bus-1": ("01 Night Bus.mp3", "Night Bus"),
    "night-bus-2": ("x.mp3", "Night Bus (take 2)"),
    "a-1-3": ("a[1].wav", None),
    "a1-4": ("a1.wav", "Jóga"),
    "bookshop-5": ("b.wav", None),
}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("night bus", ["night-bus-1"]),
        ("NIGHT BUS*", ["night-bus-1", "night-bus-2"]),
        ("take 2", ["night-bus-2"]),
        ("01 night bus", ["night-bus-1"]),
        ("bus", ["night-bus-1", "night-bus-2"]),
        ("ks", ["bookshop-5"]),
        ("a[1].wav", ["a-1-3", "a1-4"]),
        ("jo\u0301GA", ["a1-4"]),
        ("*", list(SONGS)),
    ],
)
def test_a_name_matches_without_case_as_a_whole_as_a_glob_or_else_in_part(
    pattern: str, found: list[str]
) -> None:
    assert select(SONGS, pattern) == found


def test_a_near_miss_suggests_and_a_letter_matches_nothing_in_part() -> None:
    with pytest.raises(NoSuchSong, match="no song matches 'Nigth Bus'; similar names: Night Bus"):
        select(SONGS, "Nigth Bus")
    with pytest.raises(NoSuchSong, match="`bandscope status` lists all songs"):
        select(SONGS, "o")
