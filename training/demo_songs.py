"""Make the demo's songs: three short ones whose parts are known, from soundfonts with an MIT licence and a voice.

    python -m training.demo_songs --work DIR --to scripts/demo_audio [--font fluid] [--seed 7] [--listen]

It gets its packages by ``sources.toml``, as training does, and needs tinysoundfont and what ``requirements.txt``
lists. The songs and ``parts.toml``, which says who plays when, are committed: nobody who only runs the demo needs this.
``--listen`` also separates and tags the songs as Bandscope does, and prints what is heard, to judge other seeds and
fonts.
"""

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from bandscope_dagster.tagging.vocabulary import load_vocabulary
from training.demo_band import SAMPLE_RATE, Audio, Singer, mixed, tracks
from training.demo_music import MAJOR, MINOR, Composition, Part, arpeggio, bass, chords, drums, melody
from training.origins import FONTS
from training.sources import Sources

ARTIST: Final = "The Bandscope Demo Band"
SUFFIXES: Final = ("mp3", "ogg", "mp3")
HEADER: Final = """\
# Who plays when in the demo's songs, in seconds. Written by `python -m training.demo_songs`.
# Instruments are named as in the vocabulary. Sounds: FluidR3 GM (MIT, Frank Wen and others) and the voice slt of flite
# (Carnegie Mellon University, MIT-like). The program makes up the music; the songs have Bandscope's licence.
"""

SONGS: Final = (
    Composition(
        "Night Bus", 96, 9, MINOR, (0, 5, 2, 6), 16,
        (
            Part("clarinet", melody, 50, ((0, 4),), pan=0.3, number=71),
            Part("distorted guitar", chords, 45, ((4, 16),), "x.....x.x.......", -5, -0.4, number=30),
            Part("drums", drums, 0, ((5, 16),), "x.....x.x......./....x.......x..o/x...x...x...x...", bank=128),
            Part("singing voice", melody, 55, ((8, 16),), level_db=4),
        ),
        "night bus take me home through the rain all the lights are low and the road goes on",
    ),
    Composition(
        "Paper Boats", 100, 9, MAJOR, (0, 3, 5, 4), 14,
        (
            Part("banjo", melody, 55, ((0, 6),), "", -1, -0.4, number=105),
            Part("double bass", bass, 28, ((5, 10),), "x...............", -2, number=43),
            Part("violin", melody, 67, ((9, 14),), pan=0.3, number=40),
        ),
    ),
    Composition(
        "Harbour Lights", 84, 2, MAJOR, (0, 3, 5, 4), 12,
        (
            Part("clarinet", melody, 50, ((0, 4),), pan=0.3, number=71),
            Part("harp", arpeggio, 55, ((4, 8),), "x.x.x.x.x.x.x.x.", -1, -0.3, number=46),
            Part("choir", chords, 55, ((8, 12),), "x...............", number=52),
        ),
    ),
)  # fmt: skip


def write_song(path: Path, audio: Audio, title: str) -> None:
    """Write ``(2, frames)`` as MP3 or Ogg Vorbis, by the suffix, with title and artist."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, compression_level=0.3) as file:
        file.title, file.artist = title, ARTIST
        for start in range(0, audio.shape[1], SAMPLE_RATE):  # libsndfile's Vorbis crashes on long writes
            file.write(audio[:, start : start + SAMPLE_RATE].T)


def parts_of(song: Composition) -> dict[str, list[list[float]]]:
    """Instrument of the vocabulary → spans in which it plays, in seconds."""
    match = load_vocabulary().match
    bar_s = 16 * song.step_s
    return {
        match(part.instrument).instrument: [
            [round(first * bar_s, 2), round(end * bar_s, 2)] for first, end in part.bars
        ]
        for part in song.parts
    }


def _entry(path: Path, song: Composition) -> str:
    lines = ["[[songs]]", f'title = "{song.title}"', f'file = "{path.name}"']
    lines += [f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"', "", "[songs.parts]"]
    return "\n".join([*lines, *(f'"{name}" = {spans}' for name, spans in parts_of(song).items())])


def print_heard(song: Composition, file: Path) -> None:
    """Separate and tag a song as it was written, and print what is present beside what plays."""
    from training.demo_listening import heard_in

    heard: Mapping[str, list[str]] = heard_in(soundfile.read(file, dtype="float32")[0].T)
    truth = set(parts_of(song))
    print(f"    found {sorted(truth & set(heard))}")
    print(f"    missed {sorted(truth - set(heard))}, false {sorted(set(heard) - truth)}: {dict(heard)}")


def main() -> None:
    """Write the songs and their list of parts to a folder."""
    parser = argparse.ArgumentParser(description="Make the songs of the demo.")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="work folder, as of training")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--font", choices=FONTS, default="fluid", help="soundfont (default: fluid)")
    parser.add_argument("--seed", type=int, default=7, help="of melodies and loudness (default: 7)")
    parser.add_argument("--listen", action="store_true", help="print what the embedded models hear")
    arguments = parser.parse_args()
    package, path = FONTS[arguments.font]
    sources = Sources(arguments.work / "sources")
    sources.fetch(print, only=(package, "flite", "libflite1"))
    library = next((sources.folder("libflite1") / "usr/lib").glob("*-linux-gnu"))
    singer = Singer(sources.folder("flite") / "usr/bin/flite", library, "slt", arguments.work)
    arguments.to.mkdir(parents=True, exist_ok=True)
    entries: list[str] = []
    for song, suffix in zip(SONGS, SUFFIXES, strict=True):
        rng = np.random.default_rng(arguments.seed)
        mix = mixed(tracks(song, sources.folder(package) / path, singer, rng))
        file = arguments.to / f"{ARTIST} - {song.title}.{suffix}"
        write_song(file, mix, song.title)
        entries.append(_entry(file, song))
        print(f"{file}: {song.seconds:.0f} s, {file.stat().st_size / 1e6:.2f} MB", flush=True)
        if arguments.listen:
            print_heard(song, file)
    (arguments.to / "parts.toml").write_text(HEADER + "\n" + "\n\n".join(entries) + "\n")


if __name__ == "__main__":
    main()
