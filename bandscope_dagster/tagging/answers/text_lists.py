"""Find lists that a language model wrote as text: bullets, numbers, and "Instruments: piano, drums"."""

# ruff: noqa: RUF001 (full-width brackets, commas and quotes are meant)

import re
from dataclasses import dataclass, field

from bandscope_dagster.tagging.answers.labels import clean_label, comma_items, plain_text
from bandscope_dagster.tagging.answers.lenient_json import Structure
from bandscope_dagster.tagging.protocol import Layer

_NAMES: dict[Layer, tuple[str, ...]] = {
    "foreground": ("foreground", "vordergrund", "前景"),
    "middle_ground": ("middleground", "midground", "middle", "mid", "mittelgrund", "中景"),
    "background": ("background", "hintergrund", "背景"),
}
_LAYERS: dict[str, Layer] = {name: layer for layer, names in _NAMES.items() for name in names}
_BESIDE_LAYER = re.compile(r"^the|(?:layer|instruments?|elements?|sounds?|层|乐器)$")
_NO_LETTER = re.compile(r"[\W\d_]+")
# "strument" is a part of "instruments", "Instrumente", "instrumentos" and "strumenti".
_INSTRUMENTS = re.compile(r"strument|answer|乐器|樂器|楽器|악기|инструмент|答案", re.IGNORECASE)
MAX_HEADING = 60  # characters
_SPLIT_BULLET = 4  # words; if a part has more, the commas of a bullet are part of a phrase

_EMPHASIS = re.compile(r"\*\*|__|`")
_BULLET = re.compile(r"[-*+–—] |[•·‣◦▪●○►▶✓✔→] ?|\(?\d{1,3}[.)、] ?")
_COLON = re.compile(r" ?[:：]")
_DESCRIPTION = re.compile(r" ?[:：](?: |$)| [-–—] ")


def layer_named(heading: str) -> Layer | None:
    """The layer that a key or heading names, in any spelling: "Middle ground", "1. mid_ground:"; None if none."""
    if len(heading) > MAX_HEADING:
        return None
    letters = _NO_LETTER.sub("", heading.partition("(")[0].casefold())
    return _LAYERS.get(_BESIDE_LAYER.sub("", letters))


def announces_instruments(heading: str) -> bool:
    """True if a key or heading says that instruments follow: "Instruments I hear:", "answer", "乐器"."""
    return len(heading) <= MAX_HEADING and _INSTRUMENTS.search(heading) is not None


@dataclass(slots=True)
class _Section:
    heading: str
    announced: bool  # True if the heading names a layer or instruments: any line below is items then
    items: list[str] = field(default_factory=list[str])
    ended: bool = False  # True after a blank line below the items: then only bullets are items


def read_lists(text: str) -> list[Structure]:
    """One list per layer, with the layer as its title, or else one list; none if the text is prose.

    If some lists have a heading that names instruments, only those are read: "Mood:" may have bullets too. The
    description in a bullet ("Piano: soft chords") is dropped. Text does not show if its last item is truncated.
    """
    sections = [_Section("", announced=False)]
    for line in text.splitlines():
        if not line.lstrip().startswith("```"):
            _read_line(_EMPHASIS.sub("", plain_text(line)), sections)
    layers = [section for section in sections if layer_named(section.heading)]
    if any(section.items for section in layers):
        return [_as_list(section.items, section.heading) for section in layers]
    counting = [section for section in sections if section.announced] or sections
    items = [item for section in counting for item in section.items]
    return [_as_list(items)] if items else []


def _read_line(line: str, sections: list[_Section]) -> None:
    """Add a line's items to the last section, or begin a new section."""
    bullet = _BULLET.match(line)
    body = line[bullet.end() :] if bullet else line.lstrip("#> ")
    colon = _COLON.search(body)
    heading, rest = (body[: colon.start()], body[colon.end() :].strip()) if colon else (body, "")
    announced = layer_named(heading) is not None or (colon is not None and announces_instruments(heading))
    section = sections[-1]
    if announced:
        sections.append(_Section(heading, announced=True, items=_comma_list(rest)))
        if rest:  # "1. Instruments: piano, drums": the next bullet, "2. Mood: calm", is not one of its items
            sections.append(_Section("", announced=False))
    elif bullet:
        section.items.extend(_bullet_items(body))
    elif colon and not rest:
        sections.append(_Section(heading, announced=False))
    elif not line:
        section.ended = bool(section.items)
    elif section.announced and not section.ended:
        section.items.extend(_comma_list(body))


def _comma_list(text: str) -> list[str]:
    """The items of a line, or none if one of them shows that the line is prose."""
    items = comma_items(text)
    return items if all(clean_label(item) for item in items) else []


def _bullet_items(body: str) -> list[str]:
    item = _DESCRIPTION.split(body, maxsplit=1)[0]
    parts = comma_items(item)
    return parts if all(len(part.split()) <= _SPLIT_BULLET for part in parts) else [item]


def _as_list(items: list[str], title: str = "") -> Structure:
    return Structure(is_object=False, entries=[(None, item) for item in items], complete=True, title=title)
