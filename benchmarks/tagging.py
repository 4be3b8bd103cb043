"""Quality and speed of a tagger on songs that were labelled by hand.

    python -m benchmarks.tagging [--folder DIR --labels labels.csv] [--tagger bandscope-instruments] [--threshold 0.2]
                                 [--device auto]

``labels.csv`` has the header ``file,instrument`` and one row for each instrument of a file. The file is its path in the
folder ("album/song.flac"); the instrument is any word that the vocabulary knows. Without a folder, the benchmark uses
the real excerpt in the package stempeg: its mixture and its true stems of drums, bass and vocals.

OpenMIC-2018 (Humphrey, Durand & McFee, ISMIR 2018; 20,000 clips of 10 s, 20 classes) is read as it is published:

    python -m benchmarks.tagging --folder openmic-2018 --labels openmic-2018/openmic-2018-aggregated-labels.csv

A pair of clip and instrument is positive from a relevance of 0.5. Only the pairs in its table are judged, because
people were not asked about the others. Its file openmic-2018.npz has the same labels as a pickle, which is not read.

Each file is decoded, resampled, cut into windows and tagged by the pipeline's own parts, with the settings
``BANDSCOPE_TAG_…`` and ``BANDSCOPE_MODELS_FOLDER``. An instrument is found in a file if ``instrument_catalog`` would
have it as present: the same code decides (``songs/presence.py``). Its score is the one by which the song is judged
there: the mean over the best windows or over all windows, by the tagger's rule. ``--threshold`` is
``BANDSCOPE_PRESENT_FROM``.

Only instruments that occur in the labels are judged. In a table by hand, a file without a row for one of them counts as
without it, so a labeller has to listen for all of them in every file. Other instruments that a tagger finds are not
judged, because the labels do not say that they are absent. Instruments are compared by their names in the vocabulary. A
general name in the labels is found by each of its kinds, with the highest of their scores: "bass" by a bass guitar,
"synthesizer" by a synth pad (``KINDS`` in ``tagging_labels.py``). An "acoustic guitar" is not found by a "guitar".

Precision is 0 if nothing is found. Macro averages are over instruments, micro averages over all verdicts. The speed is
seconds of audio per second of wall time, from reading the files, without loading the model. The last line is JSON; its
average precision is the macro average, and null for a tagger without scores.
"""

import argparse
import importlib.util
import io
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import polars as pl
import soundfile

from bandscope_dagster.audio.blocks import MIXTURE, SAMPLE_RATE
from bandscope_dagster.audio.decode import decode
from bandscope_dagster.device import resolve_device
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.settings import Settings, load_settings
from bandscope_dagster.songs.presence import judged
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS
from bandscope_dagster.storage.tables.song_tables import arrow_table
from bandscope_dagster.tagging.presence_rule import PresenceRule, PresentFrom
from bandscope_dagster.tagging.protocol import Tagger
from bandscope_dagster.tagging.registry import TAGGERS, load_tagger, present_from
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue
from benchmarks.tagging_labels import KINDS, BadLabels, check_files, read_labels
from benchmarks.tagging_quality import Verdict, Verdicts, evaluate, print_table

DEFAULT = Settings.model_fields["tagger"].default
FILES_AT_ONCE = 64  # a file keeps up to a window and a half of audio until all of these are tagged

EXCERPT = "The Easton Ellises - Falcon 69.stem.mp4"
EXCERPT_STREAMS = ("mixture", "drums", "bass", "other", "vocals")
# The stem "other" has several unlisted instruments, so it is left out.
EXCERPT_LABELS = {
    "mixture": ("drums", "bass", "vocals"),
    "drums": ("drums",),
    "bass": ("bass",),
    "vocals": ("vocals",),
}


def tag_files(
    tagger: Tagger, folder: Path, files: Sequence[str], rules: PresentFrom
) -> tuple[Verdicts, float]:
    """The tagger's verdicts on each file, and the seconds of audio.

    Raises:
        BadLabels: a file cannot be decoded.
    """
    verdicts: dict[str, Mapping[str, Verdict]] = {}
    frames = 0
    for start in range(0, len(files), FILES_AT_ONCE):
        queue, limits = WindowQueue(tagger), load_settings().limits
        sources: dict[str, SourceTags] = {}
        for file in files[start : start + FILES_AT_ONCE]:
            source = sources[file] = SourceTags(MIXTURE, tagger, SAMPLE_RATE)
            try:
                with (folder / file).open("rb") as stream:
                    for block in decode(stream, limits):
                        frames += block.shape[1]
                        queue.add(source, source.push(block))
            except BandscopeError as error:
                raise BadLabels(
                    f"{file} cannot be judged ({error}); remove its rows from the labels"
                ) from error
            queue.add(source, source.finish())
        queue.flush()
        verdicts |= {file: verdicts_on(source, rules) for file, source in sources.items()}
    return verdicts, frames / SAMPLE_RATE


