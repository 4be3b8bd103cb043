"""Finds the lists and objects in what a language model wrote: JSON, Python's spelling of it, and damaged ones.

A tolerant scanner of its own, because neither ``json`` nor ``ast`` reads what was cut off, and both fail on deep
nesting. Every character is looked at a bounded number of times: the regular expressions are possessive, and a bracket
that opens no structure is passed over without reading on.
"""

# ruff: noqa: RUF001 (full-width brackets, commas and quotes are meant)

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

MAX_DEPTH = 8  # brackets in brackets; what means something here has four at most


@dataclass(frozen=True, slots=True)
class Word:
    """What stands without quotes: a number, ``null``, or a label whose quotes were forgotten."""

    text: str
    whole: bool = True  # False: a quote is never closed, or the answer ends here and may have been cut off


@dataclass(slots=True)
class Structure:
    """A list (also a tuple) or, in braces, an object (also a set)."""

    is_object: bool
    entries: list[tuple[str | None, Value]]  # each with its key, which those of a list have not
    complete: bool = False  # its bracket was closed
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

# A quote in the middle of a string ('singer's voice') is known by what follows it.
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
# A list needs a quote, a bracket, or a place of its own, and a tuple both a quote and a place of its own: prose has
# brackets too ("a kick (808)", "[Intro]").
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
    """The outermost structures of ``text`` in their order; one that was cut off has all that came before the cut."""
    found: list[Structure] = []
    end = 0
    while start := _START.search(text, end):
        title = _title(text[max(end, start.end() - 200) : start.end() - 1])
        structure, end = _read(text, start.end() - 1)
        bare = all(isinstance(value, Word) for _, value in structure.entries)
        if not bare or _ENDED.match(text, end):  # else prose: "[Intro] a piano"
            structure.title = title
            found.append(structure)
    return found


@dataclass(slots=True)
class _Open:
    """A structure whose closing bracket is still to come."""

    structure: Structure
    closing: str
    key: str | None = None  # of the value that comes next
    last: Value | None = None  # what a colon would make a key

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
    """The structure whose bracket opens at ``at``, and where it ends."""
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
            return root, token.end()  # the model closed the block, or went on in prose, without the bracket
        at = token.end()
        if not stack:
            break
    return root, at


def _close(stack: list[_Open], bracket: str) -> None:
    """Close the innermost structure of this kind, and what in it was left open; a stray bracket changes nothing."""
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
    """The string with JSON's and Python's escapes resolved; an emoji may be written as two surrogates."""
    if "\\" not in written:
        return written
    text = _ESCAPE.sub(_escaped_character, written)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _escaped_character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code is None:
        return escape[4].translate(_CONTROL_ESCAPES)
    return chr(int(code, 16)) if int(code, 16) <= 0x10FFFF else "\ufffd"
