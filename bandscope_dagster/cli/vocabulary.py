"""``bandscope vocabulary``: the instruments of the vocabulary, and the instrument for a label, with the reason."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bandscope_dagster.tagging.vocabulary import Match, load_vocabulary, normalize


def print_matches(console: Console, labels: Sequence[str]) -> None:
    """Print one line per label: its instrument, and why. Without labels, print all instruments by family."""
    if not labels:
        _print_families(console)
    for label in labels:
        console.print(escape(describe(label)), highlight=False, soft_wrap=True)


def describe(label: str) -> str:
    """The instrument for a label in the tables, and the reason, in one line.

    ``"warm rhodes piano" → electric piano (keyboards): "rhodes piano" is a synonym; dropped: warm``
    """
    match = load_vocabulary().match(label)
    if not match.mapped:
        return f'"{label}" → "{match.instrument}", not in the vocabulary: stored unchanged, without a family'
    verdict = f'"{label}" → {match.instrument} ({match.family})'
    reasons = [reason for reason in (_synonymy(match), _dropped(match)) if reason]
    return f"{verdict}: {'; '.join(reasons)}" if reasons else verdict


def _synonymy(match: Match) -> str:
    """The match between a part of the label and the instrument; empty if that part is the instrument's name."""
    synonym = match.synonym or ""
    verbatim = match.found.replace(" ", "") == normalize(synonym).replace(" ", "")
    if synonym == match.instrument:
        return "" if verbatim else f'"{match.found}" means "{synonym}"'
    return f'"{synonym}" is a synonym' if verbatim else f'"{match.found}" means "{synonym}", a synonym'


def _dropped(match: Match) -> str:
    return f"dropped: {', '.join(match.dropped)}" if match.dropped else ""


def _print_families(console: Console) -> None:
    families = load_vocabulary().families
    table = Table("family", "instruments", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.columns[0].no_wrap = True
    for family, instruments in families.items():
        table.add_row(family, ", ".join(instruments))
    console.print(table)
    count = sum(map(len, families.values()))
    console.print(
        f"{count} instruments in {len(families)} families. To look up labels: bandscope vocabulary LABEL…",
        highlight=False,
        soft_wrap=True,
    )
