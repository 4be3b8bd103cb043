"""Export one song into a folder of its own: its stems, its mixture and its instruments as files for producers."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.exporting.encodings import Encoding
from bandscope_dagster.exporting.folders import ExportedFile, ExportFolder, SongFolder
from bandscope_dagster.exporting.gain import Gain, song_gain
from bandscope_dagster.exporting.instruments import instruments_csv
from bandscope_dagster.exporting.names import safe_name
from bandscope_dagster.exporting.song import ExportError, Song, read_song
from bandscope_dagster.exporting.sound_file import SoundFile
from bandscope_dagster.songs.stored_audio import stored_samples
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, STEMS

INSTRUMENTS: Final = "instruments.csv"
THREADS: Final = 4  # one per stem; encoders release the interpreter's lock


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export."""

    encoding: Encoding
    normalise_lufs: float | None = None  # target loudness of the mixture; None keeps the true level
    mixture: bool = False  # True: write the mixture too
    lists: bool = False  # True: write instruments.csv and export.json too


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of the export of one song."""

    folder: Path
    written: tuple[str, ...]  # names of new files in the folder
    kept: tuple[str, ...]  # names of files that were complete and up to date
    gain: Gain


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A requested file, and the values of its record; see ``ExportedFile``."""

    recipe: str
    source: str | None = None  # a stem, or "mixture"; None for a file without audio
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    gain_db: float | None = None
    separation: str | None = None


def export_song(store: ObjectStore, song_id: str, to: ExportFolder, options: ExportOptions) -> Exported:
    """Write ``Artist - Title/<stem>.<format>`` for every stem; optionally the mixture, and the lists.

    One gain applies to all samples of a song: 1 for the true level, less if integers would clip. Existing files are
    kept if they were made in the same way from the same tables, and lists from before stay up to date. Files of an
    earlier separation or level, which do not add up with the new ones, are deleted. All new files are encoded before
    the first is moved to its place: a song that cannot be exported changes nothing.

    Raises:
        CannotAnalyze: the song has no stems yet, or no mixture although it is requested.
        ExportError: the song was rejected or failed.
        DamagedFile: its stored audio is damaged.
        NoLoudness: the song cannot be normalised.
    """
    song = read_song(store, song_id)
    encoding = options.encoding
    gain = song_gain(song_id, song.peak, encoding.ceiling, song.loudness_lufs, options.normalise_lufs)
    folder = to.folder_of(song_id, song.name)
    wanted = _sounds(song, gain, options)
    instruments = b""
    if options.lists or INSTRUMENTS in folder.files:
        instruments = instruments_csv(store, song_id)
        wanted[INSTRUMENTS] = _Wanted(hashlib.sha256(instruments).hexdigest())

    todo = {name: file for name, file in wanted.items() if not folder.holds(name, file.recipe)}
    outdated = _outdated(folder, wanted, encoding)
    with ExitStack() as unfinished:
        pending = {name: unfinished.enter_context(folder.target.create(folder.key(name))) for name in todo}
        if INSTRUMENTS in pending:
            pending[INSTRUMENTS].write(instruments)
        sounds = {file.source: name for name, file in todo.items() if file.source is not None}
        with ExitStack() as encoders:
            files = {
                source: encoders.enter_context(SoundFile(pending[name].file, encoding, todo[name].tags))
                for source, name in sounds.items()
            }
            _encode(store, song, files, gain)
        if todo or outdated:
            others = {name: file for name, file in folder.files.items() if name not in todo}
            to.claim(folder, others)
            for name, file in todo.items():
                others[name] = ExportedFile(
                    pending[name].commit(), file.recipe, file.gain_db, file.separation
                )
            for name in outdated:
                folder.target.delete(folder.key(name))
                del others[name]
            folder.write_record(others, listed=options.lists)
    kept = sorted(wanted.keys() - todo.keys())
    return Exported(folder.path, tuple(sorted(todo)), tuple(kept), gain)


def _sounds(song: Song, gain: Gain, options: ExportOptions) -> dict[str, _Wanted]:
    """File name → the file of a stem or the mixture."""
    sources = [*song.stems, MIXTURE] if options.mixture else song.stems
    wanted: dict[str, _Wanted] = {}
    for source in sources:
        name = f"{safe_name(source, 'stem')}.{options.encoding.suffix}"
        if name in wanted:
            raise ExportError(
                f"{song.song_id} has two sources with the file name {name}; materialize stems again"
            )
        lineage = song.stems_lineage if source in song.stems else song.mixture_lineage
        separation = _digest(lineage) if source in song.stems else None
        tags = song.tags(source, gain)
        recipe = _digest(lineage, asdict(options.encoding), gain.factor, tags)
        wanted[name] = _Wanted(recipe, source, tags, gain.db, separation)
    return wanted


def _encode(store: ObjectStore, song: Song, files: Mapping[str, SoundFile], gain: Gain) -> None:
    """Write the audio of each source into its file (``files``: source → file)."""

    def push(row: dict[str, Any]) -> None:
        samples = stored_samples(row)
        files[row.get("stem", MIXTURE)].push(samples * np.float32(gain.factor))

    with ThreadPoolExecutor(THREADS) as pool:
        for table, sources in (
            (DECODED_WAVEFORMS, files.keys() & {MIXTURE}),
            (STEMS, files.keys() - {MIXTURE}),
        ):
            for rows in read_blocks(store, table, song.song_id) if sources else ():
                list(pool.map(push, [row for row in rows if row.get("stem", MIXTURE) in sources]))
    for source, file in files.items():
        (frames,) = file.finish()
        if frames != song.frames:
            raise ExportError(
                f"{song.song_id}: {source} has {frames} frames, but the song has {song.frames}; "
                "materialize its tables again"
            )


def _outdated(folder: SongFolder, wanted: Mapping[str, _Wanted], encoding: Encoding) -> list[str]:
    """The names of earlier audio files that do not add up with the requested ones."""
    gains = {file.gain_db for file in wanted.values()}
    separations = {file.separation for file in wanted.values()} | {None}
    return [
        name
        for name, file in folder.files.items()
        if name not in wanted
        and file.gain_db is not None
        and (
            file.separation not in separations
            or (name.endswith(f".{encoding.suffix}") and file.gain_db not in gains)
        )
    ]


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
