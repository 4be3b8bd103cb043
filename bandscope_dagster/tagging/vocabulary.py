"""One vocabulary for all taggers: what a model calls an instrument becomes a canonical name and a family."""

import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Final

LONGEST_NAME: Final = 20  # words; more than that is prose, and no name of an instrument

# What changes how a character looks, and not which it is: accents, and the choice between text and emoji.
_DECORATION = re.compile("[\u0300-\u036f\ufe00-\ufe0f]")
_IN_WORDS = re.compile(r"[^\W_]")
_NOT_IN_WORDS = re.compile(r"[\W_]")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_ASIDE = re.compile("[(\uff08]([^()\uff08\uff09]*)[)\uff09]")  # in parentheses, those of Chinese texts too
_NEGATIONS = frozenset({"no", "not", "none", "without", "absent"})


@dataclass(frozen=True, slots=True)
class Match:
    """What a label stands for, and why. A label that is not known stands for itself, without a family."""

    instrument: str
    family: str | None = None  # None: unmapped
    synonym: str | None = None  # the phrase of the vocabulary that was found; None: unmapped
    found: str = ""  # the words of the label that are that phrase, normalised
    dropped: tuple[str, ...] = ()  # the words around them, which do not change the instrument, normalised

    @property
    def mapped(self) -> bool:
        """Whether the label is in the vocabulary."""
        return self.family is not None


def normalize(label: str) -> str:
    """Lower case without accents, ``&`` as "and", words joined by single spaces, each in the singular.

    A word is a run of letters, digits and their marks in any script: "Hi-Hats" is "hi hat", "singer's" is "singer",
    and "电吉他" stays one word.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", label).casefold())
    plain = unicodedata.normalize("NFKC", _DECORATION.sub("", folded))
    text = _POSSESSIVE.sub("", plain).replace("&", " and ")
    spaced = _NOT_IN_WORDS.sub(
        lambda found: found[0] if unicodedata.category(found[0])[0] == "M" else " ", text
    )
    return " ".join(_singular(word) for word in spaced.split() if _IN_WORDS.search(word))


def _singular(word: str) -> str:
    """English plurals of instruments' names; "bass", "brass" and "chorus" are none."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "ruses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "rus", "ous")):
        return word[:-1]
    return word


def _readings(label: str) -> Iterator[tuple[list[str], list[str]]]:
    """The ways to read a label, best first: its words, and those that are left aside as an explanation.

    "guitar (acoustic)" is read as "acoustic guitar", then as it is written, then as "guitar", with the parenthesis
    aside. What denies, as in "drums (none)", is never left aside.
    """
    words = normalize(label).split()
    asides = _ASIDE.findall(label)
    if not asides:
        yield words, []
        return
    inside = normalize(" ".join(asides)).split()
    outside = normalize(_ASIDE.sub(" ", label)).split()
    yield inside + outside, []
    yield words, []
    if _NEGATIONS.isdisjoint(words):
        yield outside, inside


class Vocabulary:
    """Matches labels, in any model's words, to canonical instruments."""

    def __init__(
        self,
        families: Mapping[str, Mapping[str, Iterable[str]]],
        qualifiers: Iterable[str] = (),
        words: Mapping[str, str] | None = None,
        translations: Mapping[str, Iterable[str]] | None = None,
        sha256: str = "",
    ) -> None:
        """Build the vocabulary from the tables of ``vocabulary.toml``.

        Args:
            families: family → canonical instrument → synonyms.
            qualifiers: words that do not change which instrument a phrase names.
            words: word → another word that it means the same as, wherever it stands.
            translations: canonical instrument → its names in other languages.
            sha256: of the file it was read from; a change of it changes tags.

        Raises:
            ValueError: two instruments share a synonym, or a translation is that of no instrument.
        """
        self.sha256 = sha256
        self.families = {family: tuple(instruments) for family, instruments in families.items()}
        self._words = {normalize(word): normalize(meaning) for word, meaning in (words or {}).items()}
        self._qualifiers = frozenset(self._read(map(normalize, qualifiers)))
        self._known: dict[str, Match] = {}  # by the words as they are read, without spaces
        translations = translations or {}
        for family, instruments in families.items():
            for instrument, synonyms in instruments.items():
                for synonym in (instrument, *synonyms, *translations.get(instrument, ())):
                    self._add(Match(instrument, family, synonym))
        foreign = translations.keys() - self.instruments()
        if foreign:
            raise ValueError(
                f"Vocabulary: there are translations of {', '.join(map(repr, sorted(foreign)))}, which is in no family;"
                " add it to one, or translate an instrument that is there."
            )

    def _add(self, match: Match) -> None:
        known = self._known.setdefault("".join(self._read(normalize(match.synonym or "").split())), match)
        if known.instrument != match.instrument:
            raise ValueError(
                f"Vocabulary: {match.synonym!r} stands for both {known.instrument!r} and {match.instrument!r};"
                " keep it with one of them."
            )

    def _read(self, words: Iterable[str]) -> list[str]:
        """Normalised words, each replaced by the one that it means the same as."""
        return [self._words.get(word, word) for word in words]

    def instruments(self) -> set[str]:
        """Every canonical instrument."""
        return {instrument for instruments in self.families.values() for instrument in instruments}

    def match(self, label: str) -> Match:
        """The instrument that ``label`` names, with as few words dropped as give a known phrase.

        Only qualifiers are dropped, only from the start and the end of the phrase, and what stands in parentheses.
        What remains must be a whole phrase of the vocabulary; spaces within it do not matter ("drumkit", "hi hat"),
        but a part of a word is never found. So a phrase of several instruments ("guitar and piano") is not taken
        apart: unless the vocabulary has it as a phrase of its own ("claps and snaps"), it is unmapped as a whole.
        """
        found = [
            match for words, aside in _readings(label) if (match := self._find(words, aside)) is not None
        ]
        if not found:
            return Match(normalize(label) or label.strip() or label)
        return min(found, key=lambda match: len(match.dropped))  # the first of equals

    def _find(self, words: list[str], aside: list[str]) -> Match | None:
        """The longest known phrase that is left when qualifiers are dropped from both ends of ``words``."""
        count = len(words)
        if count > LONGEST_NAME:
            return None
        read = self._read(words)
        leading = next((at for at in range(count) if read[at] not in self._qualifiers), count)
        trailing = next((at for at in range(count) if read[-1 - at] not in self._qualifiers), count)
        for length in range(count, 0, -1):
            # Among equals the last one: what an English phrase is about stands at its end.
            for start in range(min(leading, count - length), -1, -1):
                end = start + length
                if end < count - trailing:
                    break
                known = self._known.get("".join(read[start:end]))
                if known is not None:
                    dropped = (*words[:start], *words[end:], *aside)
                    return replace(known, found=" ".join(words[start:end]), dropped=dropped)
        return None


@cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary that comes with Bandscope, ``vocabulary.toml``."""
    content = files("bandscope_dagster.tagging").joinpath("vocabulary.toml").read_bytes()
    tables = tomllib.loads(content.decode())
    return Vocabulary(
        tables["families"],
        tables["qualifiers"],
        tables["words"],
        tables["translations"],
        hashlib.sha256(content).hexdigest(),
    )
