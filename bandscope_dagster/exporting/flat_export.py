"""Export into one folder without subfolders: ``Artist - Title (stem).mp3``, for players and samplers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.exporting.encodings import Encoding
from bandscope_dagster.exporting.gain import Gain, song_gain
from bandscope_dagster.exporting.names import safe_name
from bandscope_dagster.exporting.song import ExportError, Song, read_song
from bandscope_dagster.exporting.sound_file import SoundFile
from bandscope_dagster.songs.stored_audio import stored_samples
from bandscope_dagster.storage.objects.open_store import open_folder
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, STEMS

Audio = NDArray[np.float32]

LENGTHS_DIFFER: Final = "{song_id}: its stems are not as long as the song; materialize its tables again"
ID_DIGITS: Final = 12  # of a song's id, at its end: they tell songs with the same name apart


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a song: the sum of stored sources, each with a weight."""

    name: str  # as in the file's name
    weights: Mapping[str, float]  # stem, or "mixture" → its weight


@dataclass(frozen=True, slots=True)
class FlatExport:
    """The files of one song, and the gain of all their samples."""

    paths: tuple[Path, ...]
    gain: Gain


def parts_of(song: Song, stems: Sequence[str], without: Sequence[str], *, mixture: bool) -> list[Part]:
    """The ``stems`` (all, if nothing is named), the mixture without each stem of ``without``, and the ``mixture``.

    Raises:
        ExportError: the song has no such stem.
    """
    unknown = [name for name in (*stems, *without) if name not in song.stems]
    if unknown:
        raise ExportError(f"{song.song_id} has no stem {unknown[0]!r}; its stems are {', '.join(song.stems)}")
    chosen = stems or (() if without else song.stems)
    parts = [Part(stem, {stem: 1.0}) for stem in chosen]
    parts += [Part(f"without {stem}", {MIXTURE: 1.0, stem: -1.0}) for stem in without]
    return parts + ([Part(MIXTURE, {MIXTURE: 1.0})] if mixture else [])


def export_flat(
    store: ObjectStore,
    song_id: str,
    to: Path,
    encoding: Encoding,
    stems: Sequence[str],
    without: Sequence[str],
    *,
    mixture: bool,
    normalise_lufs: float | None,
    taken: dict[str, str],
) -> FlatExport:
    """Write a file into ``to`` for every part of the song; existing files of the same names are replaced.

    ``taken`` has the names of the songs before it, see ``own_name``. A part without a stem is the stored mixture minus
    the stored stem, so that the two add up to the mixture.

    Raises:
        CannotAnalyze, ExportError, DamagedFile, NoLoudness: see ``export_song``.
    """
    song = read_song(store, song_id)
    parts = parts_of(song, stems, without, mixture=mixture)
    gain = gain_of_parts(store, song, parts, encoding, normalise_lufs)
    target = open_folder(to)
    name = own_name(song, taken)
    names = {part.name: f"{name} ({safe_name(part.name, 'stem')}).{encoding.suffix}" for part in parts}
    with ExitStack() as unfinished:
        pending = {name: unfinished.enter_context(target.create(file)) for name, file in names.items()}
        with ExitStack() as encoders:
            files = {
                part.name: encoders.enter_context(
                    SoundFile(pending[part.name].file, encoding, song.tags(part.name, gain))
                )
                for part in parts
            }
            for samples in blocks_of_parts(store, song_id, parts):
                for part, block in zip(parts, samples, strict=True):
                    files[part.name].push(block * np.float32(gain.factor))
            if set[int]().union(*(file.finish() for file in files.values())) != {song.frames}:
                raise ExportError(LENGTHS_DIFFER.format(song_id=song_id))
        for each in pending.values():
            each.commit()
    return FlatExport(tuple(Path(target.url) / file for file in names.values()), gain)


def own_name(song: Song, taken: dict[str, str]) -> str:
    """The song's name for files, with the end of its id where another song of the same export has this name.

    ``taken`` is name → song, without case, of all songs before it; this one is added.
    """
    first = taken.setdefault(song.name.casefold(), song.song_id)
    return song.name if first == song.song_id else f"{song.name} [{song.song_id[-ID_DIGITS:]}]"


def gain_of_parts(
    store: ObjectStore, song: Song, parts: Sequence[Part], encoding: Encoding, normalise_lufs: float | None
) -> Gain:
    """One gain for all ``parts``; reads the audio first where a part of several sources may be louder than each.

    Raises:
        NoLoudness: the song cannot be normalised.
    """
    peak = song.peak
    mixed = [part for part in parts if len(part.weights) > 1]
    if mixed and encoding.ceiling < float("inf"):
        peaks = [
            np.abs(block).max() for blocks in blocks_of_parts(store, song.song_id, mixed) for block in blocks
        ]
        peak = float(max(peak, *peaks))
    return song_gain(song.song_id, peak, encoding.ceiling, song.loudness_lufs, normalise_lufs)


def blocks_of_parts(store: ObjectStore, song_id: str, parts: Sequence[Part]) -> Iterator[list[Audio]]:
    """Each block of the song: the samples of every part, ``(2, frames)``."""
    sources = {source for part in parts for source in part.weights}
    for block in _blocks(store, song_id, sources):
        yield [
            np.sum([np.float32(weight) * block[source] for source, weight in part.weights.items()], axis=0)
            for part in parts
        ]


def _blocks(store: ObjectStore, song_id: str, sources: set[str]) -> Iterator[dict[str, Audio]]:
    """Each block of the song: source → samples, ``(2, frames)``."""
    stems = read_blocks(store, STEMS, song_id) if sources - {MIXTURE} else None
    mixture = read_blocks(store, DECODED_WAVEFORMS, song_id) if MIXTURE in sources else None
    while True:
        rows = [row for blocks in (stems, mixture) if blocks is not None for row in next(blocks, ())]
        if not rows:
            return
        block = {
            source: stored_samples(row) for row in rows if (source := row.get("stem", MIXTURE)) in sources
        }
        if len({samples.shape for samples in block.values()}) != 1 or block.keys() != sources:
            raise ExportError(LENGTHS_DIFFER.format(song_id=song_id))
        yield block
