"""The pages in a real browser: the sound and its timing, the visible content, and no request to the outside."""

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest
import soundfile
import soxr
from audio_files import snr_db
from instances import new_instance
from page_browser import OPUS_RATE, PHONE, browser, file_server, in_real_time, visit
from page_songs import SAMPLE_RATE, clicks, store_song, tone
from platforms import Platform, local_settings
from playwright.sync_api import Browser, expect
from song_rows import tag_row

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import demo_songs

from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.song_page import write_page
from bandscope_dagster.songs.presence import instruments_of
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from

IN_SYNC_S = 0.020  # greatest time difference between stems
PULSE_S = 0.5  # between the clicks of every stem
SONG_S = 23.0
REAL_S = 12.0
STEMS = ("vocals", "drums", "bass")
# Hz; the last one is only in the mixture
TONES = {"vocals": 440.0, "drums": 1000.0, "bass": 200.0, "mixture": 2500.0}


@dataclass(frozen=True, slots=True)
class Pages:
    """A folder of pages: a real song, a song whose stems are clicks, a rejected upload, and the index."""

    store: ObjectStore
    folder: Path
    song: str
    rejected: str

    def url(self, name: str) -> str:
        return (self.folder / f"{name}.html").as_uri()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with new_instance() as instance:
        settings = local_settings(tmp_path_factory.mktemp("pages"))
        # musicnn hears what the tests look for: a guitar.
        platform = Platform(settings.model_copy(update={"tagger": "musicnn"}), instance)
        title, stems = demo_songs.render(0)
        file = io.BytesIO()
        soundfile.write(
            file, sum(stems.values()).T[: round(REAL_S * SAMPLE_RATE)], SAMPLE_RATE, "PCM_16", format="FLAC"
        )
        ids = platform.upload({f"mia/{title}.flac": file.getvalue(), "leo/empty.wav": b""})
        assert platform.materialize().success
    store = platform.store
    pulse = clicks(SONG_S, list(np.arange(0.25, SONG_S - 0.1, PULSE_S)))
    tags = [tag_row("clicks", "guitar", 0.9, 3.0 * n, source=s) for s in STEMS for n in (0, 2, 4)]
    store_song(store, "clicks", dict.fromkeys(STEMS, pulse), tags, title="Clicks", owner="mia")
    tones = {stem: tone(SONG_S, TONES[stem], 0.1) for stem in STEMS}
    store_song(store, "tones", tones, [], beside=tone(SONG_S, TONES["mixture"], 0.1))
    folder = PageFolder(store)
    for song in (*ids.values(), "clicks", "tones"):
        write_page(store, folder, song, present_from(None, AUDIBLE_DB))
    write_index(folder)
    yield Pages(store, Path(store.url) / folder.folder, ids[f"mia/{title}.flac"], ids["leo/empty.wav"])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


