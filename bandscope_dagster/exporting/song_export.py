"""A song's stems, its mixture and its instruments as files that a producer can open."""

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
from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.exporting.encodings import Encoding
from bandscope_dagster.exporting.folders import ExportedFile, ExportFolder, SongFolder
from bandscope_dagster.exporting.gain import Gain, song_gain
from bandscope_dagster.exporting.instruments import instruments_csv
from bandscope_dagster.exporting.names import safe_name
from bandscope_dagster.exporting.song import ExportError, Song, read_song
from bandscope_dagster.exporting.sound_file import SoundFile
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, STEMS

INSTRUMENTS: Final = "instruments.csv"
THREADS: Final = 4  # one a stem; encoders work outside Python's lock


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What files are wanted."""

    encoding: Encoding
    normalise_lufs: float | None = None  # the loudness of the mixture; None keeps the true level
    mixture: bool = False  # whether the mixture is written too


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export of a song did."""

    song_id: str
    folder: Path
    written: tuple[str, ...]  # names of files in the folder
    kept: tuple[str, ...]  # files that were there, whole and right
    gain: Gain


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file that is to be there, and what it will be remembered by."""

    recipe: str
    source: str | None = None  # the stem, or "mixture"; None for what holds no sound
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    gain_db: float | None = None
    separation: str | None = None


def export_song(store: ObjectStore, song_id: str, to: ExportFolder, options: ExportOptions) -> Exported:
    """Write ``Artist - Title/<stem>.<format>`` for every stem, ``instruments.csv``, and perhaps the mixture.

    All samples of a song are multiplied with one gain: of 1 for the true level, less where integers would clip. Files
    that are there already, made in the same way from the same tables, are kept; those of an earlier separation or
    level that would no longer add up with the new ones are deleted. New files are encoded before the first is moved
    to its place, so a song that cannot be exported changes nothing.

    Raises:
        CannotAnalyze: the song has no stems (or no mixture, where it is wanted) yet.
        ExportError: it never will, because it was rejected; or what is stored is damaged.
        NoLoudness: it cannot be normalised.
    """
    song = read_song(store, song_id)
    encoding = options.encoding
    gain = song_gain(song_id, song.peak, encoding.ceiling, song.loudness_lufs, options.normalise_lufs)
    instruments = instruments_csv(store, song_id)
    wanted = _sounds(song, gain, options) | {INSTRUMENTS: _Wanted(hashlib.sha256(instruments).hexdigest())}

    folder = to.folder_of(song_id, song.name)
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
            folder.write_record(others)
    kept = sorted(wanted.keys() - todo.keys())
    return Exported(song_id, folder.path, tuple(sorted(todo)), tuple(kept), gain)


def _sounds(song: Song, gain: Gain, options: ExportOptions) -> dict[str, _Wanted]:
    """File name → the stem that is to be in it, or the mixture."""
    sources = [*song.stems, MIXTURE] if options.mixture else song.stems
    wanted: dict[str, _Wanted] = {}
    for source in sources:
        name = f"{safe_name(source, 'stem')}.{options.encoding.suffix}"
        if name in wanted:
            raise ExportError(f"{song.song_id} has two sources that would be {name}; materialize stems again")
        lineage = song.stems_lineage if source in song.stems else song.mixture_lineage
        separation = _digest(lineage) if source in song.stems else None
        tags = song.tags(source, gain)
        recipe = _digest(lineage, asdict(options.encoding), gain.factor, tags)
        wanted[name] = _Wanted(recipe, source, tags, gain.db, separation)
    return wanted


def _encode(store: ObjectStore, song: Song, files: Mapping[str, SoundFile], gain: Gain) -> None:
    """Write the sources (by name) into their files."""

    def push(row: dict[str, Any]) -> None:
        samples = decode_flac(row["audio"]["bytes"], row["gain"])
        files[row.get("stem", MIXTURE)].push(samples * np.float32(gain.factor))

    with ThreadPoolExecutor(THREADS) as pool:
        for table, sources in (
            (DECODED_WAVEFORMS, files.keys() & {MIXTURE}),
            (STEMS, files.keys() - {MIXTURE}),
        ):
            for rows in read_blocks(store, table, song.song_id) if sources else ():
                list(pool.map(push, [row for row in rows if row.get("stem", MIXTURE) in sources]))
    for source, file in files.items():
        frames = file.finish()
        if frames != song.frames:
            raise ExportError(
                f"{song.song_id}: {source} has {frames} frames, and the song has {song.frames}; "
                "materialize its tables again"
            )


def _outdated(folder: SongFolder, wanted: Mapping[str, _Wanted], encoding: Encoding) -> list[str]:
    """Sounds from before that do not add up with those that are wanted."""
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
