"""``bandscope separate``: from files to stems in one command, through the same store and graph as all others."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.export import Flat, export
from bandscope_dagster.cli.ingest import ingest_files
from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.cli.wanted_stems import Stored, Wanted, stored_of, wanted_stems
from bandscope_dagster.errors import counted
from bandscope_dagster.exporting.encodings import AudioFormat, find_encoding
from bandscope_dagster.exporting.song import ExportError
from bandscope_dagster.exporting.song_export import ExportOptions
from bandscope_dagster.orchestration.resources import models_here
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import PREFIX, Settings, load_settings
from bandscope_dagster.songs.facts import read_facts
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import STEM_INSTRUMENT_TAGS, STEMS
from bandscope_dagster.tagging.registry import present_from

SHOWN_INSTRUMENTS: Final = 6
OF_STEMS: Final = f"{STEMS.name},{STEM_INSTRUMENT_TAGS.name}"


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

    Other songs of the store are left as they are. A file whose name another upload has is left out. Only the stems that
    are named are computed; a song whose stored stems lack one of them is separated again, and keeps its others. If the
    settings name a separator, songs of another one are separated again with it, and keep only stems that it has too.

    Raises:
        SettingsError: there is no such separator, or it has no such stem; nothing was done.
        ExportError: ``to`` is a file; nothing was done.
    """
    if to.exists() and not to.is_dir():
        raise ExportError(f"{to} is a file; --to needs a folder for the stems")
    models_here(settings, [STEMS.name])  # refuses a separator that is unknown
    wanted = wanted_stems(settings, [*stems, *without])
    given = ingest_files(store, console, paths, None, replace=False, exports=to)
    found = {upload.key: upload.song_id for upload in list_uploads(store).uploads}
    songs = {found[key] for key in given.keys if key in found}
    for key in given.keys:
        if key not in found:
            text = f"{one_line(key)}: a forgotten song; `bandscope forget --undo` brings it back"
            console.print(escape(text), highlight=False, soft_wrap=True)
    if not songs:
        return False
    failed = _run(store, console, songs, wanted)
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


def _run(store: ObjectStore, console: Console, songs: Collection[str], wanted: Wanted) -> bool:
    """Compute what ``songs`` lack; returns True if any run failed."""
    stored = stored_of(store, songs)
    again = {song: found for song, found in stored.items() if wanted.again(found)}
    settings = _in_force(wanted.to_compute(again.values()))
    # The graph reads the settings when it is imported, so the choice of stems must be in the environment by now.
    from bandscope_dagster.cli.result_posts import results_posted
    from bandscope_dagster.cli.run import RunOptions, run_songs
    from bandscope_dagster.orchestration.home import dagster_home

    home = dagster_home()
    failed = False
    with results_posted(settings, store, console) as shown:
        for line in lines_about_stored(wanted, stored):
            console.print(escape(line), highlight=False, soft_wrap=True)
        if again:
            options = RunOptions(recompute=True)
            failed |= run_songs(settings, store, home, shown, set(again), OF_STEMS, options)
        # All songs: one that was separated again may lack other tables.
        failed |= run_songs(settings, store, home, shown, set(songs), None, RunOptions())
    return failed


def lines_about_stored(wanted: Wanted, stored: Mapping[str, Stored]) -> list[str]:
    """A line about each reason for which stems in the store are computed again, or kept although they are another's."""
    same, replaced, kept = (list[Stored](), list[Stored](), list[Stored]())
    for found in stored.values():
        if found.separator == wanted.separator:
            same += [found] * wanted.again(found)
        else:
            (replaced if wanted.again(found) else kept).append(found)
    lines: list[str] = []
    if same:
        lacking = f"Separating again, because stored stems lack {' or '.join(wanted.stems)}"
        lines.append(f"{lacking}: {counted(len(same), 'song')}.")
    if replaced:
        lines.append(
            f"Separating again with {wanted.separator}, which replaces all stems of {_separators(replaced)}: "
            f"{counted(len(replaced), 'song')}."
        )
    if kept:
        lines.append(
            f"Stems of {_separators(kept)} are kept: {counted(len(kept), 'song')}. To replace them by those of "
            f"{wanted.separator}, repeat the command with {PREFIX}SEPARATOR={wanted.separator}."
        )
    return lines


def _separators(stored: Iterable[Stored]) -> str:
    return " and ".join(sorted({found.separator for found in stored}))


def _in_force(stems: Sequence[str] | None) -> Settings:
    """The settings of this process from now on, with only ``stems`` to compute; None leaves them as they are."""
    if stems is not None:
        os.environ[f"{PREFIX}STEMS"] = ",".join(stems)
    return load_settings()
