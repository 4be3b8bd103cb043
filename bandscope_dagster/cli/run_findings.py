"""Messages of ``bandscope run``: the songs that it leaves out, what the store lacks, and how its songs ended."""

from collections import Counter
from collections.abc import Collection
from typing import Final

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.unfinished import Unfinished
from bandscope_dagster.songs.query import query
from bandscope_dagster.songs.status import Status
from bandscope_dagster.storage.objects.protocol import ObjectStore

SHOWN_SONGS: Final = 3
SHOWN_DAMAGED: Final = 10
BAD: Final = (Status.PARTIAL, Status.REJECTED, Status.FAILED)


def print_left_out(
    console: Console, todo: Unfinished, chosen: set[str], in_runs: set[str], *, recompute: bool
) -> None:
    """Print which of the ``chosen`` songs are not computed, and why. ``in_runs`` are songs of the daemon's runs."""
    reasons = {
        "Skipping {} in queued or running runs of the Dagster daemon"
        " (if such a run is dead, terminate it in the UI).": in_runs,
        "Leaving out {}, removed before anything was read: `bandscope forget --gone` forgets them.": todo.never_read,
        "Leaving out {} with missing or damaged files that cannot be computed again, because the upload is gone:"
        " put it back, with its time.": todo.cannot_complete - todo.never_read,
    }
    if recompute:
        reasons[
            "Leaving out {} whose upload is gone: the results are kept."
            " Only `--select stem_instrument_tags` needs no upload."
        ] = todo.without_upload - todo.lacking.songs
    else:
        reasons[
            "Leaving out {} that the analysis rejected before: `bandscope status` has the reasons,"
            " `--recompute` tries again."
        ] = todo.given_up
    for text, songs in reasons.items():
        if found := sorted(chosen & songs):
            names = ", ".join(found[:SHOWN_SONGS]) + (", …" if len(found) > SHOWN_SONGS else "")
            words = text.format(f"{counted(len(found), 'song')} ({names})")
            console.print(escape(words), highlight=False, soft_wrap=True)


def print_lacking(console: Console, todo: Unfinished, songs: set[str]) -> None:
    """Print what ``songs`` lack in the store although Dagster's records say that they are done."""
    if count := len(songs & (todo.songs & todo.lacking.songs) - todo.recorded):
        console.print(
            f"Songs whose files are missing or damaged in the store: {count}. These files are computed again.",
            highlight=False,
            soft_wrap=True,
        )
    damaged = [
        f"{table} of {song}: {fault}"
        for table, faults in todo.lacking.damaged.items()
        for song, fault in faults.items()
        if song in songs
    ]
    for line in damaged[:SHOWN_DAMAGED]:
        console.print(f"[yellow]Damaged:[/yellow] {escape(one_line(line))}", highlight=False, soft_wrap=True)
    if more := len(damaged) - min(SHOWN_DAMAGED, len(damaged)):
        console.print(f"and {counted(more, 'more damaged file')}.", highlight=False)


def print_statuses(store: ObjectStore, console: Console, computed: Collection[str], *, whole: bool) -> None:
    """Print how the ``computed`` songs ended, and how many others in the store are bad.

    Unless all tables were wanted (``whole``), a song that lacks some is done.
    """
    bad = BAD if whole else BAD[1:]
    statuses = query(store, "SELECT song_id, status FROM song_catalog").rows()
    now = Counter(status for song, status in statuses if song in computed)
    before = Counter(status for song, status in statuses if song not in computed)
    done = now.total() - sum(now[status] for status in bad)
    ends = [f"{counted(done, 'song')} done", *(f"{now[status]} {status}" for status in bad if now[status])]
    see = "; `bandscope status` shows why"
    if computed:
        text = f"{', '.join(ends)}{see if len(ends) > 1 else ''}."
        console.print(text, highlight=False)
    if others := [f"{before[status]} {status}" for status in bad if before[status]]:
        console.print(f"Other songs in the store: {', '.join(others)}{see}.", highlight=False)
