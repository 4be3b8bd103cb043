"""The index has a row for every page, read from the top of the page."""

import json

from page_songs import element, noise, page_of, store_song
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.page_folder import HEAD_BYTES, PageFolder
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import write_table


def songs_of(store: ObjectStore) -> list[dict]:
    """The rows of the index, with the names of their instruments."""
    write_index(PageFolder(store))
    table = json.loads(element(store.read("song_pages/index.html").decode(), "songs"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return [row | {"instruments": [table["instruments"][n][0] for n in row["instruments"]]} for row in rows]


def test_every_page_is_listed_with_its_searchable_values(store: ObjectStore) -> None:
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
    assert second["instruments"] == ["flute", "guitar"], (
        "present in any source, longest first; the sitar is not present"
    )


def test_other_files_in_the_folder_are_left_out(tmp_path) -> None:
    store = open_store(str(tmp_path))
    pages = PageFolder(store, folder="")
    for name in ("mine.html", "notes.txt", "index.html"):
        (tmp_path / name).write_text('<script type="application/json" id="summary">{"title": 1}</script>')
    assert list(pages.summaries()) == []
    assert write_index(pages).songs == 0


def test_the_head_of_a_page_contains_its_summary_for_any_number_of_instruments(tmp_path) -> None:
    store = open_store(str(tmp_path / "store"))
    tags = [tag_row("song", f"{number} {'很' * 400}", 0.9, 0.0, family=None) for number in range(80)]
    long = dict.fromkeys(("title", "artist", "owner", "filename"), "很" * 5000)
    store_song(store, "song", {"a": noise(1)}, tags, **long)
    page_of(store, "song")
    summary = PageFolder(store).summary("song")
    assert summary is not None and len(summary.instruments) == 40
    assert store.read("song_pages/song.html").index(b"</script>") < HEAD_BYTES
