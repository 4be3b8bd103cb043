"""The questions to a language model about a window of audio, by mode; the texts are the files in this folder."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from bandscope_dagster.tagging.answers.parse import parse_layers, parse_list
from bandscope_dagster.tagging.options import Mode
from bandscope_dagster.tagging.protocol import Heard

# A list of thirty instruments takes about 150 tokens, and the object with layers 50 more than its lists. An answer that
# needs more is in a loop.
LIST_TOKENS: Final = 256
DESCRIPTION_TOKENS: Final = 256
LAYERS_TOKENS: Final = 512

# JSON Schemas of what the prompts ask for, for servers that hold a model to one.
LIST_SCHEMA: Final[Mapping[str, Any]] = {"type": "array", "items": {"type": "string"}}
LAYERS_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {layer: LIST_SCHEMA for layer in ("background", "middle_ground", "foreground")},
    "required": ["background", "middle_ground", "foreground"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a dialogue."""

    name: str  # heading of its answer in the transcript
    text: str
    max_new_tokens: int  # of the answer
    schema: Mapping[str, Any] | None = None  # JSON Schema of the answer; None for prose


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The questions about a window. The answer to the last one is parsed."""

    mode: Mode
    system: str
    questions: tuple[Question, ...]  # the first is sent with the audio
    repair: Question  # asked if the last answer cannot be parsed, once
    parse: Callable[[str], Heard]
    sha256: str  # of all texts of the mode; part of the input digest of tags


_Asked = tuple[
    str, int, Mapping[str, Any] | None
]  # a question, most tokens of its answer, the answer's schema

# Mode → (the questions in order, parser of the last answer).
_MODES: Final[dict[Mode, tuple[tuple[_Asked, ...], Callable[[str], Heard]]]] = {
    "list": ((("list", LIST_TOKENS, LIST_SCHEMA),), parse_list),
    "layers": (
        (("description", DESCRIPTION_TOKENS, None), ("layers", LAYERS_TOKENS, LAYERS_SCHEMA)),
        parse_layers,
    ),
}


def load_dialogue(mode: Mode) -> Dialogue:
    """The dialogue of a mode: ``list`` asks once; ``layers`` asks for a description, then for its layers."""
    asked, parse = _MODES[mode]
    names = ["system", *(name for name, _, _ in asked), f"{mode}_repair"]
    texts = {name: files(__name__).joinpath(f"{name}.txt").read_text("utf-8").strip() for name in names}
    digests = "".join(hashlib.sha256(text.encode()).hexdigest() for text in texts.values())
    return Dialogue(
        mode=mode,
        system=texts["system"],
        questions=tuple(Question(name, texts[name], tokens, schema) for name, tokens, schema in asked),
        repair=Question("repaired answer", texts[f"{mode}_repair"], *asked[-1][1:]),
        parse=parse,
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
    )
