"""Labels of songs: a table written by hand, or the aggregated labels of OpenMIC-2018."""

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from benchmarks.tagging_quality import Labels

OPENMIC_COLUMNS: Final = ("sample_key", "instrument", "relevance")
POSITIVE_FROM: Final = 0.5  # relevance of a pair whose instrument is in the clip, as in the authors' baseline

_VOICES: Final = (
    "backing vocals",
    "choir",
    "chant",
    "humming",
    "rap",
    "synthetic vocals",
    "vocal samples",
    "yodeling",
)

KINDS: Final[Mapping[str, frozenset[str]]] = {
    "bass": frozenset({"bass guitar", "double bass", "synth bass"}),
    "brass": frozenset({"trumpet", "trombone", "french horn", "tuba"}),
    "cymbal": frozenset({"hi hat"}),
    "guitar": frozenset({"acoustic guitar", "classical guitar", "electric guitar", "steel guitar"}),
    "mallets": frozenset({"glockenspiel", "marimba", "vibraphone", "xylophone"}),
    "organ": frozenset({"electric organ"}),
    "strings": frozenset({"violin", "viola", "cello"}),
    "synthesizer": frozenset({"synth bass", "synth brass", "synth lead", "synth pad", "synth strings"}),
    "vocals": frozenset(_VOICES),
}
"""General name in the vocabulary → the instruments that count as one of it. The general name counts as none of them."""


class BadLabels(BandscopeError):
    """The labels do not fit the folder; the message has the row or file, and the expected content."""


def read_labels(path: Path) -> Labels:
    """The labels in a table of either form; the header decides.

    Raises:
        BadLabels: the header is of neither form, a row is incomplete, or there are no rows.
    """
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        header = set(rows.fieldnames or ())
        if set(OPENMIC_COLUMNS) <= header:
            labels = _openmic(rows, path)
        elif {"file", "instrument"} <= header:
            labels = _by_hand(rows, path)
        else:
            raise BadLabels(
                f"{path} has the header {rows.fieldnames}; it must have the columns file,instrument, or those of"
                f" OpenMIC-2018: {','.join(OPENMIC_COLUMNS)}"
            )
    if not labels:
        raise BadLabels(f"{path} has no rows below its header; each names a file and one of its instruments")
    return labels


def _by_hand(rows: "csv.DictReader[str]", path: Path) -> Labels:
    """One row per file and instrument that is in it. Every file is judged by all instruments of the table."""
    present: defaultdict[str, set[str]] = defaultdict(set)
    for line, (file, words) in _cells(rows, ("file", "instrument"), path):
        present[file].add(_instrument(words, f"{path}, line {line}"))
    names = set[str]().union(*present.values())
    return {file: {name: name in found for name in names} for file, found in present.items()}


def _openmic(rows: "csv.DictReader[str]", path: Path) -> Labels:
    """One row per clip and instrument that people were asked about. Other pairs of clip and instrument are unknown."""
    judged: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    for line, (key, words, relevance) in _cells(rows, OPENMIC_COLUMNS, path):
        where = f"{path}, line {line}"
        try:
            value = float(relevance)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise BadLabels(f"{where}: relevance must be a number from 0 to 1, not {relevance!r}")
        judged[f"audio/{key[:3]}/{key}.ogg"][_instrument(words, where)] = value >= POSITIVE_FROM
    return judged


def _cells(
    rows: "csv.DictReader[str]", columns: Sequence[str], path: Path
) -> Iterator[tuple[int, list[str]]]:
    """Line number and the values of ``columns`` of each row, which must have all of them."""
    for row in rows:
        cells = [(row[column] or "").strip() for column in columns]
        if not all(cells):
            raise BadLabels(f"{path}, line {rows.line_num}: a row needs {' and '.join(columns)}")
        yield rows.line_num, cells


def _instrument(words: str, where: str) -> str:
    match = load_vocabulary().match(words)
    if match.family is None:
        print(f"{where}: {words!r} is not in the vocabulary", file=sys.stderr)
    return match.instrument


def check_files(labels: Labels, folder: Path, labels_path: Path) -> None:
    """Print the files of ``folder`` without labels, which are left out.

    Raises:
        BadLabels: a file with labels does not exist.
    """
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if missing := sorted(set(labels) - present):
        raise BadLabels(
            f"{labels_path} names {len(missing)} files that are not in {folder}: {_some(missing)}. "
            f"Correct the names, or remove their rows."
        )
    if labels_path.is_relative_to(folder):
        present.discard(labels_path.relative_to(folder).as_posix())
    if unlabelled := sorted(present - set(labels)):
        print(
            f"{len(unlabelled)} files have no labels and are left out: {_some(unlabelled)}", file=sys.stderr
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
