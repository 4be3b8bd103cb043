"""The songs of ``bandscope status`` that the store does not know: registered in Dagster, and without any file."""

from collections.abc import Collection, Iterator
from typing import Any, Final, cast

import dagster as dg
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.home import has_home
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS
from bandscope_dagster.orchestration.run_tags import is_over_songs
from bandscope_dagster.orchestration.steps import FAILED_SONGS
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_files import list_song_files

LOOKED_AT: Final = 50  # failed runs, the newest first

DIED: Final = "its run died, and left no cause"

_WORDS: Final = {
    dg.AssetPartitionStatus.IN_PROGRESS: "in a run that is queued or running",
    dg.AssetPartitionStatus.MATERIALIZED: "recorded as done, but the store has no file: `bandscope run` computes it",
    None: "not processed yet",
}


def print_registered(store: ObjectStore, console: Console) -> None:
    """Print a line for every registered song without a file, with what Dagster knows of it.

    Prints nothing if this user can have no home, or has one that has never worked on this store.
    """
    if not has_home():
        return
    known = set(list_song_files(store, SOURCES).song_ids)
    with dg.DagsterInstance.get() as instance:
        registered = instance.get_dynamic_partitions(SONGS_NAME)
        songs = [song for song in registered if song not in known]
        if not songs or not (known | list_uploads(store).by_song.keys()).intersection(registered):
            return
        found = instance.get_status_by_partition(dg.AssetKey(SONGS.name), songs, SONGS_PARTITIONS) or {}
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
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            said = entry.dagster_event and entry.dagster_event.step_failure_data.user_failure_data
            named: Any = said.metadata.get(FAILED_SONGS) if said else None
            if isinstance(named, dg.JsonMetadataValue):
                causes = cast(dict[str, str], named.value)
                for song in left.intersection(causes):
                    yield song, causes[song]
                left.difference_update(causes)
