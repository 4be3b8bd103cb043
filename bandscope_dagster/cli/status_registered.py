"""The songs of ``bandscope status`` that the store does not know: registered in Dagster, and without any file."""

from collections.abc import Collection, Iterator
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS
from bandscope_dagster.orchestration.run_tags import is_over_songs
from bandscope_dagster.orchestration.steps import step_failures
from bandscope_dagster.pipeline.uploads import Listing
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_files import SongFiles, list_song_files

LOOKED_AT: Final = 50  # failed runs, the newest first

DIED: Final = "its run died, and left no cause"

_WORDS: Final = {
    dg.AssetPartitionStatus.IN_PROGRESS: "in a run that is queued or running",
    dg.AssetPartitionStatus.MATERIALIZED: "recorded as done, but the store has no file: `bandscope run` computes it",
    None: "not processed yet",
}


def print_registered(
    instance: dg.DagsterInstance, files: SongFiles, listing: Listing, console: Console
) -> None:
    """Print a line for every registered song without a file, with what Dagster knows of it.

    Prints nothing if ``instance`` has never worked on this store.
    """
    known = set(files.song_ids)
    registered = instance.get_dynamic_partitions(SONGS_NAME)
    songs = [song for song in registered if song not in known]
    if not songs or not (known | listing.by_song.keys()).intersection(registered):
        return
    found = instance.get_status_by_partition(dg.AssetKey(SONGS.name), songs, SONGS_PARTITIONS) or {}
    if dg.AssetPartitionStatus.MATERIALIZED in found.values():  # perhaps stored since the store was listed
        since = set(list_song_files(files.store, ()).song_ids)
        if not (songs := [song for song in songs if song not in since]):
            return
    failed = {song for song in songs if found.get(song) == dg.AssetPartitionStatus.FAILED}
    causes = dict(_causes(instance, failed)) if failed else {}
    console.print(f"Registered, and without any file: {counted(len(songs), 'song')}", highlight=False)
    for song in songs:
        if song in failed:
            text = f"[red]failed: {escape(one_line(causes.get(song, DIED)))}[/red]"
        else:
            text = _WORDS[found.get(song)]
        console.print(f"{escape(one_line(song))}  {text}", highlight=False, soft_wrap=True)


def _causes(instance: dg.DagsterInstance, songs: Collection[str]) -> Iterator[tuple[str, str]]:
    """The causes of failed songs, from the newest run that names each of them."""
    left = set(songs)
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=LOOKED_AT):
        if not left:
            return
        if not is_over_songs(run):
            continue
        causes = step_failures(instance, run.run_id).songs
        for song in left.intersection(causes):
            yield song, causes[song]
        left.difference_update(causes)
