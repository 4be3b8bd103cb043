"""Parse the instruments in the answer of a language model: strict about structure, lenient about the text around it.

Lists and objects in the syntax of JSON or Python are read first, with any text around them; if there are none,
bullets, numbered lines and "Instruments: piano, drums". Prose is never read.

- If there are several structures, the best one is read: one of the requested shape, then a complete one, then one after
  "Final answer:", then one whose heading names instruments. Of equals, the last in the answer is read.
- An item may be an object with a name, ``{"instrument": "piano", "confidence": 0.9}``. The confidence is ignored: a
  number that a language model writes is not a measured score.
- In list mode, an object is read as its only list, or as the list whose key names instruments; an object of layers is
  read as all its labels. In layers mode, a plain list gives labels without a layer.
- Bare words are labels in a list without any quotes (``[piano, drums]``); beside quoted labels, they are not.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bandscope_dagster.tagging.answers.labels import clean_label, comma_items, says_nothing
from bandscope_dagster.tagging.answers.lenient_json import Structure, Value, Word, read_structures
from bandscope_dagster.tagging.answers.text_lists import announces_instruments, layer_named, read_lists
from bandscope_dagster.tagging.protocol import Heard, Layer, Tag

PARSER_VERSION = 2
"""Raise it whenever an answer gives other labels: stored tags of language models are then outdated."""

MAX_ANSWER = 50_000  # characters that are read, many times the length of a list
MAX_LABELS = 64  # distinct ones in a window; a full orchestra has about 30 instruments
LOOPING_FROM = 8  # repeated items; fewer are a slip, as many are a model in a loop

NAMED_NOTHING = "the model named nothing"
TRUNCATED = "truncated"

_Groups = list[tuple[Layer | None, list[Value]]]

# The beginning of a turn of the user in a line of its own, which a model may invent after its answer: "Human:",
# "<|im_start|>user", "### User:", "**Question:**".
_NEXT_TURN = re.compile(
    r"^[ \t#*>_-]*+(?:<\|[^|\n]{1,20}\|>\s?)?"
    r"(?:human|user|question|用户|人类|提问|问题|ユーザー)\b[ \t*_]*+(?:[:\uff1a]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_FINAL = re.compile(r"\bfinal|最终|最終", re.IGNORECASE)
_NAME_KEYS = {"instrument", "instrument_name", "name", "label"}
_LITERAL = re.compile(r"[-+.\d][\w.+-]*+|true|false|nan|infinity", re.IGNORECASE)
_FOREMOST: Sequence[Layer | None] = ("foreground", "middle_ground", "background", None)


def parse_list(text: str) -> Heard:
    """The labels in an answer to "name the instruments, as a JSON list of strings"; no layers, no scores."""
    return _parse(text, layers=False)


def parse_layers(text: str) -> Heard:
    """The labels in an answer to "name the instruments, as a JSON object of background, middle_ground, foreground"."""
    return _parse(text, layers=True)


def _parse(text: str, layers: bool) -> Heard:
    read = text[:MAX_ANSWER]
    notes = [f"only the first {len(read)} of {len(text)} characters read"] if len(text) > len(read) else []
    turn = next((found.start() for found in _NEXT_TURN.finditer(read) if read[: found.start()].strip()), None)
    if turn is not None:
        read = read[:turn]
        notes.append("cut before an invented turn of the user")
    structures = _joined_by_title(read_structures(read) or read_lists(read))
    if not structures and says_nothing(read):
        return Heard([], text, "; ".join([*notes, NAMED_NOTHING]))
    candidates = [(one, groups) for one in structures if (groups := _groups(one)) is not None]
    if not candidates:
        return Heard(
            [], text, "; ".join(notes) or None, f"unparseable: {_nothing_readable(read, structures)}"
        )

    # Of equals, ``max`` takes the first, which is the last in the answer.
    chosen, groups = max(reversed(candidates), key=lambda candidate: _rank(*candidate, layers))
    labels = _Labels()
    for layer, items in groups:
        labels.add(items, layer)
    tags = list(labels.tags.values())
    error = None
    if not tags and not chosen.complete:
        error = "unparseable: the answer ends before its first label"
    elif not tags and labels.dropped:
        error = f"unparseable: the answer has a list, but none of its {labels.dropped} items is a label"

    if not chosen.complete:
        notes.append(TRUNCATED)
    if len(structures) > 1:
        notes.append(f"one of {len(structures)} lists or objects taken")
    notes += labels.notes()
    if layers and any(tag.layer is None for tag in tags):
        notes.append("labels without a layer")
    if not layers and any(tag.layer for tag in tags):
        notes.append("layers left out: a list was asked for")
        tags = [replace(tag, layer=None) for tag in tags]
    if not tags and error is None:
        notes.append(NAMED_NOTHING)
    return Heard(tags, text, "; ".join(notes) or None, error)


def _nothing_readable(text: str, structures: list[Structure]) -> str:
    if not text.strip():
        return "the answer is empty"
    if not structures:
        return "the answer holds no list of instruments, only prose"
    if not structures[-1].complete:
        return "the answer ends before its first label"
    return "the answer holds an object in which no list is that of the instruments"


def _joined_by_title(structures: list[Structure]) -> list[Structure]:
    """Structures in which lists with the heading of a layer ("Foreground: […]") are joined into one object."""
    lists = [one for one in structures if not one.is_object and layer_named(one.title)]
    others = [one for one in structures if one.is_object or not layer_named(one.title)]
    if not lists:
        return others
    complete = all(one.complete for one in lists)
    joined = Structure(is_object=True, entries=[(one.title, one) for one in lists], complete=complete)
    return [*others, joined]


def _rank(structure: Structure, groups: _Groups, layers: bool) -> tuple[bool, bool, bool, bool]:
    """The criteria for the answer among several structures, the most important first."""
    return (
        any(layer is not None for layer, _ in groups) == layers,
        structure.complete,
        _FINAL.search(structure.title) is not None,
        announces_instruments(structure.title),
    )


def _groups(structure: Structure) -> _Groups | None:
    """The items by layer, those without a layer under None; None if the structure is no answer."""
    layered = _layers(structure)
    if not layered and not structure.is_object:  # [{"foreground": […]}, {"background": […]}]
        layered = [
            group
            for _, value in structure.entries
            if isinstance(value, Structure)
            for group in _layers(value)
        ]
    if layered:
        return layered
    items = _listed(structure)
    children = [value for _, value in structure.entries if isinstance(value, Structure)]
    if len(children) == 1 and (items is None or (items == children and _name(children[0]) is None)):
        wrapped = _groups(children[0])  # [["piano"]], {"layers": {…}}
        # The missing part of a truncated object may be the right list.
        certain = structure.complete or not structure.is_object or any(layer for layer, _ in wrapped or [])
        return wrapped if certain else None
    return None if items is None else [(None, items)]


def _layers(structure: Structure) -> _Groups:
    """The lists under the layer keys of an object. A list under another key counts as an item that is no label."""
    groups: _Groups = []
    for key, value in structure.entries if structure.is_object else ():
        layer = None if key is None else layer_named(key)
        if layer is not None:
            groups.append((layer, _items(value)))
        elif key is not None and isinstance(value, Structure):
            groups.append((None, [value]))
    return groups if any(layer for layer, _ in groups) else []


def _items(value: Value) -> list[Value]:
    """The items under a key: those of a list, or labels in one string."""
    if isinstance(value, str):
        return [*comma_items(value)]
    if isinstance(value, Word):
        return [] if says_nothing(value.text) else [value]
    listed = _listed(value)
    return [value] if listed is None else listed


def _listed(structure: Structure) -> list[Value] | None:
    """The items of a list, of a set, or of the only list in an object; None if there is none."""
    if not structure.is_object:
        return [value if key is None else Word("") for key, value in structure.entries]
    keyed = [(key, value) for key, value in structure.entries if key is not None]
    if not keyed:
        # Until the bracket is closed, an item of a set may turn out to be a key.
        return [value for _, value in structure.entries] if structure.complete else None
    announced = [value for key, value in keyed if announces_instruments(key) and not isinstance(value, Word)]
    lists: list[Value] = [value for _, value in keyed if isinstance(value, Structure) and structure.complete]
    only = next((values[0] for values in (announced, lists) if len(values) == 1), None)
    return None if only is None else _items(only)


def _name(item: Structure) -> str | None:
    """The label of an item that is an object."""
    names = (value for key, value in item.entries if key and key.strip().casefold() in _NAME_KEYS)
    return next((name for name in names if isinstance(name, str)), None)


def _layer(item: Structure) -> Layer | None:
    """The layer in an item that is an object: ``{"instrument": "piano", "layer": "background"}``."""
    named = (value for key, value in item.entries if key and key.strip().casefold() == "layer")
    return next((layer_named(name) for name in named if isinstance(name, str)), None)


@dataclass(slots=True)
class _Labels:
    """The labels collected so far: each once, in its first spelling and its foremost layer."""

    tags: dict[str, Tag] = field(default_factory=dict[str, Tag])
    dropped: int = 0  # items that are not labels
    repeated: int = 0  # in the same layer
    in_two_layers: list[str] = field(default_factory=list[str])
    beyond: int = 0  # labels after MAX_LABELS distinct ones

    def add(self, items: list[Value], layer: Layer | None) -> None:
        unquoted = all(isinstance(item, Word) for item in items)
        for item in items:
            text, own_layer = None, None
            if isinstance(item, Structure):
                text, own_layer = _name(item), _layer(item)
            elif isinstance(item, str):
                text = item
            elif unquoted and item.whole and not _LITERAL.fullmatch(item.text):
                text = item.text
            if text is None or not says_nothing(text):
                self._add_label(text and clean_label(text), layer or own_layer)

    def _add_label(self, label: str | None, layer: Layer | None) -> None:
        if not label:
            self.dropped += 1
            return
        key = unicodedata.normalize("NFKC", label).casefold()
        known = self.tags.get(key)
        if known is None and len(self.tags) == MAX_LABELS:
            self.beyond += 1
        elif known is None:
            self.tags[key] = Tag(label, None, layer)
        elif known.layer == layer:
            self.repeated += 1
        else:
            foremost = min(known.layer, layer, key=_FOREMOST.index)
            self.tags[key] = replace(known, layer=foremost)
            if known.label not in self.in_two_layers:
                self.in_two_layers.append(known.label)

    def notes(self) -> list[str]:
        notes: list[str] = []
        if self.dropped:
            notes.append(f"items dropped that are no labels: {self.dropped}")
        if self.repeated >= LOOPING_FROM:
            notes.append(f"looping: {self.repeated} repeated items cut")
        if self.beyond:
            notes.append(f"labels cut beyond the first {MAX_LABELS}: {self.beyond}")
        if self.in_two_layers:
            notes.append(f"foremost of several layers kept for {', '.join(self.in_two_layers)}")
        return notes
