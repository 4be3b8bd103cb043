"""Quality of a separator on songs whose true stems are known: the signal-to-distortion ratio, in dB.

    python -m benchmarks.sdr FOLDER [--separator htdemucs_ft] [--tracks 5]

``FOLDER`` has the shape of the test set of MUSDB18-HQ (Rafii et al. 2019): a folder for each track, with
``mixture.wav``, ``drums.wav``, ``bass.wav``, ``other.wav`` and ``vocals.wav``, all stereo at 44.1 kHz and as long as
the mixture.

Each mixture takes the way of a user's song: upload, check, decode, separate, store as FLAC in Parquet, in a store of
its own that is deleted afterwards. The stems are read back from there, so the figures include the rounding of the
stored audio. The device and all options of the separation are those of the settings, also ``BANDSCOPE_STEMS``.

- An ``accompaniment`` is compared with drums + bass + other, and the rest of a preset with all that its other stems do
  not name.
- Stems that MUSDB does not have, such as guitar and piano, are added to ``other``, of which they are a part, or to the
  rest. If only some of them are computed, the separator is refused.

``benchmarks/sdr_figures.py`` defines the two ratios. The table has their median and mean over tracks. Published figures
are usually "v4 median" (SiSEC 2018, and papers that use museval) or "MDX mean" (the MDX challenges, and leaderboards of
separators). The last line is JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.cli.ingest import LocalFile, ingest
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.orchestration.resources import Models, models_here
from bandscope_dagster.pipeline.analyze import ModelSource, analyze_batch
from bandscope_dagster.pipeline.outcomes import SongFailed
from bandscope_dagster.pipeline.plan import SongPlanner
from bandscope_dagster.pipeline.uploads import UPLOADS, list_uploads
from bandscope_dagster.pipeline.validate import check_songs
from bandscope_dagster.separation.chosen_stems import stems_of
from bandscope_dagster.separation.presets import find_preset
from bandscope_dagster.settings import Settings, load_settings
from bandscope_dagster.songs.stored_audio import stored_samples
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.schemas import STEMS
from benchmarks.sdr_figures import SdrMeter, StemFigures, summarize
from benchmarks.separation import OneModel

Audio = NDArray[np.float32]

SOURCES: Final = ("drums", "bass", "other", "vocals")
OTHER: Final = "other"
MIXTURE_FILE: Final = "mixture.wav"
PARTS: Final[Mapping[str, Sequence[str]]] = {stem: [stem] for stem in SOURCES} | {
    "accompaniment": ["drums", "bass", "other"]
}
"""Stem of a separator → the true stems that it should be the sum of, unless it is the rest of a preset."""


class BadTracks(BandscopeError):
    """The folder cannot be measured; the message names the file and what is wrong."""


def find_tracks(folder: Path) -> list[Path]:
    """The folders of the tracks, in the order of their names.

    Raises:
        BadTracks: there is none, or one lacks a file.
    """
    tracks = sorted(path.parent for path in folder.glob(f"*/{MIXTURE_FILE}"))
    if not tracks:
        raise BadTracks(f"{folder} has no folder with a {MIXTURE_FILE}; give the folder that has the tracks")
    for track in tracks:
        for source in SOURCES:
            if not (track / f"{source}.wav").is_file():
                raise BadTracks(f"{track} has no {source}.wav")
    return tracks


@dataclass(frozen=True, slots=True)
class Measured:
    """A comparison: the sum of some stems of the separator with the sum of some true stems."""

    estimated: tuple[str, ...]
    true: tuple[str, ...]


def measured_stems(separator: str, stems: Sequence[str]) -> dict[str, Measured]:
    """Stem → what is compared, for a model or a preset of which ``stems`` are computed.

    Raises:
        BadTracks: no stem can be compared, or stems that are part of a true one are not computed.
    """
    preset = find_preset(separator)
    recipes = {stem: (separator,) for stem in stems_of(separator)} if preset is None else dict(preset.recipes)
    rest = next((stem for stem, models in recipes.items() if not models), None)
    true = {stem: tuple(sources) for stem, sources in PARTS.items()}
    if rest is not None:
        named = {source for stem in recipes if stem != rest for source in PARTS.get(stem, ())}
        true[rest] = tuple(source for source in SOURCES if source not in named)
    found = {stem: Measured((stem,), true[stem]) for stem in stems if true.get(stem)}
    if not found:
        raise BadTracks(f"none of {', '.join(stems)} can be compared with {', '.join(SOURCES)}")
    whole = OTHER if OTHER in recipes else rest
    if whole is not None and whole in found:
        found[whole] = replace(found[whole], estimated=(whole, *_taken_from(whole, recipes, rest, stems)))
    return found


def _taken_from(
    whole: str, recipes: Mapping[str, Sequence[str]], rest: str | None, stems: Sequence[str]
) -> Sequence[str]:
    """The stems that ``whole``, the other or the rest, lacks because its models or other recipes have them apart.

    Raises:
        BadTracks: one of them is not computed, or is part of the estimate of another model of a mean.
    """
    if whole == rest:
        lacks = [[stem for stem in recipes if stem != rest and stem not in PARTS]]
    else:
        lacks = [[stem for stem in stems_of(model) if stem not in PARTS] for model in recipes[whole]]
    first, *others = lacks
    missing = [stem for stem in first if stem not in stems]
    if missing or any(set(each) != set(first) for each in others):
        names = ", ".join(dict.fromkeys(stem for each in lacks for stem in each))
        raise BadTracks(
            f"{whole!r} cannot be compared: the true one contains {names}, which the separator has apart and of which "
            f"not all are computed. Compute them too, or leave {whole} out, with BANDSCOPE_STEMS or in the preset."
        )
    return first


def measure_track(track: Path, settings: Settings, models: ModelSource) -> dict[str, StemFigures]:
    """Stem → its figures on one track, through the product in a temporary store.

    Raises:
        BadTracks: a file has another rate, another length or other channels than it should.
        BandscopeError: the mixture is rejected.
    """
    with tempfile.TemporaryDirectory() as place:
        settings = settings.model_copy(update={"storage": place})
        parts = measured_stems(settings.separator, models.separator().stems)
        song_id = _process(track, settings, models)
        meter = SdrMeter(list(parts))
        with ExitStack() as files:
            truth = _Truth(track, files)
            for estimate in _estimates(settings, song_id, parts):
                frames = next(iter(estimate.values())).shape[1]
                true = {stem: truth.next(part.true, frames) for stem, part in parts.items()}
                meter.add(true, estimate)
                truth.advance()
            truth.check_end()
        return meter.finish()


def _process(track: Path, settings: Settings, models: ModelSource) -> str:
    """Upload the mixture and compute its stems; returns the song's id."""
    store = settings.open_store()
    mixture = track / MIXTURE_FILE
    ingest(store, LocalFile(mixture, f"{UPLOADS}/{MIXTURE_FILE}", mixture.stat().st_size), replace=False)
    uploads = list_uploads(store).by_song
    planner = SongPlanner("benchmark", settings.flac_bits)
    (checked,) = check_songs(list(uploads), uploads, store, settings.limits, planner, reuse=False)
    if checked.error is not None:
        raise BadTracks(f"{mixture}: {checked.error}")
    (outcome,) = analyze_batch(list(uploads), ["stems"], store, models, settings, "benchmark", reuse=False)
    if isinstance(outcome, SongFailed):
        raise outcome.error
    return outcome.plan.song_id


