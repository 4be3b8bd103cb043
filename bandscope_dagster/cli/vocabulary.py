"""``bandscope vocabulary``: the instruments that tags are given in, and what a label becomes, and why."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bandscope_dagster.tagging.vocabulary import Match, load_vocabulary, normalize


def print_matches(console: Console, labels: Sequence[str]) -> None:
    """One line per label: the instrument that it becomes, and why. Without labels all instruments, by family."""
    if not labels:
        _print_families(console)
    for label in labels:
        console.print(escape(describe(label)), highlight=False, soft_wrap=True)


def describe(label: str) -> str:
    """What a label becomes in the tables, and why, in one line.

    ``"warm rhodes piano" → electric piano (keyboards): "rhodes piano" is a synonym; dropped: warm``
    """
    match = load_vocabulary().match(label)
    if not match.mapped:
        return f'"{label}" → "{match.instrument}", unmapped: kept as it is, without a family'
    verdict = f'"{label}" → {match.instrument} ({match.family})'
    reasons = [reason for reason in (_synonymy(match), _dropped(match)) if reason]
    return f"{verdict}: {'; '.join(reasons)}" if reasons else verdict


def _synonymy(match: Match) -> str:
    """How what was found in the label stands for the instrument; nothing where it is just its name."""
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
        f"{count} instruments in {len(families)} families. What a label becomes: bandscope vocabulary LABEL…",
        highlight=False,
        soft_wrap=True,
    )