def beginnings(audio: np.ndarray) -> np.ndarray:
    """The times (s) at which bursts begin in a recording."""
    loud = np.flatnonzero(np.abs(audio) > 0.1)
    return loud[np.diff(loud, prepend=-OPUS_RATE) > OPUS_RATE // 10] / OPUS_RATE


def test_it_plays_and_pauses(pages: Pages, chromium: Browser) -> None:
    with visit(chromium, pages.url(pages.song)) as song:
        assert song.position == 0
        song.play()
        song.until("player.position > 1")
        expect(song.page.locator("#now")).to_have_text("0:01")
        song.page.get_by_role("button", name="Pause").click()
        paused_at = song.position
        song.page.wait_for_timeout(300)
        assert song.position == paused_at
        assert song.complaints == []


def test_it_plays_to_the_end_and_then_again_from_the_start(pages: Pages, chromium: Browser) -> None:
    with visit(chromium, pages.url(pages.song)) as song:
        seconds = song.page.evaluate("player.sound.seconds")
        song.page.keyboard.press("End")
        song.page.keyboard.press("Shift+ArrowLeft")
        song.page.keyboard.press("Space")
        song.until("player.state === 'paused'")
        assert song.position == pytest.approx(seconds)
        song.page.keyboard.press("Space")
        song.moves()
        assert song.position < 5


@pytest.mark.parametrize(("start", "seconds"), [(3.9, 7.5), (16.3, 3.0), (0.6, 3.0)])
def test_the_stems_are_in_sync_across_chunks_and_after_seeks(
    pages: Pages, chromium: Browser, start: float, seconds: float
) -> None:
    """All stems click at the same times; the first recording crosses two chunks."""
    for attempt in in_real_time():
        with attempt, visit(chromium, pages.url("clicks")) as clicking:
            clicking.play()
            clicking.page.evaluate("player.mix(player.sound.sources.map(() => true))")
            clicking.page.evaluate(f"player.seek({start})")
            clicking.moves()
            recorded = clicking.record(seconds)
            times = {name: beginnings(recorded[name]) for name in ("mixture", *STEMS)}
            first = times["vocals"]
            assert len(first) >= (seconds - 1) / PULSE_S
            for name, heard in times.items():
                assert len(heard) == len(first), name
                assert np.abs(heard - first).max() < IN_SYNC_S / 10, name
            marks = np.flatnonzero(np.diff(recorded["mark"])) / OPUS_RATE
            assert len(marks) > seconds
            for mark in marks[marks < first[-1] + 0.1]:
                assert np.abs(first - mark).min() < 0.003, "position and sound agree, without gap or overlap"
            assert clicking.complaints == []


def test_a_soloed_stem_is_heard_alone_and_a_muted_one_not_at_all(pages: Pages, chromium: Browser) -> None:
    for attempt in in_real_time():
        with attempt, visit(chromium, pages.url("tones")) as song:
            song.play()

            def heard() -> set[str]:
                song.page.wait_for_timeout(200)
                output = song.record(0.5)["output"]
                time = np.arange(len(output)) / OPUS_RATE
                level = {
                    name: np.abs(np.mean(output * np.exp(-2j * np.pi * f * time)))
                    for name, f in TONES.items()
                }
                return {name for name in TONES if level[name] > 0.02}

            assert heard() == set(TONES), "the mixture plays until a stem is soloed or muted"
            song.page.get_by_role("button", name="Solo drums").click()
            assert heard() == {"drums"}
            song.page.keyboard.press("2")
            assert heard() == {"drums", "vocals"}
            song.page.keyboard.press("1")
            assert heard() == set(TONES), "the mixture is never soloed together with stems"
            song.page.keyboard.press("0")
            song.page.keyboard.press("Shift+2")
            assert heard() == {"drums", "bass"}, (
                "the other stems play, not the mixture, which contains the muted one"
            )
            expect(song.page.get_by_role("button", name="Mute vocals")).to_have_attribute(
                "aria-pressed", "true"
            )
            expect(song.page.locator("#heard")).to_have_text("You hear drums + bass")
            assert song.complaints == []


def test_a_stem_plays_at_its_stored_level(pages: Pages, chromium: Browser) -> None:
    for attempt in in_real_time():
        with attempt, visit(chromium, pages.url("clicks")) as clicking:
            clicking.page.keyboard.press("2")
            clicking.play()
            recorded = clicking.record(3)
            loudest = float(np.abs(clicks(1.0, [0.25])).max())
            scale = clicking.page.evaluate("player.sound.scale")
            assert scale == pytest.approx(1 / (3 * loudest), rel=0.01), (
                "the sum of three stems is lowered to full scale"
            )
            assert np.abs(recorded["output"]).max() == pytest.approx(scale * loudest, rel=0.15)
            assert clicking.complaints == []


def test_a_click_on_a_waveform_and_the_keys_move_the_position(pages: Pages, chromium: Browser) -> None:
    with visit(chromium, pages.url("clicks")) as page:
        box = page.page.locator("canvas").nth(1).bounding_box()
        assert box is not None
        page.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 10)
        assert page.position == pytest.approx(SONG_S / 2, abs=0.05)
        for key, moved in (("ArrowRight", 5), ("Shift+ArrowLeft", -1), ("Home", -100), ("ArrowLeft", -5)):
            before = page.position
            page.page.keyboard.press(key)
            assert page.position == pytest.approx(max(0, before + moved))
        ruler = page.page.get_by_role("slider", name="Position")
        ruler.focus()
        page.page.keyboard.press("Home")
        expect(ruler).to_have_attribute("aria-valuetext", "0:00")
        assert page.complaints == []


