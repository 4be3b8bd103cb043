"""Draw a song: the envelopes of its sources in rows, its instruments below, on one time axis.

The picture is SVG: it needs no drawing library, fewer bytes than a bitmap, and the fonts of the reader's browser
cover every script. Dagster's UI shows it in an ``<img>``, in which SVG can neither run scripts nor load anything.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.levels import SILENCE_DB
from bandscope_dagster.pictures.envelope import Envelope
from bandscope_dagster.pictures.labels import label
from bandscope_dagster.pictures.timeline import LEVELS, Timeline, timeline

# Pixels, at the natural size of the picture.
LEFT: Final = 140  # width of the labels left of the plot
PLOT: Final = 640  # width of the plot; one column per pixel
WIDTH: Final = LEFT + PLOT + 20
ENVELOPE_ROW: Final = 40
HALF_HEIGHT: Final = 18  # of the envelope at its loudest
TAG_ROW: Final = 16
TAG_HEIGHT: Final = 12
LINE: Final = 22  # height of a line of text between the parts
FINE: Final = 4  # steps per pixel; envelopes are rounded to them

LABEL_CELLS: Final = 20  # columns that fit left of the plot in most fonts
TICKS: Final = 8  # most ticks on the time axis
TICK_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)

# The picture has its own background, so that it looks the same in light and dark themes. Blue and vermilion are from
# Okabe & Ito (2008): colour-blind people can distinguish them. Each row has a name, and scores differ in lightness.
PANEL: Final = "#ffffff"
TEXT: Final = "#333333"
FAINT_TEXT: Final = "#666666"
GRID: Final = "#dddddd"
FIRST_SOURCE: Final = "#444444"
OTHER_SOURCES: Final = "#0072b2"
TAGS: Final = "#d55e00"


def draw_song(envelopes: Mapping[str, Envelope], tags: Iterable[Mapping[str, Any]] | None) -> str:
    """The picture as SVG.

    ``envelopes`` are drawn in their order, the mixture first, on one linear scale. ``tags`` are the windows in which
    instruments are present, as ``timeline`` takes them, None if the song was not tagged.

    Raises:
        ValueError: no source has any audio.
    """
    seconds = max((envelope.seconds for envelope in envelopes.values()), default=0.0)
    if seconds == 0.0:
        raise ValueError("no source has audio to draw")
    found = None if tags is None else timeline(tags, seconds, PLOT)

    plot_end = LINE + ENVELOPE_ROW * len(envelopes)
    tags_start = plot_end + LINE
    if found is not None:
        plot_end = tags_start + TAG_ROW * len(found.levels)
    picture = _panel(plot_end + LINE)
    _draw_axis(picture, seconds, LINE, plot_end)
    _draw_envelopes(picture, envelopes, seconds)
    if found is not None:
        _draw_tags(picture, found, tags_start)
    return tostring(picture, encoding="unicode")


def as_markdown(svg: str, alternative: str) -> str:
    """A picture as a Markdown image with the data in it; ``alternative`` is its plain text for screen readers.

    The data is percent-encoded, which keeps the digits of the paths: a fifth shorter than base64.
    """
    return f"![{alternative}](data:image/svg+xml,{quote(svg, safe='/:=,;')})"


def _panel(height: float) -> Element:
    picture = Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=str(WIDTH),
        height=str(height),
        attrib={"font-family": "system-ui,sans-serif", "font-size": "12"},
    )
    SubElement(picture, "rect", width="100%", height="100%", rx="6", fill=PANEL)
    return picture


def _draw_axis(picture: Element, seconds: float, top: float, bottom: float) -> None:
    """Draw lines and times at round seconds, through all rows."""
    step = next((step for step in TICK_S if seconds / step <= TICKS), seconds)
    columns = {tick * step: LEFT + PLOT * tick * step / seconds for tick in range(int(seconds / step) + 1)}
    SubElement(picture, "path", d="".join(f"M{x:.1f},{top}V{bottom}" for x in columns.values()), stroke=GRID)
    for time, x in columns.items():
        _write(picture, x, bottom + 14, _clock(time, tenths=step < 1), FAINT_TEXT, "middle", size=10)


def _draw_envelopes(picture: Element, envelopes: Mapping[str, Envelope], seconds: float) -> None:
    """Draw one row per source, mirrored at its middle; the loudest moment of all sources sets the scale."""
    levels = {
        source: envelope.rms(max(1, round(PLOT * envelope.seconds / seconds)))
        for source, envelope in envelopes.items()
    }
    loudest = max(float(rms.max()) for rms in levels.values())
    full_dbfs = max(SILENCE_DB, 20 * math.log10(loudest) if loudest > 0 else SILENCE_DB)
    caption = f"{_clock(seconds, tenths=True)} · RMS, full height {_db(full_dbfs)}"
    _write(picture, LEFT + PLOT, LINE - 8, caption, FAINT_TEXT, "end", size=10)
    for row, (source, rms) in enumerate(levels.items()):
        middle = LINE + ENVELOPE_ROW * row + ENVELOPE_ROW / 2
        _label(picture, source, middle - 3)
        level = envelopes[source].rms_dbfs
        text = "silent" if level is None else _db(level)
        _write(picture, LEFT - 8, middle + 12, text, FAINT_TEXT, "end", size=10)
        colour = FIRST_SOURCE if row == 0 else OTHER_SOURCES
        drawn = SubElement(
            picture,
            "g",
            fill=colour,
            stroke=colour,
            transform=f"translate({LEFT},{middle:g})scale(1,{1 / FINE})",
        )
        heights = np.rint(rms / 10 ** (full_dbfs / 20) * HALF_HEIGHT * FINE).astype(int)
        SubElement(drawn, "path", id=f"envelope{row}", d=_outline(heights))
        SubElement(drawn, "use", href=f"#envelope{row}", transform="scale(1,-1)")


def _draw_tags(picture: Element, found: Timeline, top: float) -> None:
    """Draw a heading with the key of the scores, and one row per instrument."""
    heading = "no instrument is present"
    if found.levels:
        shown, present = len(found.levels), found.instruments
        heading = f"{shown} of {present} instruments" if shown < present else "instruments"
    _write(picture, LEFT, top - 7, heading, TEXT, "start", size=12)
    if found.scores is not None:
        _draw_key(picture, *found.scores, top - 7)
    for row, (instrument, levels) in enumerate(found.levels.items()):
        middle = top + TAG_ROW * row + TAG_ROW / 2
        _label(picture, instrument, middle + 4)
        line = SubElement(
            picture,
            "g",
            stroke=TAGS,
            transform=f"translate({LEFT},{middle:g})",
            attrib={"stroke-width": str(TAG_HEIGHT)},
        )
        for level in range(1, LEVELS + 1):
            if runs := _runs(levels == level):
                SubElement(line, "path", d=runs, attrib={"stroke-opacity": _opacity(level)})


def _draw_key(picture: Element, lowest: float, highest: float, baseline: float) -> None:
    """Draw the key of the levels, at the right end of a line."""
    right = LEFT + PLOT - 28
    left = right - TAG_ROW * LEVELS
    _write(picture, left - 6, baseline, f"score {lowest:.2f}", FAINT_TEXT, "end", size=10)
    _write(picture, right + 6, baseline, f"{highest:.2f}", FAINT_TEXT, "start", size=10)
    for level in range(1, LEVELS + 1):
        SubElement(
            picture,
            "rect",
            x=str(left + TAG_ROW * (level - 1)),
            y=f"{baseline - 9:g}",
            width=str(TAG_ROW),
            height="10",
            fill=TAGS,
            attrib={"fill-opacity": _opacity(level)},
        )


def _opacity(level: int) -> str:
    return f"{level / LEVELS:g}"


def _outline(heights: NDArray[np.int_]) -> str:
    """The path of the upper half of an envelope, closed along its middle: ``M0,0`` and one step per column."""
    steps = np.diff(heights, prepend=0).tolist()
    return "M0,0v" + "h1v".join(str(step) for step in steps) + "h1V0z"


def _runs(marked: NDArray[np.bool_]) -> str:
    """The path of a horizontal stroke over every run of marked columns."""
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False)).tolist()
    path, pen = "", 0
    for start, end in zip(edges[0::2], edges[1::2], strict=True):
        path += f"{'m' if path else 'M'}{start - pen},0h{end - start}"
        pen = end
    return path


def _label(picture: Element, text: str, baseline: float) -> None:
    """Draw a row's name, right-aligned left of the plot, and clipped if the font is larger than expected."""
    height = 16
    box = SubElement(picture, "svg", y=f"{baseline - height + 4:g}", width=str(LEFT - 8), height=str(height))
    _write(box, LEFT - 8, height - 4, label(text, LABEL_CELLS), TEXT, "end", size=12)


def _write(
    parent: Element, x: float, baseline: float, text: str, colour: str, anchor: str, *, size: int
) -> None:
    SubElement(
        parent,
        "text",
        x=f"{x:.1f}",
        y=f"{baseline:g}",
        fill=colour,
        attrib={"text-anchor": anchor, "font-size": str(size)},
    ).text = text


def _clock(seconds: float, *, tenths: bool) -> str:
    """The time as minutes and seconds: 3:07, or 3:07.4."""
    in_tenths = round(seconds * 10)
    minutes, rest = divmod(in_tenths, 600)
    return f"{minutes}:{rest / 10:04.1f}" if tenths else f"{minutes}:{rest // 10:02d}"


def _db(level: float) -> str:
    return f"{level:.1f} dBFS".replace("-", "\N{MINUS SIGN}")
