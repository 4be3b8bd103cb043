"""Remarks below the overview of ``bandscope status``: what Dagster's records of the home say differently."""

from collections.abc import Sequence
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.home import has_home
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.outdated import find_outdated
from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.song_files import list_song_files

SHOWN: Final = 3
LOOKED_AT: Final = 5000  # songs; to read the records of more takes longer than people wait


def print_remarks(store: ObjectStore, console: Console, settings: Settings) -> None:
    """Print the outdated songs, and those with results whose partition was deleted.

    Prints nothing if this user may not write the home.
    """
    if not has_home():
        return
    try:
        with dg.DagsterInstance.get() as instance:
            partitions = set(instance.get_dynamic_partitions(SONGS_NAME))
            few = sorted(partitions) if len(partitions) <= LOOKED_AT else []
            outdated = find_outdated(instance, store, settings, few, PER_SONG).songs if few else set[str]()
    except Exception as error:  # whatever it is, the overview was printed from the store alone
        cause = escape(one_line(str(error).strip().partition("\n")[0]))
        console.print(f"Dagster's records cannot be read: {cause}", highlight=False, soft_wrap=True)
        return
    if not partitions:  # a home that has never worked on this store
        return
    deleted = [song for song in list_song_files(store, SOURCES).song_ids if song not in partitions]
    if deleted:
        console.print(
            f"Without a partition in Dagster, but with results: {_named(deleted)}. To delete a partition deletes no"
            " data, and `bandscope run` or the sensor registers the song again. `bandscope forget` removes songs.",
            highlight=False,
            soft_wrap=True,
        )
    if outdated:
        console.print(
            f"Outdated, made with other models, parameters or code than those in force: {_named(sorted(outdated))}."
            " `bandscope run --outdated` computes them again.",
            highlight=False,
            soft_wrap=True,
        )


def _named(songs: Sequence[str]) -> str:
    """The number of songs and the first ids."""
    names = ", ".join(songs[:SHOWN]) + (", …" if len(songs) > SHOWN else "")
    return f"{counted(len(songs), 'song')} ({names})"
