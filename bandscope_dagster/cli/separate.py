"""``bandscope separate``: from files to stems in one command, through the same store and graph as all others."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.export import Flat, export
from bandscope_dagster.cli.ingest import ingest_files
from bandscope_dagster.cli.result_posts import results_posted
from bandscope_dagster.cli.run import RunOptions, run_songs
from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.exporting.encodings import AudioFormat, find_encoding
from bandscope_dagster.exporting.song_export import ExportOptions
from bandscope_dagster.orchestration.home import dagster_home
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.facts import read_facts
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.registry import present_from

SHOWN_INSTRUMENTS = 6


def separate_files(
    settings: Settings,
    store: ObjectStore,
    console: Console,
    paths: Sequence[str],
    to: Path,
    audio_format: AudioFormat,
    stems: Sequence[str],
    without: Sequence[str],
) -> bool:
    """Ingest the files at and below ``paths``, process them, write their stems to ``to``; True if nothing is missing.

    Other songs of the store are left as they are. A file whose name another upload has is left out.
    """
    given = ingest_files(store, console, paths, None, replace=False)
    found = {upload.key: upload.song_id for upload in list_uploads(store).uploads}
    songs = {found[key] for key in given.keys if key in found}
    for key in given.keys:
        if key not in found:
            text = f"{one_line(key)}: a forgotten song; `bandscope forget --undo` brings it back"
            console.print(escape(text), highlight=False, soft_wrap=True)
    if not songs:
        return False
    home = dagster_home()
    with results_posted(settings, store, console) as shown:
        failed = run_songs(settings, store, home, shown, songs, None, RunOptions())
    options = ExportOptions(find_encoding(audio_format))
    chosen = sorted(songs)
    not_written = export(store, console, chosen, to, options, Flat(stems, without))
    rule = present_from(settings.present_from, settings.audible_db)
    for song in chosen:
        facts = read_facts(store, song, rule)
        if facts is not None and facts.song["error"] is None:
            names = list(dict.fromkeys(each.name for each in facts.instruments))[:SHOWN_INSTRUMENTS]
            heard = ", ".join(names) or "nothing that the tagger knows"
            console.print(escape(f"{song}: heard {heard}"), highlight=False, soft_wrap=True)
    return given.complete and len(songs) == len(given.keys) and not (failed or not_written)
