"""Hostile tags from end to end: they are text in the tables, and never markup, paths or control characters."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import dagster as dg
import polars as pl
import pytest
from audio_files import encode, excerpt
from command_line import CommandLine
from instances import new_instance
from platforms import Platform, environment, local_settings

from bandscope_dagster.orchestration.jobs import CATALOGS

TAGS = {
    "title": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "artist": "../../../etc/passwd\x1b[31m\x07" + "x" * 64 * 1024,
    "album": "[click](javascript:alert(3)) ![i](http://example.com/i.png) `code` | *b* |",
    "genre": "\u202egpj.\x00" + '" onmouseover="alert(4)' + "</text></svg><script>alert(5)</script>",
}
HARMLESS = {"title": "A title", "artist": "An artist", "album": "An album", "genre": "A genre"}
NAMES = {"hostile": "<b onclick=alert(6)>[bold]\u202ex.flac", "harmless": "song.flac"}
UNCHANGED = {"audio", "filename", "upload_key"}  # the name of a file is data, with every character
LONGEST = 2_000  # characters of any text that comes from tags

OURS = re.compile(
    r"[0-9a-f]{32}\.parquet|part-[0-9a-f]{32}\.zstd\.parquet|\d{20}(\.checkpoint)?\.(json|parquet)"
    r"|_last_(checkpoint|vacuum)"
)
"""Names of states, and of the files and logs of Delta tables."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A song with hostile tags and one without tags, of the same sound, after all runs."""
    settings = local_settings(tmp_path_factory.mktemp("tags") / "store")
    with new_instance() as instance:
        platform = Platform(settings, instance)
        sound = excerpt()[:, :100_000]
        ids = platform.upload(
            {
                NAMES["hostile"]: encode(sound, "flac", "flac", tags=TAGS),
                NAMES["harmless"]: encode(sound, "flac", "flac", tags=HARMLESS),
            }
        )
        assert platform.materialize().success
        assert platform.materialize(["song_pages"]).success
        assert platform.materialize_catalogs().success
        assert [ids[NAMES[kind]] for kind in NAMES] == platform.songs
        yield platform


def texts(value: Any) -> Iterator[str]:
    """All text in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.values() for text in texts(each))
    elif isinstance(value, list | tuple):
        yield from (text for each in value for text in texts(each))


class Page(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))


def test_tables_hold_the_text_as_one_bounded_line(platform: Platform) -> None:
    row = platform.table("songs").filter(pl.col("song_id") == platform.songs[0]).row(0, named=True)
    assert row["title"] == TAGS["title"], "what is text is kept"
    assert row["artist"].startswith("../../../etc/passwd [31m") and len(row["artist"]) == 500
    for path in Path(platform.settings.storage).rglob("*.parquet"):
        for row in pl.read_parquet(path).iter_rows(named=True):
            for text in texts({name: value for name, value in row.items() if name not in UNCHANGED}):
                assert len(text) <= LONGEST and "\x1b" not in text and "\u202e" not in text, (path, text)


def test_no_text_becomes_a_folder_or_a_file(platform: Platform) -> None:
    store = Path(platform.settings.storage)
    made = [path.name for path in store.rglob("*") if path.is_file() and "uploads" not in path.parts]
    known = {*platform.songs, *CATALOGS, "index"}
    strange = [name for name in made if Path(name).stem not in known and not OURS.fullmatch(name)]
    assert not strange


def test_metadata_in_the_ui_hold_no_markup_of_a_stranger(platform: Platform) -> None:
    seen = 0
    for run in platform.instance.get_runs():
        for entry in platform.instance.all_logs(run.run_id):
            assert "alert(" not in entry.message and "\x1b" not in entry.message
            event = entry.asset_materialization
            for name, value in (event.metadata if event else {}).items():
                shown = str(value.value)
                assert "\x1b" not in shown and "64 kB" not in shown and len(shown) < 100_000
                if isinstance(value, dg.MarkdownMetadataValue) and "data:image" in shown:
                    alternative, _, data = shown.partition("](data:image/svg+xml,")
                    assert not set("<>[(`") & set(alternative.removeprefix("!["))
                    svg = ElementTree.fromstring(unquote(data.removesuffix(")")))
                    names = {element.tag.rpartition("}")[2] for element in svg.iter()}
                    assert not names & {"script", "foreignObject", "a", "image"}, name
                    attributes = {key for element in svg.iter() for key in dict(element.items())}
                    assert not [key for key in attributes if key.startswith("on")]
                    seen += 1
    assert seen == 2, "both songs have their picture"


def test_the_page_has_the_elements_of_any_other(platform: Platform) -> None:
    folder = Path(platform.settings.storage) / "song_pages"
    hostile, harmless = (Page((folder / f"{song}.html").read_text()) for song in platform.songs)
    assert hostile.elements == harmless.elements
    index = Page((folder / "index.html").read_text())
    handlers = {name for _, names in index.elements for name in names if name.startswith("on")}
    assert not handlers
    assert [tag for tag, _ in index.elements].count("b") == 0


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["status", "--", "{name}"],
        ["lineage", "{song}"],
        ["sql", "SELECT filename, title, artist, album, genre FROM songs"],
        ["sql", "SELECT filename, title, artist, album, genre FROM song_catalog"],
        ["export", "--to", "{folder}", "--", "{song}"],
        ["report", "{song}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_terminal_is_told_nothing_but_text(
    platform: Platform,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (environment(platform.settings) | {"DAGSTER_HOME": str(tmp_path)}).items():
        if value:
            monkeypatch.setenv(name, value)
    known = {"name": NAMES["hostile"], "song": platform.songs[0], "folder": str(tmp_path / "stems")}
    told = CommandLine(monkeypatch, capsys)(*(word.format(**known) for word in command))
    assert told.code == 0, told.err
    assert not [c for c in told.out + told.err if c in "\x1b\x07\u202e" or (ord(c) < 32 and c != "\n")]
    assert "x" * 1000 not in told.out.replace("\n", "")
    if command[0] == "export":
        outside = {path for path in tmp_path.rglob("*") if path.is_file()} - set(
            (tmp_path / "stems").rglob("*")
        )
        assert not [path for path in outside if path.suffix in (".wav", ".csv")]
        (folder,) = (path for path in (tmp_path / "stems").iterdir() if path.name != ".pending")
        assert len(folder.name) < 255 and (folder / "vocals.wav").exists()


def test_exported_answers_are_still_json(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BANDSCOPE_STORAGE", platform.settings.storage)
    told = CommandLine(monkeypatch, capsys)("sql", "--to", tmp_path / "a.json", "SELECT * FROM song_catalog")
    assert told.code == 0, told.err
    titles = {row["title"] for row in json.loads((tmp_path / "a.json").read_text())}
    assert titles == {TAGS["title"], HARMLESS["title"]}
