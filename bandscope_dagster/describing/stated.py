"""Statements that only the owner of a store can make about it, and text from songs that is safe in a page."""

from dataclasses import dataclass
from typing import Final

PLAIN: Final = frozenset(" .,-+/():")
"""Characters other than letters and digits that neither Markdown nor HTML gives a meaning within a line."""


@dataclass(frozen=True, slots=True)
class Stated:
    """Statements of the owner. None: not stated, and never guessed; the licence of songs is not in their files."""

    name: str  # of the data set
    licence: str | None = None  # of the songs: an SPDX identifier, or a URL
    creator: str | None = None  # person or organisation
    url: str | None = None  # where the data set is published
    citation: str | None = None

    @property
    def missing(self) -> list[str]:
        """The options that a published data set needs, and that are not given."""
        given = {"--licence": self.licence, "--creator": self.creator, "--url": self.url}
        return [option for option, value in given.items() if value is None]


def plain(text: str) -> str:
    """``text`` as Markdown that shows it: every character with a meaning there, and every newline, as a number."""
    return "".join(each if each.isalnum() or each in PLAIN else f"&#{ord(each)};" for each in text)
