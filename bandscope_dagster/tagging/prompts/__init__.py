"""What a language model is asked about a window of audio: the texts beside this module, by mode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from bandscope_dagster.tagging.answers.parse import parse_layers, parse_list
from bandscope_dagster.tagging.options import Mode
from bandscope_dagster.tagging.protocol import Heard

# A list of thirty instruments takes about 150 tokens, and the object of the layers 50 more than its lists. An answer
# that needs more is looping.
LIST_TOKENS: Final = 256
DESCRIPTION_TOKENS: Final = 256
LAYERS_TOKENS: Final = 512


@dataclass(frozen=True, slots=True)
class Question:
    """One turn of the person who asks."""

    name: str  # what its answer is called in the transcript
    text: str
    max_new_tokens: int  # of the answer


@dataclass(frozen=True, slots=True)
class Dialogue:
    """How a window is asked about. The answer to the last question is the one that is parsed."""

    mode: Mode
    system: str
    questions: tuple[Question, ...]  # the first comes with the audio
    repair: Question  # asked once more of a window whose last answer cannot be parsed
    parse: Callable[[str], Heard]
    sha256: str  # over all texts of the mode


# The files of each mode: the questions in the order in which they are asked, with their answers' tokens.
_MODES: Final[dict[Mode, tuple[tuple[tuple[str, int], ...], Callable[[str], Heard]]]] = {
    "list": ((("list", LIST_TOKENS),), parse_list),
    "layers": ((("description", DESCRIPTION_TOKENS), ("layers", LAYERS_TOKENS)), parse_layers),
}


def load_dialogue(mode: Mode) -> Dialogue:
    """The dialogue of a mode: ``list`` asks once, ``layers`` for a description and then for its layers."""
    asked, parse = _MODES[mode]
    names = ["system", *(name for name, _ in asked), f"{mode}_repair"]
    texts = {name: files(__name__).joinpath(f"{name}.txt").read_text("utf-8").strip() for name in names}
    digests = "".join(hashlib.sha256(text.encode()).hexdigest() for text in texts.values())
    return Dialogue(
        mode=mode,
        system=texts["system"],
        questions=tuple(Question(name, texts[name], tokens) for name, tokens in asked),
        repair=Question("repaired answer", texts[f"{mode}_repair"], asked[-1][1]),
        parse=parse,
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
    )