def _estimates(settings: Settings, song_id: str, parts: Mapping[str, Measured]) -> Iterator[dict[str, Audio]]:
    """Each stored block: measured stem → ``(2, frames)``."""
    for rows in read_blocks(settings.open_store(), STEMS, song_id):
        stored = {row["stem"]: stored_samples(row) for row in rows}
        yield {
            stem: np.sum([stored[each] for each in part.estimated], axis=0) for stem, part in parts.items()
        }


class _Truth:
    """The true stems of a track, read beside the estimates."""

    def __init__(self, track: Path, files: ExitStack) -> None:
        self._files = {
            source: files.enter_context(soundfile.SoundFile(track / f"{source}.wav")) for source in SOURCES
        }
        for file in self._files.values():
            if (file.samplerate, file.channels) != (SAMPLE_RATE, 2):
                raise BadTracks(
                    f"{file.name} has {file.channels} channels at {file.samplerate} Hz, not 2 at {SAMPLE_RATE} Hz"
                )
        self._block: dict[str, Audio] = {}

    def next(self, sources: Sequence[str], frames: int) -> Audio:
        """The next frames of the sum of true stems, ``(2, frames)``."""
        return np.sum([self._read(source, frames) for source in sources], axis=0)

    def advance(self) -> None:
        """Go on to the frames after those that were read last."""
        self._block.clear()

    def check_end(self) -> None:
        """Raise BadTracks if a file is longer than its mixture."""
        for file in self._files.values():
            if 0 < file.tell() < len(file):
                raise BadTracks(f"{file.name} is longer than {MIXTURE_FILE}")

    def _read(self, source: str, frames: int) -> Audio:
        if source not in self._block:
            file = self._files[source]
            self._block[source] = file.read(frames, dtype="float32", always_2d=True).T
            if self._block[source].shape[1] < frames:
                raise BadTracks(f"{file.name} is shorter than {MIXTURE_FILE}")
        return self._block[source]


def print_table(tracks: Sequence[Mapping[str, StemFigures]]) -> None:
    """The summary of every stem."""
    found = summarize(tracks)
    names = list(asdict(next(iter(found.values()))))
    print(f"{'':16}" + "".join(f"{name.replace('_', ' '):>13}" for name in names))
    rows = {stem: list(asdict(summary).values()) for stem, summary in found.items()}
    for stem, values in rows.items():
        print(f"{stem:16}" + "".join(f"{'-' if value is None else f'{value:.2f}':>13}" for value in values))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure a separator on songs with known stems.")
    parser.add_argument("folder", type=Path, help="of tracks, as the test set of MUSDB18-HQ")
    parser.add_argument("--separator", help="as BANDSCOPE_SEPARATOR (default: that of the settings)")
    parser.add_argument("--tracks", type=int, help="only the first so many (default: all)")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings()
        if given.separator is not None:
            settings = settings.model_copy(update={"separator": given.separator})
        models_here(settings, [STEMS.name])  # an unknown name is refused before the tracks are looked for
        models = OneModel(Models(settings).separator)
        found: list[dict[str, StemFigures]] = []
        for track in find_tracks(given.folder)[: given.tracks]:
            found.append(measure_track(track, settings, models))
            figures = ", ".join(f"{stem} {each.mdx:.2f}" for stem, each in found[-1].items())
            print(f"{track.name}: MDX {figures}", file=sys.stderr)
    except BandscopeError as error:
        sys.exit(str(error))
    print(f"{settings.separator}, {len(found)} tracks; signal-to-distortion ratio in dB")
    print_table(found)
    summary = {stem: asdict(each) for stem, each in summarize(found).items()}
    print(json.dumps({"separator": settings.separator, "tracks": len(found), "sdr_db": summary}))


if __name__ == "__main__":
    main()