def test_the_timeline_shows_what_the_tables_say(pages: Pages, chromium: Browser) -> None:
    tables = [
        pl.read_parquet(io.BytesIO(pages.store.read(f"{table}/{pages.song}.parquet")))
        for table in ("instrument_tags", "stem_instrument_tags")
    ]
    catalog = (
        instruments_of(pl.concat(tables).lazy(), present_from(None, AUDIBLE_DB))
        .filter(pl.col("windows") > 0)
        .collect()
    )
    wanted = {
        (row["source"], row["instrument"], round(i["start_s"], 3), round(i["end_s"], 3), round(i["score"], 3))
        for row in catalog.iter_rows(named=True)
        for i in row["intervals"]
    }
    assert len(wanted) > 5
    with visit(chromium, pages.url(pages.song)) as song:
        shown = song.page.evaluate(
            """[...document.querySelectorAll(".bars rect")].map(bar => {
                const {source, instrument} = bar.closest(".instrument").dataset;
                const {start, end, score} = bar.dataset;
                const plot = bar.ownerSVGElement.getBoundingClientRect();
                const box = bar.getBoundingClientRect();
                const at = x => (x - plot.left) / plot.width * player.sound.seconds;
                return [source, instrument, +start, +end, +score, at(box.left), at(box.right)];
            })"""
        )
        assert {(s, i, round(a, 3), round(b, 3), round(c, 3)) for s, i, a, b, c, *_ in shown} == wanted
        seconds = song.page.evaluate("player.sound.seconds")
        for _, _, start, end, _, left, right in shown:
            assert (left, right) == pytest.approx((start, min(end, seconds)), abs=0.1)


def test_a_bar_shows_its_instrument_and_plays_from_its_start(pages: Pages, chromium: Browser) -> None:
    for attempt in in_real_time():
        with attempt, visit(chromium, pages.url("clicks")) as clicking:
            page = clicking.page
            tip = page.locator("#tip")
            expect(tip).to_be_hidden()
            page.locator(".bars rect").first.hover()
            expect(tip).to_have_text("guitarstrings · vocals · score 0.90 · 0:00.0\N{EN DASH}0:03.0 (3.0 s)")
            page.mouse.move(5, 5)
            page.keyboard.press("t")
            for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
                page.keyboard.press(key)
            expect(tip).to_contain_text("drums · score 0.90 · 0:06.0\N{EN DASH}0:09.0 (3.0 s)")
            page.keyboard.press("Enter")
            clicking.moves()
            assert 6.0 <= clicking.position < 8.5
            assert clicking.complaints == []


def test_a_drag_repeats_a_part_without_a_gap_until_it_is_ended(pages: Pages, chromium: Browser) -> None:
    for attempt in in_real_time():
        with attempt, visit(chromium, pages.url("clicks")) as page:
            box = page.page.locator("canvas").nth(1).bounding_box()
            assert box is not None
            second = box["width"] / SONG_S
            # From 4.5 to 6 s, over the border of two chunks: three clicks of every stem, 0.5 s apart.
            page.page.mouse.move(box["x"] + 6 * second, box["y"] + 10)
            page.page.mouse.down()
            page.page.mouse.move(box["x"] + 5 * second, box["y"] + 10)
            page.page.mouse.move(box["x"] + 4.5 * second, box["y"] + 10)
            page.page.mouse.up()
            loop = page.page.evaluate("player.loop")
            assert (loop["from"], loop["to"]) == pytest.approx((4.5, 6), abs=0.05)
            assert page.position == pytest.approx(loop["from"])
            expect(page.page.locator("#band")).to_be_visible()
            page.page.evaluate("player.repeat({from: 4.5, to: 6})")
            page.play()
            recorded = page.record(6)
            assert 4.4 < page.position < 6
            times = beginnings(recorded["output"])
            marks = np.flatnonzero(np.diff(recorded["mark"])) / OPUS_RATE
            assert len(marks) >= 6, "in 3 s are two turns"
            for mark in marks[marks < times[-1] + 0.1]:  # the loop is three pulses long
                assert np.abs(times - mark).min() < 0.003, "without a gap or overlap at the turns"
            page.page.get_by_role("button", name="Loop").click()
            page.until("player.position > 6.2")
            expect(page.page.locator("#band")).to_be_hidden()
            assert page.complaints == []


