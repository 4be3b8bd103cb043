"""``bandscope report``: pages in the store or in a folder, for one song or for all songs with changes."""

import io
from pathlib import Path

import pytest
from page_songs import noise, store_song
from rich.console import Console
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.cli.report import ReportError, report
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.find import NoSuchSong
from bandscope_dagster.storage.objects.open_store import NotAStore
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, SONGS
from bandscope_dagster.storage.tables.song_tables import write_table


class Report:
    """The command on one store; keeps its output."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.printed = ""

    def __call__(self, song: str | None = None, to: Path | None = None, *, all_songs: bool = False) -> int:
        console = Console(file=io.StringIO(), width=200)
        settings = Settings(storage=self.store.url, device="cpu")
        failed = report(settings, self.store, console, song, to, all_songs=all_songs)
        self.printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
        return failed


@pytest.fixture
def bandscope_report(store: ObjectStore) -> Report:
    store_song(store, "night-bus", {"vocals": noise(1)}, title="Night Bus [live]")
    write_table(
        store, SONGS, [song_row("empty", filename="empty.wav", error="empty: nothing")], lineage("empty")
    )
    return Report(store)


def pages(store: ObjectStore) -> list[str]:
    return [found.key for found in store.list("song_pages")]


def test_a_song_is_found_by_its_title_and_the_path_of_its_page_is_printed(
    bandscope_report: Report, store: ObjectStore
) -> None:
    assert bandscope_report("Night Bus [live]") == 0
    assert pages(store) == ["song_pages/index.html", "song_pages/night-bus.html"]
    assert store.uri("song_pages/night-bus.html") in bandscope_report.printed
    assert f"The index of 1 song: {store.uri('song_pages/index.html')}" in bandscope_report.printed


def test_all_songs_get_pages_and_only_changed_songs_are_written_again(
    bandscope_report: Report, store: ObjectStore
) -> None:
    assert bandscope_report(all_songs=True) == 0
    assert "2 written" in bandscope_report.printed
    assert bandscope_report(all_songs=True) == 0
    assert "2 up to date" in bandscope_report.printed and "written" not in bandscope_report.printed.replace(
        "writing", ""
    )
    write_table(store, INSTRUMENT_TAGS, [tag_row("night-bus", "piano", 0.9, 0.0)], lineage("night-bus"))
    assert bandscope_report(all_songs=True) == 0
    assert "1 written" in bandscope_report.printed and "1 up to date" in bandscope_report.printed


def test_pages_can_be_written_to_a_folder(
    bandscope_report: Report, store: ObjectStore, tmp_path: Path
) -> None:
    assert bandscope_report(to=tmp_path / "out", all_songs=True) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["empty.html", "index.html", "night-bus.html"]
    assert pages(store) == []


def test_a_folder_that_cannot_be_made_is_called_a_folder(bandscope_report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BandscopeError, match=f"the folder {tmp_path}/file/x cannot be written") as refused:
        bandscope_report(to=tmp_path / "file" / "x", all_songs=True)
    assert "store" not in str(refused.value)


def test_the_page_of_a_song_with_a_damaged_file_says_so(bandscope_report: Report, store: ObjectStore) -> None:
    with store.create("stems/night-bus.parquet") as file:
        file.write(b"no parquet")
    assert bandscope_report(all_songs=True) == 0
    assert pages(store) == ["song_pages/empty.html", "song_pages/index.html", "song_pages/night-bus.html"]
    page = store.read("song_pages/night-bus.html").decode()
    assert '<span class="status failed">' in page and "stems: damaged: " in page and "cannot be read" in page


def test_a_song_with_damage_inside_its_audio_is_named_and_the_others_have_pages(
    bandscope_report: Report, store: ObjectStore
) -> None:
    store_song(store, "a-damaged", {"vocals": noise(1)})
    data = bytearray(store.read("stems/a-damaged.parquet"))
    data[len(data) // 3 : len(data) // 3 + 99] = bytes(99)
    with store.create("stems/a-damaged.parquet") as file:
        file.write(data)
    assert bandscope_report(all_songs=True) == 1
    assert pages(store) == ["song_pages/empty.html", "song_pages/index.html", "song_pages/night-bus.html"]
    assert bandscope_report.printed.count("a-damaged: the stored audio of vocals is damaged in block 0") == 1
    assert "`bandscope run --recompute --songs a-damaged`" in bandscope_report.printed


def test_pages_cannot_be_written_to_a_url(bandscope_report: Report) -> None:
    with pytest.raises(NotAStore, match="give a local folder"):
        bandscope_report(to=Path("s3://bucket/pages"), all_songs=True)


@pytest.mark.parametrize(("song", "all_songs"), [(None, False), ("night-bus", True)])
def test_the_arguments_must_be_a_song_or_all(
    bandscope_report: Report, song: str | None, all_songs: bool
) -> None:
    with pytest.raises(ReportError, match=r"give a song .* or --all"):
        bandscope_report(song, all_songs=all_songs)


def test_a_name_without_a_song_is_an_error(bandscope_report: Report) -> None:
    with pytest.raises(NoSuchSong):
        bandscope_report("nope*")
