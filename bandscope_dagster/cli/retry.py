"""``bandscope retry``: hands the songs that failed or are missing to the Dagster daemon."""

from pathlib import Path

from rich.console import Console

from bandscope_dagster.cli.run import selected
from bandscope_dagster.errors import counted
from bandscope_dagster.models.store import require
from bandscope_dagster.orchestration.home import open_records
from bandscope_dagster.orchestration.resources import models_here
from bandscope_dagster.orchestration.retry_backfill import CannotRetry, daemon_is_alive, retry_songs
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore


def retry(
    settings: Settings,
    store: ObjectStore,
    home: Path,
    console: Console,
    select: str | None,
    *,
    outdated: bool = False,
    pattern: str | None = None,
) -> None:
    """Request a backfill of unfinished or ``outdated`` songs in the selected assets, by default all, and print it.

    ``pattern`` is the id or file name of a song, or a glob; by default, all songs.

    Raises:
        RunError: an unknown asset is selected.
        ModelFileError: the weights of a needed model are missing or wrong; nothing was requested.
        CannotRetry: no daemon is running to start the runs, or a ``bandscope run`` computes the same songs.
        NoSuchSong: no song matches ``pattern``.
    """
    assets = selected(select)
    require(models_here(settings, assets), settings.models_path)
    with open_records() as instance:
        if not daemon_is_alive(instance):
            raise CannotRetry(
                f"no Dagster daemon runs on {home}, and only a daemon starts these runs: start one with `dg dev`, or"
                " compute the songs in this process with `bandscope run`"
            )
        found = retry_songs(instance, store, assets, settings, outdated=outdated, pattern=pattern)
    what = "outdated" if outdated else "failed or missing"
    if found.in_progress:
        songs = counted(found.in_progress, "song")
        console.print(f"In runs that are queued or running: {songs}.", highlight=False)
    if found.left_out:
        console.print(
            f"Left out: {counted(found.left_out, 'song')} that the analysis rejected, or whose upload is gone;"
            " `bandscope status` has the reasons.",
            highlight=False,
        )
    if found.backfill_id is None:
        other = "other " if found.in_progress or found.left_out else ""
        of_these = "" if pattern is None else " of these"
        console.print(f"No {other}song{of_these} is {what}.", highlight=False)
        return
    console.print(
        f"{what.capitalize()}: {counted(found.unfinished, 'song')}. Backfill {found.backfill_id} computes them in"
        f" {counted(len(found.ranges), 'range')} and keeps finished results; see Runs > Backfills in the UI.",
        highlight=False,
    )
