"""The picture of a song: its content, for songs of every kind, in few bytes."""

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from markdown_it import MarkdownIt

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.pictures.envelope import Envelope, EnvelopeMeter
from bandscope_dagster.pictures.song_picture import as_markdown, draw_song

SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 100_000  # of the Markdown that Dagster stores and shows


def envelope(seconds: float, amplitude: float = 0.5, seed: int | None = None) -> Envelope:
    """The envelope of a constant, or of noise whose level changes 100 times a second."""
    measure, frames = EnvelopeMeter(), round(seconds * SAMPLE_RATE)
    samples = np.full((2, frames), amplitude, np.float32)
    if seed is not None:
        samples *= np.repeat(np.random.default_rng(seed).random(-(-frames // 441)), 441)[:frames]
    measure.push(samples.astype(np.float32))
    return measure.finish()


def window(instrument: str, start_s: float, end_s: float, score: float | None = None) -> dict[str, Any]:
    return {"instrument": instrument, "score": score, "bound": 0.2, "start_s": start_s, "end_s": end_s}


def drawn(envelopes: Mapping[str, Envelope], tags: Iterable[Mapping[str, Any]] | None = None) -> Element:
    return ElementTree.fromstring(draw_song(envelopes, tags))


def texts(picture: Element) -> list[str]:
    return [str(text.text) for text in picture.iter(f"{SVG}text")]


def rows(picture: Element) -> list[str]:
    """The names left of the plot, from top to bottom."""
    return [str(text.text) for text in picture.findall(f"{SVG}svg/{SVG}text")]


def levels(picture: Element) -> list[str]:
    """The levels below the names of the sources."""
    signs = [text.replace("\N{MINUS SIGN}", "-") for text in texts(picture)]
    return [text for text in signs if re.fullmatch(r"-?[\d.]+ dBFS", text)]


def heights(picture: Element) -> list[float]:
    """The height of each envelope at its loudest, in pixels from the middle of its row."""
    found: list[float] = []
    for path in picture.findall(f"{SVG}g/{SVG}path[@id]"):
        steps = [int(step) for step in re.findall(r"v(-?\d+)", path.attrib["d"])]
        found.append(max(np.cumsum(steps)) / 4)
    return found


def test_the_mixture_is_on_top_then_the_stems_then_the_instruments() -> None:
    song = {name: envelope(10) for name in ("mixture", "vocals", "accompaniment")}
    tags = [window("piano", 0, 3, 0.9), window("violin", 3, 6, 0.5)]
    assert rows(drawn(song, tags)) == ["mixture", "vocals", "accompaniment", "piano", "violin"]


def test_all_envelopes_have_one_scale_and_each_its_level() -> None:
    picture = drawn({"mixture": envelope(3, 0.5), "vocals": envelope(3, 0.25), "other": envelope(3, 0.125)})
    assert heights(picture) == [18.0, 9.0, 4.5]
    assert levels(picture) == ["-6.0 dBFS", "-12.0 dBFS", "-18.1 dBFS"]


def test_the_scale_is_told() -> None:
    shown = texts(drawn({"mixture": envelope(3, 0.5)}))
    assert "0:03.0 · RMS, full height \N{MINUS SIGN}6.0 dBFS" in shown


def test_a_silent_song_is_flat() -> None:
    picture = drawn({"mixture": envelope(3, 0.0), "vocals": envelope(3, 0.0)}, [])
    assert heights(picture) == [0.0, 0.0]
    assert texts(picture).count("silent") == 2


def test_a_song_below_the_threshold_of_silence_is_not_blown_up() -> None:
    assert heights(drawn({"mixture": envelope(3, 1e-5)}))[0] < 2


@pytest.mark.parametrize(
    ("seconds", "first", "last"),
    [
        (0.5, "0:00.0", "0:00.5"),
        (1, "0:00.0", "0:01.0"),
        (21.5, "0:00", "0:20"),
        (184, "0:00", "3:00"),
        (1000, "0:00", "15:00"),
    ],
)
def test_the_axis_counts_minutes_and_seconds(seconds: float, first: str, last: str) -> None:
    picture = drawn({"mixture": envelope(seconds)})
    ticks = [text.text for text in picture.findall(f"{SVG}text[@text-anchor='middle']")]
    assert (ticks[0], ticks[-1]) == (first, last)
    assert 3 <= len(ticks) <= 9


def test_a_source_that_is_shorter_than_the_song_ends_before_it() -> None:
    picture = drawn({"mixture": envelope(10), "vocals": envelope(5)})
    columns = [path.attrib["d"].count("h1") for path in picture.findall(f"{SVG}g/{SVG}path[@id]")]
    assert columns == [640, 320]


def test_a_song_that_was_not_tagged_has_no_instruments_and_does_not_say_that_there_are_none() -> None:
    assert not [text for text in texts(drawn({"mixture": envelope(3)}, None)) if "instrument" in text]


def test_a_song_in_which_no_instrument_was_found_says_so() -> None:
    song = {"mixture": envelope(3)}
    assert "no instrument is present" in texts(drawn(song, []))


def test_scores_have_a_key_and_a_tagger_without_scores_has_none() -> None:
    song = {"mixture": envelope(3)}
    assert {"score 0.20", "0.75"} <= set(texts(drawn(song, [window("piano", 0, 3, 0.75)])))
    assert not [text for text in texts(drawn(song, [window("piano", 0, 3)])) if text.startswith("score")]


def test_an_instrument_is_drawn_where_it_is_heard() -> None:
    picture = drawn({"mixture": envelope(10)}, [window("piano", 2.5, 5), window("piano", 7.5, 10)])
    strokes = [path.attrib["d"] for path in picture.findall(f"{SVG}g/{SVG}path[@stroke-opacity]")]
    assert strokes == ["M160,0h160m160,0h160"]


def test_instruments_beyond_the_room_are_counted() -> None:
    tags = [window(f"instrument {n}", 0, 3) for n in range(17)]
    assert "12 of 17 instruments" in texts(drawn({"mixture": envelope(3)}, tags))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "\x00\ud800", "\u202eלבנ", "x" * 10_000, "]]>&amp;\"'", "a\nb", ""]
)
def test_names_from_strangers_break_nothing(name: str) -> None:
    picture = drawn({"mixture": envelope(3), name: envelope(3)}, [window(name, 0, 3, 0.5)])
    assert len(rows(picture)) == 3
    assert {element.tag.removeprefix(SVG) for element in picture.iter()} <= {
        *("svg", "rect", "path", "use", "g", "text"),
    }


def test_a_song_of_which_no_audio_came_has_no_picture() -> None:
    for nothing in ({}, {"mixture": EnvelopeMeter().finish()}):
        with pytest.raises(ValueError, match="no source has audio"):
            draw_song(nothing, None)


def test_the_markdown_is_one_image_that_carries_the_picture() -> None:
    svg = draw_song({"mixture": envelope(3), "([<vocals>])": envelope(3)}, [window("![](", 0, 3)])
    [paragraph] = [token for token in PARSER.parse(as_markdown(svg, "a-song")) if token.type == "inline"]
    [image] = paragraph.children or []
    assert (image.type, image.content) == ("image", "a-song")
    kind, _, data = str(image.attrs["src"]).partition(",")
    assert kind == "data:image/svg+xml"
    assert unquote(data) == svg


class _Permissive(MarkdownIt):
    """A renderer like Dagster's, which allows ``data:`` images of every type."""

    def validateLink(self, url: str) -> bool:
        return True

    def normalizeLink(self, url: str) -> str:
        return url


PARSER = _Permissive()


def busiest_song() -> tuple[dict[str, Envelope], list[dict[str, Any]]]:
    """A song of two hours that changes in every column: six stems, and twelve instruments with changing scores."""
    names = ("mixture", "drums", "bass", "other", "vocals", "guitar", "piano")
    song = {name: envelope(12.8, seed=seed) for seed, name in enumerate(names)}
    scores = np.random.default_rng(0).uniform(0.2, 1, (12, 640))
    tags = [
        window(f"{'二胡' * 20} {row}", column * 0.02, (column + 1) * 0.02, float(score))
        for row, of_row in enumerate(scores)
        for column, score in enumerate(of_row)
    ]
    return song, tags


def test_the_busiest_song_is_below_100_kb_and_drawn_in_a_moment() -> None:
    song, tags = busiest_song()
    started = perf_counter()
    markdown = as_markdown(draw_song(song, tags), "a-song")
    assert perf_counter() - started < 1.0  # measured: 0.03 s on an idle machine
    assert len(markdown.encode()) < MOST_BYTES


def test_pictures_that_are_drawn_in_several_threads_at_once_are_those_of_one() -> None:
    song, tags = busiest_song()
    alone = draw_song(song, tags)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: draw_song(song, tags), range(8))) == {alone}