def test_a_stem_has_a_volume_and_can_be_downloaded(pages: Pages, chromium: Browser, tmp_path: Path) -> None:
    with visit(chromium, pages.url("tones")) as song:
        song.page.get_by_label("Volume of drums").fill("0.5")
        expect(song.page.locator("#heard")).to_have_text("You hear vocals + drums + bass")
        assert song.page.evaluate("player.levels") == pytest.approx([0, 1, 0.25, 1])
        song.page.get_by_role("button", name="Reset").click()
        assert song.page.evaluate("player.levels") == [1, 0, 0, 0]
        with song.page.expect_download() as saving:
            song.page.get_by_role("button", name="Download drums").click()
        assert saving.value.suggested_filename == "a.wav (drums).wav"
        saving.value.save_as(tmp_path / "drums.wav")
        samples, rate = soundfile.read(tmp_path / "drums.wav")
        assert (len(samples) / rate, rate) == (pytest.approx(SONG_S, abs=1e-4), OPUS_RATE)
        truth = soxr.resample(tone(SONG_S, TONES["drums"], 0.1).T, SAMPLE_RATE, OPUS_RATE)
        assert snr_db(truth[OPUS_RATE:-OPUS_RATE].T, samples[OPUS_RATE:-OPUS_RATE].T) > 20
        assert song.complaints == []


def test_pages_fit_a_phone_and_every_name_can_be_read(pages: Pages, chromium: Browser) -> None:
    for name in (pages.song, pages.rejected, "clicks", "index"):
        with visit(chromium, pages.url(name), window=PHONE) as found:
            width = found.page.evaluate("document.documentElement.scrollWidth")
            assert width == PHONE["width"], f"{name} scrolls sideways"
            names = found.page.locator(".name, td.song a, .found, .plot, .ruler text, td, .reason")
            # Boxes of what is shown: inside the window, and wide enough for their content.
            boxes = names.evaluate_all(
                """nodes => nodes.filter(node => node.getBoundingClientRect().width > 0).map(node => {
                    const {left, right} = node.getBoundingClientRect();
                    return [node.textContent.trim(), left, right, node.scrollWidth - node.clientWidth];
                })"""
            )
            assert boxes or name == pages.rejected
            for text, left, right, hidden in boxes:
                assert left >= 0 and right <= PHONE["width"] and hidden <= 1, f"{name}: {text!r}"
            marks = sorted(
                box[1:3]
                for box in found.page.locator(".ruler text").evaluate_all(
                    """nodes => nodes.filter(node => node.getBoundingClientRect().width > 0).map(node => {
                    const {left, right} = node.getBoundingClientRect(); return ["", left, right]; })"""
                )
            )
            assert all(a[1] < b[0] for a, b in pairwise(marks)), f"{name}: labels of the ruler overlap"
            assert not any(box.is_visible() for box in found.page.locator(".keyboard").all())
            assert found.complaints == []


def test_on_a_phone_the_playhead_is_over_plots_and_not_over_names_and_buttons(
    pages: Pages, chromium: Browser
) -> None:
    def picture(visibility: str) -> np.ndarray:
        song.page.evaluate(f"document.getElementById('playhead').style.visibility = '{visibility}'")
        with av.open(io.BytesIO(song.page.screenshot(full_page=True))) as png:
            return next(png.decode(video=0)).to_ndarray(format="rgb24").astype(int)

    def crossed(selector: str) -> set[bool]:
        boxes = [box.bounding_box() for box in song.page.locator(selector).all() if box.is_visible()]
        return {
            bool(changed[ceil(y) + 1 : int(y + height) - 1, int(x) : ceil(x + width)].any())
            for x, y, width, height in (box.values() for box in boxes if box)
        }

    with visit(chromium, pages.url(pages.song), window=PHONE) as song:
        for seconds in (0.0, REAL_S / 20):
            song.page.evaluate(f"player.seek({seconds})")
            # The playhead differs by 200 of 255 from the card; round corners differ a little in each picture.
            changed = (abs(picture("visible") - picture("hidden")) > 60).any(axis=2)
            assert crossed("#score .name, #score .level, #score .toggle, #score .swatch, .part") == {False}
            assert crossed("#score .track canvas, #score .bars") == {True}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_browser(pages: Pages, chromium: Browser, scheme: str) -> None:
    with visit(chromium, pages.url(pages.song), scheme) as song:
        colour = song.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")) / 3
        assert (brightness > 200) is (scheme == "light")
        assert song.complaints == []


