"""One vocabulary for all taggers: what a model calls an instrument becomes a canonical name and a family."""

import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Match:
    """What a label stands for. A label that is not known stands for itself, with no family."""

    instrument: str
    family: str | None  # None: unmapped


def normalize(label: str) -> str:
    """Lower case, no accents, words joined by single spaces, each in the singular."""
    decomposed = unicodedata.normalize("NFKD", label).casefold()
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(_singular(word) for word in re.findall(r"[^\W_]+", plain))


def _singular(word: str) -> str:
    """English plurals of instruments' names; "bass", "brass" and "chorus" are none."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word


class Vocabulary:
    """Matches labels, in any model's words, to canonical instruments."""

    def __init__(
        self,
        families: Mapping[str, Mapping[str, Iterable[str]]],
        qualifiers: Iterable[str] = (),
        sha256: str = "",
    ) -> None:
        """``families``: family → canonical instrument → synonyms.

        Raises:
            ValueError: two instruments share a synonym.
        """
        self.sha256 = sha256  # of the file it was read from: a change of it changes tags
        self._matches: dict[str, Match] = {}
        for family, instruments in families.items():
            for instrument, synonyms in instruments.items():
                self._add(Match(instrument, family), [instrument, *synonyms])
        self._qualifiers = frozenset(normalize(qualifier) for qualifier in qualifiers)

    def _add(self, match: Match, synonyms: Iterable[str]) -> None:
        for synonym in synonyms:
            known = self._matches.setdefault(normalize(synonym), match)
            if known != match:
                raise ValueError(
                    f"Vocabulary: {synonym!r} stands for both {known.instrument!r} and {match.instrument!r};"
                    " keep it with one of them."
                )

    def instruments(self) -> set[str]:
        """Every canonical instrument."""
        return {match.instrument for match in self._matches.values()}

    def match(self, label: str) -> Match:
        """The instrument that ``label`` names, with as few qualifiers dropped as give a known phrase."""
        words = normalize(label).split()
        first = next((at for at, word in enumerate(words) if word not in self._qualifiers), len(words))
        trailing = next((at for at, word in enumerate(reversed(words)) if word not in self._qualifiers), 0)
        spans = [
            (start, end) for start in range(first + 1) for end in range(len(words) - trailing, len(words) + 1)
        ]
        for start, end in sorted(spans, key=lambda span: (span[0] - span[1], span)):
            known = self._matches.get(" ".join(words[start:end]))
            if known is not None:
                return known
        return Match(" ".join(words) or label.strip(), None)


@cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary that comes with Bandscope, ``vocabulary.toml``."""
    content = files("bandscope_dagster.tagging").joinpath("vocabulary.toml").read_bytes()
    entries = tomllib.loads(content.decode())
    return Vocabulary(entries["families"], entries["qualifiers"], hashlib.sha256(content).hexdigest())
