"""The tagging benchmark: figures that can be checked by hand, and a complete run on a real excerpt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from instrument_labels import OPENMIC

from bandscope_dagster.tagging.instruments_network import CLASSES
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from benchmarks.tagging import main
from benchmarks.tagging_labels import KINDS, BadLabels, read_labels
from benchmarks.tagging_quality import Labels, Verdict, Verdicts, average_precision, evaluate


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


def verdicts(**scores: dict[str, float | None]) -> Verdicts:
    """An instrument is present from a score of 0.5, or if it is named without one."""
    return {
        file: {name: Verdict(score is None or score >= 0.5, score) for name, score in found.items()}
        for file, found in scores.items()
    }


LABELS: Labels = {
    "a": {"piano": True, "drums": False},
    "b": {"piano": True, "drums": True},
    "c": {"piano": False, "drums": True},
}
VERDICTS = verdicts(
    a={"piano": 0.9, "drums": 0.6}, b={"piano": 0.3, "drums": 0.8}, c={"drums": 0.5, "flute": 1.0}
)


def test_decisions_are_counted_by_instrument_and_over_all() -> None:
    table = evaluate(LABELS, VERDICTS, {})
    piano, drums, micro = table["piano"], table["drums"], table["micro"]
    assert (piano.precision, piano.recall, piano.f1, piano.support) == (1, 1 / 2, pytest.approx(2 / 3), 2)
    assert (drums.precision, drums.recall, drums.f1) == (pytest.approx(2 / 3), 1, pytest.approx(4 / 5))
    assert (micro.precision, micro.recall, micro.support) == (3 / 4, 3 / 4, 4)
    assert table["macro"].f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert piano.average_precision == 1
    assert drums.average_precision == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_instruments_that_no_label_names_are_not_judged() -> None:
    assert list(evaluate(LABELS, VERDICTS, {})) == ["drums", "piano", "macro", "micro"]


def test_without_scores_what_is_named_is_predicted_and_nothing_is_ranked() -> None:
    named = verdicts(**{file: dict.fromkeys(found) for file, found in VERDICTS.items()})
    table = evaluate(LABELS, named, {})
    assert (table["piano"].f1, table["drums"].recall) == (1, 1)
    assert {row.average_precision for row in table.values()} == {None}


def test_a_pair_of_file_and_instrument_without_a_label_is_not_judged() -> None:
    asked = {**LABELS, "c": {"drums": True}}
    found = {**VERDICTS, "c": {"piano": Verdict(True, 0.99), "drums": Verdict(True, 0.5)}}
    assert evaluate(asked, found, {})["piano"] == evaluate(LABELS, VERDICTS, {})["piano"]
    assert evaluate(LABELS, found, {})["piano"].precision == 1 / 2


def test_an_instrument_that_is_in_no_file_is_not_judged() -> None:
    assert "harp" not in evaluate({"a": {"piano": True, "harp": False}}, VERDICTS, {})


def test_a_general_name_is_found_by_its_kinds_with_the_highest_of_their_scores() -> None:
    labels: Labels = {"a": {"guitar": True}, "b": {"guitar": True}, "c": {"guitar": False}}
    found = verdicts(
        a={"acoustic guitar": 0.2, "electric guitar": 0.7}, b={"guitar": 0.6}, c={"acoustic guitar": 0.65}
    )
    guitar = evaluate(labels, found, KINDS)["guitar"]
    assert (guitar.precision, guitar.recall) == (pytest.approx(2 / 3), 1)
    assert guitar.average_precision == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    acoustic = evaluate({"b": {"acoustic guitar": True}}, found, KINDS)["acoustic guitar"]
    assert acoustic.recall == 0, "a guitar is no acoustic guitar"


def test_every_kind_is_in_the_vocabulary() -> None:
    instruments = load_vocabulary().instruments()
    assert set(KINDS) | set().union(*KINDS.values()) <= instruments


def test_the_classes_of_openmic_are_found_by_our_own_tagger_but_for_two() -> None:
    vocabulary = load_vocabulary()
    ours = {vocabulary.match(label).instrument for label in CLASSES}
    names = {vocabulary.match(name).instrument for name in OPENMIC}
    assert len(names) == 20
    assert {name for name in names if not ours & (KINDS.get(name, frozenset()) | {name})} == {
        "cymbal",
        "ukulele",
    }


OPENMIC_HEADER = "sample_key,instrument,relevance,num_responses"


def test_the_labels_of_openmic_are_read_with_their_masks(tmp_path: Path) -> None:
    rows = (
        "000046_3840,clarinet,0.17105,3",
        "000046_3840,flute,0.0,3",
        "000046_3840,synthesizer,0.5,3",
        "000135_483840,mallet_percussion,1.0,3",
    )
    assert read_labels(write_labels(tmp_path, *rows, header=OPENMIC_HEADER)) == {
        "audio/000/000046_3840.ogg": {"clarinet": False, "flute": False, "synthesizer": True},
        "audio/000/000135_483840.ogg": {"mallets": True},
    }


def test_a_folder_of_the_shape_of_openmic_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("000046_3840", "000135_483840", "142001_7680"):
        path = tmp_path / "audio" / key[:3] / f"{key}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(int(key[:6])).normal(0, 0.1, (220_500, 1))
        soundfile.write(path, noise, 44_100, format="OGG", subtype="VORBIS")
    rows = (
        "000046_3840,voice,0.9,3",
        "000135_483840,voice,0.1,3",
        "000135_483840,cymbals,0.8,3",
        "142001_7680,synthesizer,0.6,3",
        "142001_7680,ukulele,0.2,3",
    )
    labels = write_labels(tmp_path, *rows, header=OPENMIC_HEADER)
    main(["--folder", str(tmp_path), "--labels", str(labels), "--device", "cpu"])
    table, last = capsys.readouterr().out.strip().rsplit("\n", 1)
    by_name = {line.split()[0]: line.split() for line in table.splitlines() if line[:1].isalpha()}
    assert "3 files, 15.0 s of audio, present from the bound of each label" in table
    assert [by_name[name][-1] for name in ("cymbal", "synthesizer", "vocals", "macro")] == [
        "1",
        "1",
        "1",
        "3",
    ]
    assert "ukulele" not in by_name, "no judged clip has one"
    assert "bandscope-instruments never names cymbal\n" in table
    assert 0 < json.loads(last)["average_precision"] <= 1


def test_labels_are_read_in_any_words_of_the_vocabulary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = read_labels(write_labels(tmp_path, "b/x.wav,Drum Kit", "b/x.wav,lead vocals", "a.wav,splork"))
    assert labels == {
        "b/x.wav": {"drums": True, "vocals": True, "splork": False},
        "a.wav": {"drums": False, "vocals": False, "splork": True},
    }
    assert "line 4: 'splork' is not in the vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("song,tag", ["a.wav,drums"], "it must have the columns file,instrument, or those of OpenMIC-2018"),
        (
            OPENMIC_HEADER,
            ["000046_3840,flute,0.1,3", "000046_3840,,1,3"],
            "line 3: a row needs sample_key and",
        ),
        (
            OPENMIC_HEADER,
            ["000046_3840,flute,1.5,3"],
            r"line 2: relevance must be .* from 0 to 1, not '1\.5'",
        ),
        (OPENMIC_HEADER, ["000046_3840,flute,often,3"], "line 2: relevance must be .*, not 'often'"),
        (OPENMIC_HEADER, [], "has no rows"),
        ("file,instrument", ["a.wav,drums", "b.wav"], "line 3: a row needs file and instrument"),
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
