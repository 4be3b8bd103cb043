"""Decide from the words of an SQL text, before it runs, if it only reads."""

import re
from collections.abc import Iterator
from typing import Final

READING: Final = ("SELECT", "WITH", "FROM", "VALUES", "SHOW", "EXPLAIN")
"""The words that a query may begin with."""

WRITING: Final = frozenset(
    {"INSERT", "UPDATE", "DELETE", "MERGE", "UPSERT", "TRUNCATE", "CREATE", "ALTER", "DROP", "COPY"}
)
"""The words that no statement may begin with, including a statement inside another."""

FILE_FUNCTION: Final = re.compile(
    r"\b(?:read|scan)_(?:csv|parquet|ipc|json|ndjson|delta|iceberg)", re.IGNORECASE
)
"""Table functions of polars that read any file or URL. Only the tables of the store may be read."""

# A string, a quoted name or a comment is one token: its content is not executed.
TOKEN: Final = re.compile(
    r"""
      (?P<ignored> --[^\n]* | /\*.*?\*/ )
    | (?P<quoted>  '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<word>    \w+ )
    | (?P<sign>    \S )
    """,
    re.VERBOSE | re.DOTALL,
)


def refused_word(sql: str) -> str | None:
    """The word in ``sql`` that makes it do more than read tables, such as ``DELETE``; None if there is none.

    A statement begins the text, or follows an opening bracket, the last common table expression or EXPLAIN. For an
    empty text and for several statements the answer is a description instead of a word.
    """
    # Anywhere, also in comments and strings: polars reads nested comments and unusual strings in its own way.
    if function := FILE_FUNCTION.search(sql):
        return function[0].lower()
    tokens = list(_tokens(sql))
    while tokens and tokens[-1] == ";":
        tokens.pop()
    if not tokens:
        return "an empty text"
    if ";" in tokens:
        return "more than one statement"
    first = next((token for token in tokens if token != "("), "(")
    if first not in READING:
        return first
    for before, word, after in zip(tokens, tokens[1:], [*tokens[2:], ""], strict=False):
        starts = before in ("(", ")", "EXPLAIN", "ANALYZE")
        if starts and word in WRITING and after != "(":  # before a bracket it is the name of a function
            return word
    return None


def _tokens(sql: str) -> Iterator[str]:
    """Words in capitals, signs unchanged, and anything in quotes as ``''``."""
    for token in TOKEN.finditer(sql):
        if token["word"]:
            yield token["word"].upper()
        elif token["quoted"]:
            yield "''"
        elif token["sign"]:
            yield token["sign"]
