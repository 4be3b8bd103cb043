"""The page of a song: complete in one file, safe from text in uploads, written again only after changes."""

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser

import pytest
from page_songs import PRESENT_FROM, element, noise, page_of, sound_of, store_song
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.song_page import write_page
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    INSTRUMENT_TAGS,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
)
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from

MOST_BYTES_A_SECOND = 12_000_000 / 240  # so that a page of four minutes is below 12 MB

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' & <!-- <bdo>\u202egnp.exe\u202c אבג ]]>"


@pytest.fixture
def local(tmp_path) -> ObjectStore:
    return open_store(str(tmp_path / "local"))


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text apart from scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.found[-1] if self.found else ("", {})
        if tag in ("script", "style") and self.cdata_elem:
            self.raw.append((tag, attributes, data))
        else:
            self.text += f" {data}"


def hostile_song(store: ObjectStore) -> str:
    tags = [
        tag_row("song", HOSTILE, 0.6, 0.0, family=None, mapped=False, layer="foreground"),
        tag_row("song", HOSTILE, 0.6, 0.0, source="drums", family=None, mapped=False),
    ]
    names = dict.fromkeys(("title", "artist", "album", "genre", "filename", "owner", "upload_key"), HOSTILE)
    store_song(store, "song", {"drums": noise(3)}, tags, **names)
    return page_of(store, "song")


@pytest.mark.parametrize("status", ["ok", "rejected"])
def test_no_text_of_an_upload_becomes_markup(local: ObjectStore, status: str) -> None:
    if status == "ok":
        html = hostile_song(local)
    else:
        row = song_row("song", title=HOSTILE, filename=HOSTILE, owner=HOSTILE, error=f"not_audio: {HOSTILE}")
        write_table(local, SONGS, [row], lineage("song"))
        html = page_of(local, "song")
    plain = open_store(local.url + "-plain")
    store_song(plain, "song", {"drums": noise(3)}, [])
    page = Elements(html)
    assert {tag for tag, _ in page.found} <= {tag for tag, _ in Elements(page_of(plain, "song")).found} | {
        "section", "p", "rect", "ul", "li", "span",
    }  # fmt: skip
    assert not [tag for tag, _ in page.found if tag in ("img", "bdo")]
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    assert "alert(2)" in page.text, "the page shows it as text"
    assert "\u202e" not in html, "and it does not change the direction of writing"
    assert json.loads(element(html, "summary"))["title"].startswith("</script><script>alert(1)")


