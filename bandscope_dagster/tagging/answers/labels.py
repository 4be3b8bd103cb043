"""Tell labels from prose in the words of a language model: "electric guitar" is a label, a sentence is not."""

# ruff: noqa: RUF001 (full-width brackets, commas and quotes are meant)

import re
import unicodedata

MAX_LABEL = 80  # characters
MAX_WORDS = 10  # "a distorted electric guitar with heavy reverb and delay" has nine

_AROUND = " *_`•.,;:!。，、；："
_QUOTED = re.compile(r"[\"'“„‘«「](.*)[\"'“”’»」]")
_NOTHING = {
    "none", "nothing", "no instrument", "no instruments", "no instruments detected", "none detected", "n/a", "null",
    "nil", "empty", "silence", "keine", "keine instrumente", "nichts", "无", "無", "没有", "没有乐器", "无乐器",
}  # fmt: skip
_SENTENCE_WORDS = re.compile(
    r"\b(?:hears?|heard|is|are|was|were|there|this|cannot|can't|sorry|contains|features|ich|ist|sind)\b"
    r"|\bi(?: can| think| believe|['’]m)\b|我|听到|聽到",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？](?=.)")
_COMMA_ITEM = re.compile(r"(?:[^,，、;；()（）]++|[(（][^()（）]*+[)）]?|[)）])++")
_AND = re.compile(r" (?:and|und|&) ")


def plain_text(text: str) -> str:
    """The text as one line, without control characters, lone surrogates and zero-width characters."""
    if not text.isprintable():
        text = "".join(
            "" if unicodedata.category(char) == "Cf" else char if char.isprintable() else " " for char in text
        )
    return " ".join(text.split())


def clean_label(text: str) -> str | None:
    """The label without quotes and punctuation around it; None if it is too long, a sentence, or has no letters."""
    written = plain_text(text)
    label = _bare(written)
    if not any(char.isalnum() for char in label) or len(label) > MAX_LABEL or _is_sentence(written):
        return None
    return label


def _bare(text: str) -> str:
    quoted = _QUOTED.fullmatch(text.strip(_AROUND))
    return (quoted[1] if quoted else text).strip(_AROUND)


def _is_sentence(text: str) -> bool:
    words = len(text.split())
    return (
        words > MAX_WORDS
        or (words > 5 and text.endswith((".", "!", "?")))
        or (len(text) > 20 and _SENTENCE_END.search(text) is not None)
        or _SENTENCE_WORDS.search(text) is not None
    )


def says_nothing(text: str) -> bool:
    """True if the text means that the model hears no instrument: "none", "N/A"."""
    return _bare(plain_text(text)).casefold() in _NOTHING


def comma_items(text: str) -> list[str]:
    """The items of "piano, drums (kick, snare) and bass"; a comma in parentheses does not separate items."""
    items = [item.strip() for item in _COMMA_ITEM.findall(text)]
    items = [item.removeprefix("and ").removeprefix("und ") for item in items if item]
    return items[:-1] + [part.strip() for part in _AND.split(items[-1])] if items else []
