"""Find lists and objects in the answer of a language model: JSON, Python literals, and damaged ones of both.

This scanner is lenient: ``json`` and ``ast`` reject truncated text, and both fail on deep nesting. Its time is linear:
the regular expressions are possessive, and a bracket that opens no structure is skipped without reading ahead.
"""

# ruff: noqa: RUF001 (full-width brackets, commas and quotes are meant)

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

MAX_DEPTH = 8  # nested brackets; a useful answer has four at most


@dataclass(frozen=True, slots=True)
class Word:
    """A value without quotes: a number, ``null``, or a label whose quotes are missing."""

    text: str
    whole: bool = True  # False: a quote is never closed, or the answer ends here and may be truncated


@dataclass(slots=True)
class Structure:
    """A list (also a tuple) or, in braces, an object (also a set)."""

    is_object: bool
    entries: list[tuple[str | None, Value]]  # (key, value); the key is None in a list
    complete: bool = False  # True if its bracket is closed
    title: str = ""  # the line before it: "Final answer:", "Foreground:"


Value: TypeAlias = "str | Word | Structure"

_OPEN, _CLOSE = r"\[{(【［｛（", r"\]})】］｝）"
_COMMA, _COLON = ",，、;；", ":："
_QUOTES = {  # opening: closing
    '"': '"',
    "'": "'",
    "“”„‟«»＂「『": '“”‟«»＂」』"',
    "‘’‚‛＇": "‘’‛＇'",
}
_QUOTE = "".join(_QUOTES)
_INVISIBLE = "\u200b\u2060\ufeff"  # zero-width space, word joiner, byte order mark
_ASCII = str.maketrans("【［｛（】］｝）", "[[{(]]})")
_CLOSING = {"[": "]", "{": "}", "(": ")"}

# The text after a quote shows if it ends the string or is part of it ('singer's voice').
_AFTER_STRING = rf"[ \t\r{_INVISIBLE}]*+(?:[\n{_COMMA}{_COLON}{_CLOSE}{_QUOTE}#`]|//|\Z)"
_STRING = "|".join(
    rf"[{opening}](?:[^{closing}\\\n]++|\\.|[{closing}](?!{_AFTER_STRING}))*+[{closing}]"
    for opening, closing in _QUOTES.items()
)
_TOKEN = re.compile(
    rf"(?P<open>[{_OPEN}])|(?P<close>[{_CLOSE}])|(?P<comma>[{_COMMA}])|(?P<colon>[{_COLON}])"
    rf"|(?P<string>{_STRING})|(?P<unclosed>[{_QUOTE}][^\n]*+)"
    rf"|(?P<fence>```)|(?P<space>[\s{_INVISIBLE}]++|`|(?://|\#)[^\n]*+)"
    rf"|(?P<word>(?:[^\n`{_OPEN}{_CLOSE}{_COMMA}{_COLON}]++|\([^()\n]*+\))++)"
)
# Prose has brackets too ("a kick (808)", "[Intro]"). So a list must contain a quote or a bracket first, or be at the
# start of a line or after ":" or "="; a tuple must contain a quote first and be at such a place.
_START = re.compile(
    rf"[{{｛]|[\[【［](?=[\s{_INVISIBLE}]*+(?:[{_OPEN}{_CLOSE}{_QUOTE}]|\Z))"
    rf"|(?:^|[{_COLON}=])[ \t]*+(?:[\[【［]|[(（](?=\s*+(?:[{_QUOTE}]|\Z)))",
    re.MULTILINE,
)
_OPENING_RUN = re.compile(rf"[{_OPEN}\s]++")
_GOES_ON = re.compile(rf"[{_OPEN}{_CLOSE}{_COMMA}{_QUOTE}#/`]|\Z")
_ENDED = re.compile(r"[ \t\r,`]*+(?:[.;。\n]|\Z)")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))")
_CONTROL_ESCAPES = str.maketrans("bfnrt", "\b\f\n\r\t")


def read_structures(text: str) -> list[Structure]:
    """The outermost structures in ``text``, in order; a truncated one has everything before the cut."""
    found: list[Structure] = []
    end = 0
    while start := _START.search(text, end):
        title = _title(text[max(end, start.end() - 200) : start.end() - 1])
        structure, end = _read(text, start.end() - 1)
        bare = all(isinstance(value, Word) for _, value in structure.entries)
        if not bare or _ENDED.match(text, end):  # otherwise it is prose: "[Intro] a piano"
            structure.title = title
            found.append(structure)
    return found


@dataclass(slots=True)
class _Open:
    """A structure whose closing bracket has not been read yet."""

    structure: Structure
    closing: str
    key: str | None = None  # of the next value
    last: Value | None = None  # becomes a key if a colon follows

    def put(self, value: Value) -> None:
        self.structure.entries.append((self.key, value))
        self.key, self.last = None, value

    def comma(self) -> None:
        self.key = self.last = None

    def colon(self) -> None:
        if isinstance(self.last, str | Word):
            self.structure.entries.pop()
            self.key = self.last if isinstance(self.last, str) else self.last.text
            self.last = None


def _read(text: str, at: int) -> tuple[Structure, int]:
    """The structure whose bracket opens at ``at``, and the position of its end."""
    root = Structure(is_object=False, entries=[])
    stack: list[_Open] = []
    while token := _TOKEN.match(text, at):
        kind, written = token.lastgroup, token.group()
        if kind == "open":
            if len(stack) == MAX_DEPTH and (run := _OPENING_RUN.match(text, at)):
                return root, run.end()
            bracket = written.translate(_ASCII)
            structure = Structure(is_object=bracket == "{", entries=[])
            if stack:
                stack[-1].put(structure)
            else:
                root = structure
            stack.append(_Open(structure, _CLOSING[bracket]))
        elif kind == "close":
            _close(stack, written.translate(_ASCII))
        elif kind == "comma":
            stack[-1].comma()
        elif kind == "colon":
            stack[-1].colon()
        elif kind == "string":
            stack[-1].put(_unescaped(written[1:-1]))
        elif kind == "unclosed":
            stack[-1].put(Word(written, whole=False))
        elif kind == "word":
            stack[-1].put(Word(written.strip(), whole=token.end() < len(text)))
        elif kind == "fence" or (written.count("\n") > 1 and not _GOES_ON.match(text, token.end())):
            return root, token.end()  # the code block ends, or prose follows, without the bracket
        at = token.end()
        if not stack:
            break
    return root, at


def _close(stack: list[_Open], bracket: str) -> None:
    """Close the innermost structure of this kind, and open ones inside it; ignore a stray bracket."""
    for depth in reversed(range(len(stack))):
        if stack[depth].closing == bracket:
            stack[depth].structure.complete = True
            del stack[depth:]
            return


def _title(before: str) -> str:
    lines = [line.strip() for line in before.splitlines()]
    return next(
        (line for line in reversed(lines) if line.strip("`*_#>- ") and not line.startswith("```")), ""
    )


def _unescaped(written: str) -> str:
    """The string with the escapes of JSON and Python resolved; an emoji may be two surrogates."""
    if "\\" not in written:
        return written
    text = _ESCAPE.sub(_escaped_character, written)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _escaped_character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code is None:
        return escape[4].translate(_CONTROL_ESCAPES)
    return chr(int(code, 16)) if int(code, 16) <= 0x10FFFF else "\ufffd"