def test_only_the_scripts_and_styles_of_the_page_may_run(local: ObjectStore) -> None:
    page = Elements(hostile_song(local))
    policy = next(a["content"] for t, a in page.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy

    def allowed(kind: str) -> list[str]:
        found = re.search(rf"{kind}-src ([^;]*)", policy)
        return found[1].split() if found else []

    def digests(tag: str) -> list[str]:
        texts = [text for found, attributes, text in page.raw if found == tag and "type" not in attributes]
        return [f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]

    assert allowed("script") == digests("script") and len(digests("script")) == 7
    assert allowed("style") == digests("style") and len(digests("style")) == 2
    assert all("style" not in attributes for _, attributes in page.found), "inline styles are blocked"


@pytest.mark.parametrize(
    ("stems", "seconds"), [(("vocals", "drums", "bass", "other"), 40), (("v", "d", "b", "o", "g", "p"), 20)]
)
def test_a_page_of_four_minutes_would_be_below_twelve_megabytes_with_four_stems_and_with_six(
    local: ObjectStore, stems: tuple[str, ...], seconds: int
) -> None:
    """With noise, the worst case for a codec. The parts that do not grow with the song count six times or more."""
    store_song(local, "song", {name: noise(seconds, seed=seed) for seed, name in enumerate(stems)})
    page = write_page(local, PageFolder(local), "song", PRESENT_FROM)
    assert 0.85 * MOST_BYTES_A_SECOND * seconds < page.bytes < MOST_BYTES_A_SECOND * seconds


def test_a_page_shows_facts_levels_checks_and_lineage(store: ObjectStore) -> None:
    store_song(store, "song", {"vocals": noise(3), "drums": noise(3, 0.05)}, title="Night Bus", owner="mia")
    text = " ".join(Elements(page_of(store, "song")).text.split())
    for shown in (
        "Night Bus",
        "Owner mia",
        "flac 44.1 kHz",
        "0:03",
        "\N{MINUS SIGN}20.0 dBFS",
        "80 %",
        "20 %",
    ):
        assert shown in text, shown
    for table in ("songs", "decoded_waveforms", "stems", "instrument_tags", "stem_instrument_tags"):
        assert f"{table} model ü · 2026-01-02 03:04 UTC" in text
    for shown in ("SHA-256 " + "ab" * 32, "weights " + "ef" * 32, "parameters overlap 0.25", "run run"):
        assert shown in text, shown


def test_the_timeline_has_a_row_for_every_instrument_that_is_present_in_a_source(local: ObjectStore) -> None:
    tags = [
        tag_row("song", "guitar", 0.9, 0.0, family="plucked strings", layer="background"),
        tag_row("song", "guitar", 0.5, 3.0, family="plucked strings", layer="foreground"),
        tag_row("song", "piano", 0.1, 0.0, family="keyboards"),
        tag_row("song", "flute", None, 6.0, family="woodwind", source="vocals"),
    ]
    store_song(local, "song", {"vocals": noise(10)}, tags)
    rows = re.findall(
        r'<div class="row instrument ([\w-]+)" data-source="(\w+)" data-instrument="(\w+)">',
        page_of(local, "song"),
    )
    assert rows == [("plucked-strings", "mixture", "guitar"), ("woodwind", "vocals", "flute")]
    bars = [a for tag, a in Elements(page_of(local, "song")).found if tag == "rect" and "data-start" in a]
    assert [(bar["data-start"], bar["data-end"], bar.get("data-score")) for bar in bars] == [
        ("0.0", "6.0", "0.9"),
        ("6.0", "9.0", None),
    ]
    assert (
        bars[0]["aria-label"]
        == "guitar, plucked strings, mixture, foreground, score 0.90, 0:00.0\N{EN DASH}0:06.0 (6.0 s)"
    )
    assert (bars[0]["x"], bars[0]["width"]) == ("0.0%", "60.0%")


def test_a_rejected_song_says_why_and_has_no_player(store: ObjectStore) -> None:
    row = song_row("song", error="truncated: 1 of 2 s can be decoded", duration_s=None)
    write_table(store, SONGS, [row], lineage("song"))
    for table in ANALYSIS_TABLES:
        write_error_row(store, table, "song", f"upstream: {row['error']}", lineage("song", model=""))
    page = Elements(page_of(store, "song"))
    text = " ".join(page.text.split())
    assert "This upload was rejected truncated: 1 of 2 s can be decoded" in text
    assert text.count("truncated: 1 of 2 s") == 2, "as the reason, and in the check"
    assert not [tag for tag, _ in page.found if tag in ("canvas", "button")]
    assert not [attributes for tag, attributes in page.found if tag == "script" and "type" not in attributes]


def test_a_failed_song_says_so(local: ObjectStore) -> None:
    write_table(local, SONGS, [song_row("song", error="unavailable: no answer")], lineage("song"))
    page = write_page(local, PageFolder(local), "song", PRESENT_FROM)
    assert page.status == "failed"
    assert "This song could not be processed" in local.read(page.key).decode()


def test_a_song_without_stems_plays_its_mixture_and_says_what_is_missing(local: ObjectStore) -> None:
    store_song(local, "song", {"vocals": noise(3)})
    for table in (STEMS, STEM_INSTRUMENT_TAGS):
        local.delete(f"{table.name}/song.parquet")
    html = page_of(local, "song")
    assert sound_of(html).description["sources"] == ["mixture"]
    assert "Not computed: stems, stem_instrument_tags." in html


def test_a_page_shows_windows_without_tags(local: ObjectStore) -> None:
    lost = {"instrument": None, "family": None, "label": None, "score": None, "error": "unparseable: no list"}
    store_song(
        local,
        "song",
        {"a": noise(9)},
        [tag_row("song", "guitar", 0.5, 0.0), tag_row("song", "", 0.0, 3.0) | lost],
    )
    html = page_of(local, "song")
    assert '<span class="status partial">' in html
    assert "instrument_tags: 1 window without tags, the first: unparseable: no list" in html
    assert "1 of 2 windows have an error instead of tags" in html


def test_a_song_in_no_table_is_an_error(local: ObjectStore) -> None:
    with pytest.raises(CannotAnalyze, match="unknown is in no table; materialize songs"):
        write_page(local, PageFolder(local), "unknown", PRESENT_FROM)
    assert list(local.list("song_pages")) == []


def test_a_page_is_kept_until_its_tables_or_settings_change(store: ObjectStore) -> None:
    store_song(store, "song", {"vocals": noise(1)})
    pages = PageFolder(store)

    def kept(rules=PRESENT_FROM) -> bool:
        return write_page(store, pages, "song", rules, keep=True).kept

    assert (kept(), kept()) == (False, True)
    assert (kept(present_from(0.9, AUDIBLE_DB)), kept()) == (False, False), "another setting is another page"
    write_table(store, INSTRUMENT_TAGS, [tag_row("song", "piano", 0.9, 0.0)], lineage("song"))
    assert (kept(), kept()) == (False, True)
    assert not write_page(store, pages, "song", PRESENT_FROM).kept, "only with keep=True"


def test_the_same_tables_give_the_same_page(local: ObjectStore) -> None:
    store_song(local, "song", {"vocals": noise(2)})
    assert page_of(local, "song") == page_of(local, "song")


def test_an_error_while_a_page_is_written_keeps_the_old_page(local: ObjectStore) -> None:
    store_song(local, "song", {"vocals": noise(1), "drums": noise(1)})
    before = page_of(local, "song")
    damaged = local.read("stems/song.parquet").replace(b"fLaC", b"bad!")
    with local.create("stems/song.parquet") as file:
        file.write(damaged)
    with pytest.raises(ValueError, match="song: the stored audio of vocals is damaged in block 0"):
        write_page(local, PageFolder(local), "song", PRESENT_FROM)
    assert local.read("song_pages/song.html").decode() == before
    assert [found.key for found in local.list("song_pages")] == ["song_pages/song.html"]