def test_a_rejected_song_says_why_without_a_player(pages: Pages, chromium: Browser) -> None:
    with visit(chromium, pages.url(pages.rejected)) as rejected:
        expect(rejected.page.get_by_role("heading", name="This upload was rejected")).to_be_visible()
        expect(rejected.page.get_by_text("empty: the file is empty; upload it again").first).to_be_visible()
        assert rejected.page.locator("canvas, button").count() == 0
        assert rejected.complaints == []


def test_a_page_requests_only_itself_from_a_file_and_over_http(pages: Pages, chromium: Browser) -> None:
    with file_server(pages.folder) as server:
        for base in (pages.folder.as_uri(), server):
            for name in (pages.song, pages.rejected, "index"):
                with visit(chromium, f"{base}/{name}.html") as found:
                    if name == pages.song:
                        found.play()
                    found.page.evaluate("fetch('https://example.org/').catch(() => {})")
                    found.page.evaluate("new Image().src = 'https://example.org/a.png'")
                    found.page.wait_for_timeout(100)
                    assert [url for url in found.asked_for if url not in found.refused] == [
                        f"{base}/{name}.html"
                    ]
                    refused = [text for text in found.complaints if "Content Security Policy" in text]
                    assert len(refused) >= 2 and all("example.org" in text for text in found.complaints)


def test_the_index_searches_filters_sorts_and_opens_a_song(pages: Pages, chromium: Browser) -> None:
    with visit(chromium, pages.url("index")) as index:
        page = index.page
        titles = page.locator("td.song a")
        assert titles.all_text_contents() == ["a.wav", "Clicks", "empty.wav", "Night Bus.flac"]
        page.get_by_role("searchbox").fill("NIGHT mia")
        expect(titles).to_have_text(["Night Bus.flac"])
        page.get_by_role("searchbox").fill("")
        page.get_by_label("Status").select_option("rejected")
        expect(titles).to_have_text(["empty.wav"])
        expect(page.locator("#count")).to_have_text("1 of 4 songs")
        expect(page.locator(".reason")).to_have_text("empty: the file is empty; upload it again")
        page.get_by_label("Status").select_option("")
        page.get_by_label("Owner").select_option("mia")
        page.get_by_label("Instrument", exact=True).fill("drums")
        expect(titles).to_have_text(["Night Bus.flac"])
        page.get_by_label("Instrument", exact=True).fill("guitar")
        page.get_by_role("button", name="Remove drums").click()
        expect(titles).to_have_text(["Clicks", "Night Bus.flac"])
        page.get_by_label("Without", exact=True).fill("drums")
        expect(titles).to_have_text(["Clicks"])
        page.reload()
        expect(titles).to_have_text(["Clicks"])
        page.get_by_role("button", name="Remove without drums").click()
        page.get_by_role("button", name="Length").click()
        expect(titles).to_have_text(["Night Bus.flac", "Clicks"])
        page.keyboard.press("/")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/night-bus-*.html")
        page.go_back()
        expect(page.get_by_role("button", name="Remove guitar")).to_be_visible()
        expect(titles).to_have_text(["Clicks", "Night Bus.flac"])
        assert index.complaints == []


def test_an_index_of_thousands_makes_only_the_rows_that_are_on_screen(
    chromium: Browser, tmp_path: Path
) -> None:
    pages = PageFolder(open_store(str(tmp_path)), folder="")
    head = '<script type="application/json" id="summary">{}</script>'
    for number in range(3000):
        summary = {
            "digest": "", "song_id": f"song-{number:04}", "title": f"Song {number:04}", "artist": "", "owner": "mia",
            "filename": "", "status": "ok", "seconds": number, "loudness_lufs": None,
            "instruments": [["sitar", "plucked strings"]],
        }  # fmt: skip
        (tmp_path / f"song-{number:04}.html").write_text(head.format(json.dumps(summary)))
    write_index(pages)
    with visit(chromium, (tmp_path / "index.html").as_uri()) as index:
        rows = index.page.locator("tbody tr")
        assert 0 < rows.count() < 200
        index.page.locator("#end").scroll_into_view_if_needed()
        index.until("document.querySelectorAll('tbody tr').length > 60")
        index.page.get_by_role("searchbox").fill("2999")
        expect(rows).to_have_count(1)
        assert index.complaints == []
