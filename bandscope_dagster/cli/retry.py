"""What ``bandscope retry`` does: hand the songs that failed or are missing to the Dagster daemon."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from rich.console import Console

from bandscope_dagster.cli.run import selected
from bandscope_dagster.models.store import require
from bandscope_dagster.orchestration.resources import chosen_models
from bandscope_dagster.orchestration.retry import CannotRetry, daemon_is_alive, retry_songs
from bandscope_dagster.settings import Settings


def retry(settings: Settings, home: Path, console: Console, select: Sequence[str] | None) -> None:
    """Request a backfill over what is unfinished in the selected assets (all per-song ones by default), and say so.

    Raises:
        RunError: an unknown asset is selected.
        ModelFileError: the weights of a model that is needed are missing or wrong; nothing was requested.
        CannotRetry: there is no daemon that would start the runs, or a ``bandscope run`` is at work.
    """
    assets = selected(select)
    require(chosen_models(settings, assets), settings.models_path)
    with dg.DagsterInstance.get() as instance:
        if not daemon_is_alive(instance):
            raise CannotRetry(
                f"no Dagster daemon is alive on {home}, which would start the runs: start one (`dagster dev`), or let"
                " `bandscope run` compute the same songs in its own process"
            )
        found = retry_songs(instance, assets, settings.songs_per_run)
    if found.in_progress:
        console.print(
            f"{found.in_progress} songs are left to runs that are queued or running.", highlight=False
        )
    if found.backfill_id is None:
        console.print("No other song has failed or is missing.", highlight=False)
        return
    console.print(
        f"{found.unfinished} songs failed or are missing. Backfill {found.backfill_id} computes them in"
        f" {len(found.ranges)} ranges and keeps what is done; watch it in the UI under Runs, Backfills.",
        highlight=False,
    )
