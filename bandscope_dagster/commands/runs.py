"""Which songs ``bandscope run`` takes, and what became of the runs of commands that were killed."""

from collections.abc import Sequence
from typing import Final

import dagster as dg

from bandscope_dagster.commands.status import is_called
from bandscope_dagster.errors import BandscopeError

LAUNCHER_TAG: Final = "bandscope/launched-by"
LAUNCHER: Final = "bandscope run"


class RunError(BandscopeError):
    """The command cannot start, or was stopped; the message says why."""


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs of killed commands as failed; call it under the lock, when none of them can be alive."""
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    dead = instance.get_runs(dg.RunsFilter(tags={LAUNCHER_TAG: LAUNCHER}, statuses=unfinished))
    for run in dead:
        instance.report_run_failed(
            run, "The process of this run died; `bandscope run` goes on with its songs."
        )
    return [run.run_id for run in dead]


def matching(songs: Sequence[str], names: dict[str, str], pattern: str | None) -> list[str]:
    """The songs whose id or file name is ``pattern`` or matches it as a glob; all of them where there is none."""
    if pattern is None:
        return list(songs)
    return [song for song in songs if is_called(pattern, song, names.get(song))]
