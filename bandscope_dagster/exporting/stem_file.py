"""Export a song as one Stems file for Traktor and Mixxx: ``Artist - Title.stem.mp4``, the mixture and four stems."""

from pathlib import Path
from typing import Final

import numpy as np

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.exporting.encodings import Encoding
from bandscope_dagster.exporting.flat_export import (
    LENGTHS_DIFFER,
    FlatExport,
    Part,
    blocks_of_parts,
    gain_of_parts,
    own_name,
)
from bandscope_dagster.exporting.song import ExportError, Song, read_song
from bandscope_dagster.exporting.sound_file import SoundFile
from bandscope_dagster.exporting.stem_atom import COLOURS, add_stem_atom
from bandscope_dagster.separation.chosen_stems import stems_of
from bandscope_dagster.storage.objects.open_store import open_folder
from bandscope_dagster.storage.objects.protocol import ObjectStore

SUGGESTED: Final = "htdemucs"  # a separator whose stems fill a stem file


def parts_of_stem_file(song: Song) -> list[Part]:
    """The sources of the five streams: the mixture, drums, bass, other, vocals. Further stems are part of "other".

    Raises:
        ExportError: the song lacks one of these stems; the message says how to get it.
    """
    if lacking := [stem for stem in COLOURS if stem not in song.stems]:
        if set(COLOURS) <= set(stems_of(song.separator)):
            raise ExportError(
                f"{song.song_id} has no {', no '.join(lacking)}: only {' and '.join(song.stems)} were computed, and a"
                f" stem file needs {', '.join(COLOURS)}. To compute all: unset BANDSCOPE_STEMS, then"
                f" bandscope run --recompute --songs {song.song_id}"
            )
        raise ExportError(
            f"{song.song_id} has no {', no '.join(lacking)}: {song.separator} separates into"
            f" {' and '.join(song.stems)}, and a stem file needs {', '.join(COLOURS)}. To separate it anew:"
            f" bandscope models pull {SUGGESTED}, then BANDSCOPE_SEPARATOR={SUGGESTED} bandscope run --recompute"
            f" --songs {song.song_id} (every separator with these four stems fits)"
        )
    further = [stem for stem in song.stems if stem not in COLOURS]
    sources = {stem: [stem, *further] if stem == "other" else [stem] for stem in COLOURS}
    stems = [Part(stem, dict.fromkeys(each, 1.0)) for stem, each in sources.items()]
    return [Part(MIXTURE, {MIXTURE: 1.0}), *stems]


def export_stem_file(
    store: ObjectStore,
    song_id: str,
    to: Path,
    encoding: Encoding,
    normalise_lufs: float | None,
    taken: dict[str, str],
) -> FlatExport:
    """Write the song's stem file into ``to``; an existing file of the same name is replaced.

    ``taken`` has the names of the songs before it, see ``own_name``.

    Raises:
        CannotAnalyze, ExportError, DamagedFile, NoLoudness: see ``export_song``. Also if the song lacks a stem.
    """
    song = read_song(store, song_id)
    parts = parts_of_stem_file(song)
    gain = gain_of_parts(store, song, parts, encoding, normalise_lufs)
    target = open_folder(to)
    name = f"{own_name(song, taken)}.{encoding.suffix}"
    tags = song.tags(MIXTURE, gain) | {"title": song.title}
    del tags["stem"]
    with target.create(name) as pending:
        with SoundFile(pending.file, encoding, tags, [part.name for part in parts]) as file:
            for samples in blocks_of_parts(store, song_id, parts):
                file.push(*(block * np.float32(gain.factor) for block in samples))
            if file.finish() != {song.frames}:
                raise ExportError(LENGTHS_DIFFER.format(song_id=song_id))
        add_stem_atom(pending.file)
    return FlatExport((Path(target.url) / name,), gain)
