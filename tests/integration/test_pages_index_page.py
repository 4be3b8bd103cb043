"""The index: a row per page that is there, from the pages' own heads."""

import json

from page_songs import element, noise, page_of, store_song
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.shelf import HEAD_BYTES, Shelf
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import write_table


def songs_of(store: ObjectStore) -> list[dict]:
    """The rows of the index, their instruments by name."""
    write_index(Shelf(store))
    table = json.loads(element(store.read("song_pages/index.html").decode(), "songs"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return [row | {"instruments": [table["instruments"][n][0] for n in row["instruments"]]} for row in rows]


def test_every_page_is_listed_with_what_can_be_searched(store: ObjectStore) -> None:
    tags = [
        tag_row("a", "guitar", 0.5, 0.0, source="vocals"),
        tag_row("a", "flute", 0.5, 0.0),
        tag_row("a", "flute", 0.5, 3.0),
        tag_row("a", "sitar", 0.1, 3.0),
    ]
    store_song(store, "a", {"vocals": noise(6)}, tags, title="Zoo", artist="Mia", owner="mia")
    write_table(store, SONGS, [song_row("b", filename="b.wav", error="empty: no bytes")], lineage("b"))
    for song in ("a", "b"):
        page_of(store, song)
    first, second = songs_of(store)
    assert (first["song_id"], first["title"], first["status"], first["instruments"]) == (
        "b",
        "b.wav",
        "rejected",
        [],
    )
    assert (second["title"], second["artist"], second["owner"], second["seconds"]) == (
        "Zoo",
        "Mia",
        "mia",
        6.0,
    )
    assert second["instruments"] == ["flute", "guitar"], "present in any source, the longest first; no sitar"


def test_what_is_no_page_of_ours_is_left_out(tmp_path) -> None:
    store = open_store(str(tmp_path))
    shelf = Shelf(store, folder="")
    for name in ("mine.html", "notes.txt", "index.html"):
        (tmp_path / name).write_text('<script type="application/json" id="summary">{"title": 1}</script>')
    assert list(shelf.summaries()) == []
    assert write_index(shelf).songs == 0


def test_the_head_of_a_page_holds_its_summary_however_much_is_found(tmp_path) -> None:
    store = open_store(str(tmp_path / "store"))
    tags = [tag_row("song", f"{number} {'很' * 400}", 0.9, 0.0, family=None) for number in range(80)]
    long = dict.fromkeys(("title", "artist", "owner", "filename"), "很" * 5000)
    store_song(store, "song", {"a": noise(1)}, tags, **long)
    assert store.read("song_pages/song.html") if page_of(store, "song") else False
    summary = Shelf(store).summary("song")
    assert summary is not None and len(summary.instruments) == 40
    assert store.read("song_pages/song.html").index(b"</script>") < HEAD_BYTES