def verdicts_on(source: SourceTags, rules: PresentFrom) -> dict[str, Verdict]:
    """Instrument → verdict, as the catalogs have them, for every instrument in the file's tags."""
    if source.error is not None:
        raise source.error
    shared = {"song_id": "song", "model": source.tagger.identity.name, "detected_at": datetime.now(UTC)}
    tags = arrow_table(INSTRUMENT_TAGS, (row | shared for row in source.rows(load_vocabulary())))
    found = judged(pl.DataFrame(tags).lazy(), rules).select("instrument", "windows", "song_score").collect()
    return {instrument: Verdict(windows > 0, score) for instrument, windows, score in found.iter_rows()}


@contextmanager
def excerpt() -> Iterator[tuple[Path, Path]]:
    """Yield a folder with the mixture and three true stems of stempeg's excerpt, and the table of their labels."""
    spec = importlib.util.find_spec("stempeg")  # not imported: that needs an ffmpeg program
    if spec is None or not spec.submodule_search_locations:
        raise BadLabels(
            "The package stempeg, which has the default songs, is not installed: run `pip install bandscope[test]`, or "
            "give your own songs with --folder and --labels"
        )
    content = (Path(spec.submodule_search_locations[0]) / "data" / EXCERPT).read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = ["file,instrument"]
        for number, stream in enumerate(EXCERPT_STREAMS):
            if stream not in EXCERPT_LABELS:
                continue
            with av.open(io.BytesIO(content)) as container:
                frames = [frame.to_ndarray() for frame in container.decode(audio=number)]
            soundfile.write(folder / f"{stream}.wav", np.concatenate(frames, axis=1).T, SAMPLE_RATE, "FLOAT")
            lines += [f"{stream}.wav,{instrument}" for instrument in EXCERPT_LABELS[stream]]
        labels = folder / "labels.csv"
        labels.write_text("\n".join(lines))
        yield folder, labels


def measure(
    folder: Path, labels_path: Path, name: str, threshold: float | None, device: str
) -> dict[str, float | None]:
    """Tag and judge the files of a folder, and print the table; returns the figures of the line of JSON."""
    labels = read_labels(labels_path)
    check_files(labels, folder, labels_path)
    settings, device = load_settings(), resolve_device(device)
    tagger = load_tagger(name, settings.models_path, device, settings.tagging)
    rules = present_from(threshold, settings.audible_db)
    start = time.perf_counter()
    verdicts, seconds = tag_files(tagger, folder, list(labels), rules)
    factor = seconds / (time.perf_counter() - start)

    rule = in_words(rules.get(name, rules[None]))
    print(f"{name} on {device}: {len(labels)} files, {seconds:.1f} s of audio, {rule}\n")
    table = evaluate(labels, verdicts, KINDS)
    print_table(table)
    known = {instrument for found in verdicts.values() for instrument in found}
    if unknown := [each for each in list(table)[:-2] if not known & (KINDS.get(each, frozenset()) | {each})]:
        print(f"\n{name} never names {', '.join(unknown)}")
    print(f"\n{factor:.1f} seconds of audio per second")
    quality = {
        "macro_f1": table["macro"].f1,
        "micro_f1": table["micro"].f1,
        "average_precision": table["macro"].average_precision,
        "realtime_factor": factor,
    }
    return {key: None if value is None else round(value, 4) for key, value in quality.items()}


def in_words(rule: PresenceRule) -> str:
    """The rule by which an instrument is present, for the heading."""
    bound = "the bound of each label" if rule.bounds else f"{rule.bound:g}"
    if rule.best_share is None:
        return f"present from {bound}"
    windows = f"the best {rule.best_share:.0%} of the windows, at least {rule.fewest}"
    return f"present from {bound}, as the mean of {windows}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Judge a tagger on songs that were labelled by hand.")
    parser.add_argument("--folder", type=Path, help="the songs (default: the excerpt in stempeg)")
    parser.add_argument("--labels", type=Path, help="CSV of either form; needed with --folder")
    parser.add_argument("--tagger", choices=list(TAGGERS), default=DEFAULT, help=f"default: {DEFAULT}")
    parser.add_argument(
        "--threshold", type=float, help="as BANDSCOPE_PRESENT_FROM (default: the tagger's own rule)"
    )
    parser.add_argument("--device", default="auto", help="as BANDSCOPE_DEVICE (default: auto)")
    chosen = parser.parse_args(arguments)
    if (chosen.folder is None) != (chosen.labels is None):
        parser.error("--folder and --labels must be given together")
    try:
        if chosen.folder is None:
            with excerpt() as (folder, labels):
                found = measure(folder, labels, chosen.tagger, chosen.threshold, chosen.device)
        else:
            found = measure(chosen.folder, chosen.labels, chosen.tagger, chosen.threshold, chosen.device)
    except (BandscopeError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
