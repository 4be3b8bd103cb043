"""The tagging benchmark: figures that can be checked by hand, and a complete run on a real excerpt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.tagging import BadLabels, main, read_labels
from benchmarks.tagging_quality import average_precision, evaluate


def write_labels(folder: Path, *rows: str, header: str = "file,instrument") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]))
    return path


def write_song(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (88_200, 2)), 44_100)


@pytest.mark.parametrize(
    ("truth", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 5 / 6),  # the example in scikit-learn's documentation
        ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], 1.0),
        ([0, 0, 0, 1], [0.9, 0.8, 0.2, 0.1], 1 / 4),
        (
            [1, 0, 0, 1],
            [0.5, 0.5, 0.5, 0.5],
            1 / 2,
        ),  # without a ranking: the share of files that have the instrument
        ([1, 0, 1], [0.7, 0.7, 0.1], 1 / 2 * 1 / 2 + 1 / 2 * 2 / 3),  # two files reach the threshold together
    ],
)
def test_average_precision_is_that_of_scikit_learn(
    truth: list[int], scores: list[float], expected: float
) -> None:
    assert average_precision(np.array(truth, bool), np.array(scores)) == pytest.approx(expected)


LABELS = {"a": frozenset({"piano"}), "b": frozenset({"piano", "drums"}), "c": frozenset({"drums"})}
SCORES = {
    "a": {"piano": 0.9, "drums": 0.6},
    "b": {"piano": 0.3, "drums": 0.8},
    "c": {"drums": 0.5, "flute": 1.0},
}


def test_decisions_are_counted_by_instrument_and_over_all() -> None:
    table = evaluate(LABELS, SCORES, threshold=0.5)
    piano, drums, micro = table["piano"], table["drums"], table["micro"]
    assert (piano.precision, piano.recall, piano.f1, piano.support) == (1, 1 / 2, pytest.approx(2 / 3), 2)
    assert (drums.precision, drums.recall, drums.f1) == (pytest.approx(2 / 3), 1, pytest.approx(4 / 5))
    assert (micro.precision, micro.recall, micro.support) == (3 / 4, 3 / 4, 4)
    assert table["macro"].f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert piano.average_precision == 1
    assert drums.average_precision == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_instruments_that_no_label_names_are_not_judged() -> None:
    assert list(evaluate(LABELS, SCORES, threshold=0.5)) == ["drums", "piano", "macro", "micro"]


def test_without_scores_what_is_named_is_predicted_and_nothing_is_ranked() -> None:
    named = {file: dict.fromkeys(found) for file, found in SCORES.items()}
    table = evaluate(LABELS, named, threshold=0.5)
    assert (table["piano"].f1, table["drums"].recall) == (1, 1)
    assert {row.average_precision for row in table.values()} == {None}


def test_labels_are_read_in_any_words_of_the_vocabulary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = read_labels(write_labels(tmp_path, "b/x.wav,Drum Kit", "b/x.wav,lead vocals", "a.wav,splork"))
    assert labels == {"b/x.wav": {"drums", "vocals"}, "a.wav": {"splork"}}
    assert "line 4: 'splork' is not in the vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("song,tag", ["a.wav,drums"], "it must have the columns file,instrument"),
        ("file,instrument", ["a.wav,drums", "b.wav"], "line 3: a row needs a file and an instrument"),
        ("file,instrument", [], "has no rows"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    tmp_path: Path, header: str, rows: list[str], message: str
) -> None:
    with pytest.raises(BadLabels, match=message):
        read_labels(write_labels(tmp_path, *rows, header=header))


def test_labels_of_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, "gone.wav,drums")
    with pytest.raises(SystemExit, match=r"names 1 files that are not in .*: gone\.wav"):
        main(["--folder", str(tmp_path), "--labels", str(labels)])


def test_a_labelled_file_that_is_not_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("drums?")
    labels = write_labels(tmp_path, "notes.txt,drums")
    with pytest.raises(SystemExit, match=r"notes\.txt cannot be judged"):
        main(["--folder", str(tmp_path), "--labels", str(labels), "--device", "cpu"])


def test_files_without_labels_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_song(tmp_path / "album" / "noise.wav")
    write_song(tmp_path / "extra.wav")
    main(["--folder", str(tmp_path), "--labels", str(write_labels(tmp_path, "album/noise.wav,drums"))])
    output = capsys.readouterr()
    assert "1 files have no labels and are left out: extra.wav" in output.err
    assert "1 files, 2.0 s of audio" in output.out
