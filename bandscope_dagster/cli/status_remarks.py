"""Remarks below the overview of ``bandscope status``: what Dagster's records of the home say differently."""

from collections.abc import Sequence
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.status_registered import print_registered
from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.home import has_home, home_path, open_records
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.outdated import find_outdated
from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.pipeline.uploads import Listing
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.tables.song_files import SongFiles

SHOWN: Final = 3
LOOKED_AT: Final = 5000  # songs; to read the records of more takes longer than people wait


def print_records(files: SongFiles, listing: Listing, console: Console, settings: Settings) -> None:
    """Print what Dagster's records say besides the store, or a sentence if they cannot be opened or read.

    Prints nothing if this user may not write the home.
    """
    if not has_home():
        return
    try:
        with open_records() as instance:
            print_registered(instance, files, listing, console)
            print_remarks(instance, files, listing, console, settings)
    except Exception as error:  # whatever it is, the overview was printed from the store alone
        console.print(
            f"Dagster's records in {escape(str(home_path()))} cannot be read, and all of the above is from the store"
            f" alone: {escape(_cause(error))}",
            highlight=False,
            soft_wrap=True,
        )


def print_remarks(
    instance: dg.DagsterInstance, files: SongFiles, listing: Listing, console: Console, settings: Settings
) -> None:
    """Print the outdated songs, and those with results whose partition was deleted.

    Outdated songs without upload are not named: their results are kept, and no run computes them.
    """
    partitions = set(instance.get_dynamic_partitions(SONGS_NAME))
    if not partitions:  # a home that has never worked on this store
        return
    deleted = [song for song in files.song_ids if song not in partitions]
    if deleted:
        console.print(
            f"Without a partition in Dagster, but with results: {_named(deleted)}. To delete a partition deletes no"
            " data, and `bandscope run` or the sensor registers the song again. `bandscope forget` removes songs.",
            highlight=False,
            soft_wrap=True,
        )
    if len(partitions) > LOOKED_AT:
        console.print(
            f"Not looked for outdated songs, because there are more than {LOOKED_AT:,}."
            " `bandscope run --outdated` finds them, and computes them again.",
            highlight=False,
            soft_wrap=True,
        )
        return
    songs = sorted(partitions & listing.by_song.keys())
    outdated = sorted(find_outdated(instance, files.store, settings, songs, PER_SONG).songs) if songs else []
    if outdated:
        console.print(
            f"Outdated, made with other models, parameters or code than those in force: {_named(outdated)}."
            " `bandscope run --outdated` computes them again.",
            highlight=False,
            soft_wrap=True,
        )


def _cause(error: Exception) -> str:
    """The message of an error in one line; that of a wrong ``dagster.yaml`` begins with the schema of its options."""
    if isinstance(error, dg.DagsterInvalidConfigError) and error.errors:
        return one_line(" ".join(str(error.errors[0].message).partition("\n\n")[0].split()))
    return one_line(str(error).strip().partition("\n")[0])


def _named(songs: Sequence[str]) -> str:
    """The number of songs and the first ids."""
    names = ", ".join(songs[:SHOWN]) + (", …" if len(songs) > SHOWN else "")
    return f"{counted(len(songs), 'song')} ({names})"
