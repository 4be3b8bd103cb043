"""Short songs: tracks that share tempo, key and chords, mixed and mastered; and the stems that a separator makes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE as SONG_RATE
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.spleeter import Spleeter
from bandscope_dagster.separation.streaming import Separated, StreamingSeparation
from bandscope_dagster.tagging.instruments_network import SAMPLE_RATE
from training.bank import Take, class_index
from training.phrases import Rng, Song
from training.production import compressed, encoded, equalised, reverberated, rms, saturated
from training.voices import Speaker, choir, singing

SCENE_S: Final = 9.0  # seconds
AUDIBLE_DB: Final = -20.0  # of a track, relative to the scene; below it the track does not count
STEM_DB: Final = -25.0  # of a stem, relative to its scene; a quieter one is left out
VOCALS: Final = ("singing voice", "choir")

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "bass": ("bass guitar", "bass guitar", "double bass", "synth bass"),
    "chords": (
        "piano", "electric piano", "organ", "accordion", "acoustic guitar", "acoustic guitar", "electric guitar",
        "electric guitar", "distorted guitar", "harp", "banjo", "mandolin", "harpsichord", "synth pad",
        "string section", "brass section", "mallets",
    ),
    "lead": (
        "harmonica", "violin", "cello", "trumpet", "trombone", "french horn", "tuba", "saxophone", "saxophone", "flute",
        "clarinet", "oboe", "bassoon", "recorder", "synth lead", "bells", "mallets", "electric guitar", "piano",
        "distorted guitar",
    ),
}  # fmt: skip


class Player(Protocol):
    """Plays one class: a preset of a font, a patch, a package of recordings."""

    def __call__(self, song: Song, seconds: float, rng: Rng) -> NDArray[np.float32]:
        """``(frames,)`` mono float32 at ``SAMPLE_RATE``."""
        ...


def _cast(rng: Rng) -> list[str]:
    """The classes of one scene."""
    names = [str(rng.choice(ROLES["chords"])) for _ in range(rng.choice(3, p=(0.15, 0.55, 0.3)))]
    if rng.random() < 0.75:
        names.append("drums")
    if rng.random() < 0.75:
        names.append(str(rng.choice(ROLES["bass"])))
    if rng.random() < 0.4:
        names.append(str(rng.choice(ROLES["lead"])))
    if rng.random() < 0.2:
        names.append("percussion")
    if rng.random() < 0.45:
        names.append("singing voice" if rng.random() < 0.85 else "choir")
    return list(dict.fromkeys(names))


def scene_tracks(
    players: Mapping[str, Sequence[Player]], speakers: Sequence[Speaker], rng: Rng
) -> dict[str, NDArray[np.float32]]:
    """The tracks of one scene at the levels of its mix: class → ``(frames,)``. Empty if no class could be played."""
    song = Song.random(rng)
    tracks: dict[str, NDArray[np.float32]] = {}
    for name in _cast(rng):
        if name == "singing voice":
            audio = singing(
                speakers[rng.integers(len(speakers))], SCENE_S, SAMPLE_RATE, rng, key=48 + song.key
            )
        elif name == "choir":
            audio = choir(speakers, SCENE_S, SAMPLE_RATE, rng)
        elif name in players:
            audio = players[name][rng.integers(len(players[name]))](song, SCENE_S, rng)
        else:
            continue
        audio = np.pad(audio, (0, max(0, int(SCENE_S * SAMPLE_RATE) - len(audio))))[
            : int(SCENE_S * SAMPLE_RATE)
        ]
        if rms(audio) < 1e-4:
            continue
        if rng.random() < 0.5:
            audio = equalised(audio, rng, 4)
        if name not in ROLES["bass"] and rng.random() < 0.5:
            audio = reverberated(audio, SAMPLE_RATE, rng)
        tracks[name] = audio / rms(audio) * 10 ** (rng.uniform(-9, 0) / 20)
    return tracks


def _mastered(mix: NDArray[np.float32], rng: Rng) -> NDArray[np.float32]:
    if rng.random() < 0.5:
        mix = compressed(mix, SAMPLE_RATE, rng)
    if rng.random() < 0.25:
        mix = saturated(mix, rng)
    if rng.random() < 0.15:
        mix = encoded(mix, SAMPLE_RATE, rng)
    return mix / (rms(mix) + 1e-9) * np.float32(0.1)


def _audible(tracks: Mapping[str, NDArray[np.float32]]) -> list[str]:
    loudest = rms(np.sum(list(tracks.values()), axis=0))
    return [name for name, audio in tracks.items() if 20 * np.log10(rms(audio) / loudest) > AUDIBLE_DB]


def scene_takes(
    players: Mapping[str, Sequence[Player]], speakers: Sequence[Speaker], rng: Rng, count: int, separated: int
) -> Iterator[Take]:
    """``count`` mixed scenes, and the embedded separator's stems of the first ``separated`` of them."""
    separator = Spleeter("cpu", SeparationOptions())
    for number in range(count):
        tracks = scene_tracks(players, speakers, rng)
        if not tracks:
            continue
        mix = _mastered(np.sum(list(tracks.values()), axis=0).astype(np.float32), rng)
        names = _audible(tracks)
        yield Take(tuple(class_index(name) for name in names), "scene mix", mix)
        if number >= separated:
            continue
        vocals, accompaniment = _stems(separator, mix)
        for stem, wanted in ((vocals, True), (accompaniment, False)):
            heard = [name for name in names if (name in VOCALS) == wanted]
            if 20 * np.log10(rms(stem) / rms(mix) + 1e-9) > STEM_DB:
                level = np.float32(0.1 / rms(stem))
                yield Take(tuple(class_index(name) for name in heard), "scene stem", stem * level)


def _stems(separator: Spleeter, mix: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vocals and accompaniment of a mono mix, ``(frames,)`` each."""
    song = soxr.resample(mix, SAMPLE_RATE, SONG_RATE).astype(np.float32)
    stream = StreamingSeparation(separator)
    stream.open("scene", Normalisation())
    results = [*stream.push("scene", np.stack([song, song])), *stream.finish("scene"), *stream.flush()]
    parts = [result.stems.mean(1) for result in results if isinstance(result, Separated)]
    stems = np.concatenate(parts, axis=1)
    vocals, accompaniment = (soxr.resample(stem, SONG_RATE, SAMPLE_RATE).astype(np.float32) for stem in stems)
    return vocals, accompaniment
