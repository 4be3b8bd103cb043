"""Quality and speed of a tagger on songs that were labelled by hand.

    python -m benchmarks.tagging [--folder DIR --labels labels.csv] [--tagger musicnn] [--threshold 0.2] [--device auto]

``labels.csv`` has the header ``file,instrument`` and one row for each instrument of a file. The file is its path in the
folder ("album/song.flac"); the instrument is any word that the vocabulary knows. Without a folder, the benchmark uses
the real excerpt in the package stempeg: its mixture and its true stems of drums, bass and vocals.

Each file is decoded, resampled, cut into windows and tagged by the pipeline's own parts, with the settings
``BANDSCOPE_TAG_…`` and ``BANDSCOPE_MODELS_FOLDER``. An instrument's score in a song is the mean over the audible
windows, as in ``instrument_catalog``, and the instrument is predicted if its score reaches the threshold. If a tagger
gives no scores, an instrument is predicted if it is named in any window.

Only instruments that occur in the labels are judged. A file without a row for one of them counts as without it, so a
labeller has to listen for all of them in every file. Other instruments that a tagger finds are not judged, because the
labels do not say that they are absent. Instruments are compared by their names in the vocabulary: an "acoustic guitar"
does not count as a "guitar".

Precision is 0 if nothing is predicted. Macro averages are over instruments, micro averages over all predictions. The
speed is seconds of audio per second of wall time, from reading the files, without loading the model. The last line is
JSON; its average precision is the macro average, and null for a tagger without scores.
"""

import argparse
import csv
import importlib.util
import io
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import soundfile

from bandscope_dagster.audio.blocks import MIXTURE, SAMPLE_RATE
from bandscope_dagster.audio.decode import decode
from bandscope_dagster.device import resolve_device
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.settings import load_settings
from bandscope_dagster.tagging.protocol import Tagger
from bandscope_dagster.tagging.registry import PRESENT_FROM, TAGGERS, load_tagger
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue
from benchmarks.tagging_quality import Labels, Scores, evaluate, print_table

EXCERPT = "The Easton Ellises - Falcon 69.stem.mp4"
EXCERPT_STREAMS = ("mixture", "drums", "bass", "other", "vocals")
# The stem "other" has several unlisted instruments, so it is left out.
EXCERPT_LABELS = {
    "mixture": ("drums", "bass", "vocals"),
    "drums": ("drums",),
    "bass": ("bass",),
    "vocals": ("vocals",),
}


class BadLabels(BandscopeError):
    """The labels do not fit the folder; the message has the row or file, and the expected content."""


def read_labels(path: Path) -> Labels:
    """The labels of every file in the table.

    Raises:
        BadLabels: the header is wrong, a row is incomplete, or there are no rows.
    """
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        if rows.fieldnames is None or not {"file", "instrument"} <= set(rows.fieldnames):
            raise BadLabels(
                f"{path} has the header {rows.fieldnames}; it must have the columns file,instrument"
            )
        labels: defaultdict[str, set[str]] = defaultdict(set)
        vocabulary = load_vocabulary()
        for row in rows:
            file, words = (row["file"] or "").strip(), (row["instrument"] or "").strip()
            if not file or not words:
                raise BadLabels(f"{path}, line {rows.line_num}: a row needs a file and an instrument")
            match = vocabulary.match(words)
            if match.family is None:
                print(f"{path}, line {rows.line_num}: {words!r} is not in the vocabulary", file=sys.stderr)
            labels[file].add(match.instrument)
    if not labels:
        raise BadLabels(f"{path} has no rows below its header; each names a file and one of its instruments")
    return {file: frozenset(instruments) for file, instruments in labels.items()}


def check_files(labels: Labels, folder: Path, labels_path: Path) -> None:
    """Print the files of ``folder`` without labels, which are left out.

    Raises:
        BadLabels: a file with labels does not exist.
    """
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if missing := sorted(set(labels) - present):
        raise BadLabels(
            f"{labels_path} names {len(missing)} files that are not in {folder}: {_some(missing)}. "
            f"Correct the names, or remove their rows."
        )
    if labels_path.is_relative_to(folder):
        present.discard(labels_path.relative_to(folder).as_posix())
    if unlabelled := sorted(present - set(labels)):
        print(
            f"{len(unlabelled)} files have no labels and are left out: {_some(unlabelled)}", file=sys.stderr
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def tag_files(tagger: Tagger, folder: Path, files: Sequence[str]) -> tuple[Scores, float]:
    """The tagger's scores for each file, and the seconds of audio.

    Raises:
        BadLabels: a file cannot be decoded.
    """
    queue, limits = WindowQueue(tagger), load_settings().limits
    sources: dict[str, SourceTags] = {}
    frames = 0
    for file in files:
        source = sources[file] = SourceTags(MIXTURE, tagger, SAMPLE_RATE)
        try:
            with (folder / file).open("rb") as stream:
                for block in decode(stream, limits):
                    frames += block.shape[1]
                    queue.add(source, source.push(block))
        except BandscopeError as error:
            raise BadLabels(f"{file} cannot be judged ({error}); remove its rows from the labels") from error
        queue.add(source, source.finish())
    queue.flush()
    return {file: song_scores(source) for file, source in sources.items()}, frames / SAMPLE_RATE


def song_scores(source: SourceTags) -> dict[str, float | None]:
    """The mean score of each instrument over the audible windows; None if it has no scores."""
    if source.error is not None:
        raise source.error
    scores: defaultdict[str, list[float | None]] = defaultdict(list)
    for row in source.rows(load_vocabulary()):
        if row["instrument"] is not None:
            scores[row["instrument"]].append(row["score"])
    windows = sum(window.heard.error is None for window in source.tagged)
    return {
        instrument: None if None in found else sum(score or 0.0 for score in found) / windows
        for instrument, found in scores.items()
    }


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
    threshold = PRESENT_FROM.get(name, PRESENT_FROM[None]) if threshold is None else threshold
    start = time.perf_counter()
    scores, seconds = tag_files(tagger, folder, list(labels))
    factor = seconds / (time.perf_counter() - start)

    print(f"{name} on {device}: {len(labels)} files, {seconds:.1f} s of audio, present from {threshold:g}\n")
    table = evaluate(labels, scores, threshold)
    print_table(table)
    print(f"\n{factor:.1f} seconds of audio per second")
    quality = {
        "macro_f1": table["macro"].f1,
        "micro_f1": table["micro"].f1,
        "average_precision": table["macro"].average_precision,
        "realtime_factor": factor,
    }
    return {key: None if value is None else round(value, 4) for key, value in quality.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Judge a tagger on songs that were labelled by hand.")
    parser.add_argument("--folder", type=Path, help="the songs (default: the excerpt in stempeg)")
    parser.add_argument(
        "--labels", type=Path, help="CSV with the columns file,instrument; needed with --folder"
    )
    parser.add_argument("--tagger", choices=list(TAGGERS), default="musicnn", help="default: musicnn")
    parser.add_argument(
        "--threshold", type=float, help="least score of a predicted instrument (default: the tagger's)"
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
