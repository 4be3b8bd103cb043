"""The vocabulary of all taggers: maps the label of a model to a canonical instrument and a family."""

import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Final

LONGEST_NAME: Final = 20  # words; a longer label is prose, not the name of an instrument

# Characters that change only the appearance of another: accents, and selectors of text or emoji.
_DECORATION = re.compile("[\u0300-\u036f\ufe00-\ufe0f]")
_IN_WORDS = re.compile(r"[^\W_]")
_NOT_IN_WORDS = re.compile(r"[\W_]")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_ASIDE = re.compile("[(\uff08]([^()\uff08\uff09]*)[)\uff09]")  # text in parentheses, also full-width ones
_NEGATIONS = frozenset({"no", "not", "none", "without", "absent"})


@dataclass(frozen=True, slots=True)
class Match:
    """The instrument of a label, and the reason. An unknown label is its own instrument, without a family."""

    instrument: str
    family: str | None = None  # None: unmapped
    synonym: str | None = None  # the phrase in the vocabulary that matched; None: unmapped
    found: str = ""  # the words of the label that matched it, normalised
    dropped: tuple[str, ...] = ()  # the other words, which do not change the instrument, normalised

    @property
    def mapped(self) -> bool:
        """True if the label is in the vocabulary."""
        return self.family is not None


def normalize(label: str) -> str:
    """The label in lower case, without accents, ``&`` as "and", words in the singular, joined by single spaces.

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
    """The singular of an English word; "bass", "brass" and "chorus" are no plurals."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "ruses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "rus", "ous")):
        return word[:-1]
    return word


def _readings(label: str) -> Iterator[tuple[list[str], list[str]]]:
    """The ways to read a label, best first: the words to match, and words in parentheses that are ignored.

    "guitar (acoustic)" is read as "acoustic guitar", then as "guitar acoustic", then as "guitar", without the
    parenthesis. A label with a negation, as "drums (none)", is never read without the parenthesis.
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
    """Maps labels, in the words of any model, to canonical instruments."""

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
            words: word → another word of the same meaning, replaced everywhere.
            translations: canonical instrument → its names in other languages.
            sha256: of the file; part of the input digest of tags.

        Raises:
            ValueError: two instruments share a synonym, or the instrument of a translation is unknown.
        """
        self.sha256 = sha256
        self.families = {family: tuple(instruments) for family, instruments in families.items()}
        self._words = {normalize(word): normalize(meaning) for word, meaning in (words or {}).items()}
        self._qualifiers = frozenset(self._read(map(normalize, qualifiers)))
        self._known: dict[str, Match] = {}  # key: the words after ``_read``, joined without spaces
        translations = translations or {}
        for family, instruments in families.items():
            for instrument, synonyms in instruments.items():
                for synonym in (instrument, *synonyms, *translations.get(instrument, ())):
                    self._add(Match(instrument, family, synonym))
        foreign = translations.keys() - self.instruments()
        if foreign:
            raise ValueError(
                f"Vocabulary: translations of {', '.join(map(repr, sorted(foreign)))}, which is in no family;"
                " add it to a family, or correct its name."
            )

    def _add(self, match: Match) -> None:
        known = self._known.setdefault("".join(self._read(normalize(match.synonym or "").split())), match)
        if known.instrument != match.instrument:
            raise ValueError(
                f"Vocabulary: {match.synonym!r} is a synonym of both {known.instrument!r} and {match.instrument!r};"
                " remove it from one of them."
            )

    def _read(self, words: Iterable[str]) -> list[str]:
        """Normalised words, each replaced as the table ``words`` says."""
        return [self._words.get(word, word) for word in words]

    def instruments(self) -> set[str]:
        """Every canonical instrument."""
        return {instrument for instruments in self.families.values() for instrument in instruments}

    def match(self, label: str) -> Match:
        """The instrument that ``label`` names. Drops as few words as possible to find a phrase of the vocabulary.

        Only qualifiers at the start and the end, and text in parentheses, can be dropped. The rest must be a whole
        phrase of the vocabulary. Spaces in it do not matter ("drumkit", "hi hat"); a part of a word never matches. A
        phrase of several instruments ("guitar and piano") is not split: it is unmapped, unless the vocabulary has the
        whole phrase ("claps and snaps").
        """
        found = [
            match for words, aside in _readings(label) if (match := self._find(words, aside)) is not None
        ]
        if not found:
            return Match(normalize(label) or label.strip() or label)
        return min(found, key=lambda match: len(match.dropped))  # of equals, the first

    def _find(self, words: list[str], aside: list[str]) -> Match | None:
        """The longest known phrase after dropping qualifiers from both ends of ``words``."""
        count = len(words)
        if count > LONGEST_NAME:
            return None
        read = self._read(words)
        leading = next((at for at in range(count) if read[at] not in self._qualifiers), count)
        trailing = next((at for at in range(count) if read[-1 - at] not in self._qualifiers), count)
        for length in range(count, 0, -1):
            # Of equals, the last: an English phrase has its main noun at the end.
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
    """The vocabulary of Bandscope, ``vocabulary.toml``.

    The digest of the whole file is part of the input digest of tags: an edit of a comment makes stored tags outdated.
    """
    content = files("bandscope_dagster.tagging").joinpath("vocabulary.toml").read_bytes()
    tables = tomllib.loads(content.decode())
    return Vocabulary(
        tables["families"],
        tables["qualifiers"],
        tables["words"],
        tables["translations"],
        hashlib.sha256(content).hexdigest(),
    )
