"""The training of the embedded tagger, on made-up sounds: bank, mixtures, both branches, bounds, figures."""

import ast
import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import training
from bandscope_dagster.tagging import musicnn
from bandscope_dagster.tagging.instruments_bounds import read_bounds
from bandscope_dagster.tagging.instruments_network import (
    CLASSES,
    EAR_FRAMES,
    LEAD,
    LENGTH,
    MEL_BANDS,
    SAMPLE_RATE,
    TRUNK_FRAMES,
    build_network,
)
from training import fitting, outcome
from training.bank import NOTHING, Bank, Take, class_index, log_mels, write_bank
from training.calibration import Windows, best_bound, calibrate, calibrated, fit_logistic, pooled
from training.evaluation import expected_calibration_error, judged, probabilities
from training.mixing import Mixer
from training.negatives import MAKERS
from training.notes import Notes
from training.production import encoded, produced, rms

TONE, NOISE = class_index("flute"), class_index("drums")


def _tone(seconds: float, hz: float) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.14 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def _takes(seed: int) -> list[Take]:
    rng = np.random.default_rng(seed)
    takes = [Take((TONE,), "tone", _tone(5, rng.uniform(300, 900))) for _ in range(12)]
    takes += [
        Take((NOISE,), "noise", 0.1 * rng.standard_normal(5 * SAMPLE_RATE).astype(np.float32))
        for _ in range(12)
    ]
    takes += [Take((), "hum", _tone(5, 50)) for _ in range(4)]
    takes += [
        Take(
            (TONE, NOISE),
            "scene mix",
            _tone(5, 440) + 0.1 * rng.standard_normal(5 * SAMPLE_RATE).astype(np.float32),
        )
    ]
    return takes


@pytest.fixture(scope="module")
def bank_files(tmp_path_factory) -> list[Path]:
    path = tmp_path_factory.mktemp("bank") / "made-up.npz"
    seconds = write_bank(path, _takes(0))
    assert seconds == pytest.approx(29 * 5, rel=0.02)
    return [path]


def test_a_window_of_the_bank_is_what_the_network_hears_of_the_same_samples():
    audio = 0.1 * np.random.default_rng(1).standard_normal(6 * SAMPLE_RATE).astype(np.float32)
    trunk, ear = log_mels(audio)
    start = 40  # mel frames
    samples = torch.from_numpy(audio[start * musicnn.HOP :][: LEAD + LENGTH])[None]
    network = build_network()
    heard = network.trunk_power(samples)[0].numpy()
    assert heard.shape == (TRUNK_FRAMES, MEL_BANDS)
    np.testing.assert_allclose(
        np.exp(trunk[start : start + TRUNK_FRAMES].astype(np.float32)), heard, rtol=0.02
    )
    heard = network.ear_power(samples)[0].numpy()
    np.testing.assert_allclose(np.exp(ear[start : start + EAR_FRAMES].astype(np.float32)), heard, rtol=0.02)


def test_takes_that_are_silent_or_short_are_left_out(tmp_path):
    takes = [Take((TONE,), "a", np.zeros(5 * SAMPLE_RATE, np.float32)), Take((TONE,), "a", _tone(1, 440))]
    write_bank(tmp_path / "bank.npz", [*takes, Take((TONE,), "a", _tone(5, 440))])
    bank = Bank([tmp_path / "bank.npz"])
    assert bank.singles[TONE][0] == [[(0, 0)]]


def test_mixtures_have_the_classes_of_their_sources(bank_files):
    bank = Bank(bank_files)
    assert set(bank.singles) == {TONE, NOISE, NOTHING}
    assert len(bank.scenes) == 1
    # Only two classes exist, so a usual mixture of up to five is not possible; easy ones have at most two.
    batch = Mixer(bank, 5).batch(64, progress=0.0)
    assert batch.trunk.shape == (64, TRUNK_FRAMES, MEL_BANDS)
    assert batch.ear.shape == (64, EAR_FRAMES, MEL_BANDS)
    assert torch.isfinite(batch.trunk).all()
    assert torch.isfinite(batch.ear).all()
    assert set(batch.heard.unique().tolist()) == {0.0, 1.0}
    others = [column for column in range(len(CLASSES)) if column not in (TONE, NOISE)]
    assert batch.heard[:, others].sum() == 0
    counts = batch.heard.sum(1)
    assert (counts == 0).any()
    assert (counts == 1).any()
    assert (counts == 2).any()


def test_the_same_seed_gives_the_same_mixtures(bank_files):
    first, second = (Mixer(Bank(bank_files), 3).batch(8, progress=0.0) for _ in range(2))
    assert torch.equal(first.trunk, second.trunk)
    assert torch.equal(first.heard, second.heard)


def test_a_source_far_below_the_mixture_is_not_heard(bank_files, monkeypatch):
    monkeypatch.setattr("training.mixing.AUDIBLE_DB", 1.0)
    assert Mixer(Bank(bank_files), 3).batch(32, progress=0.0).heard.sum() == 0


def test_the_ear_learns_and_a_stopped_training_goes_on(bank_files, tmp_path):
    notes: list[str] = []
    mixer = Mixer(Bank(bank_files), 1)
    checkpoint = tmp_path / "ear.checkpoint"
    mixtures = 12 * fitting.EAR_BATCH
    easy = mixer.batch
    mixer.batch = lambda size, progress=1.0: easy(size, 0.0)
    ear = fitting.fit_ear(mixer, mixtures, 1, checkpoint, notes.append)
    assert f"{mixtures} of {mixtures}" in notes[-1]
    again = fitting.fit_ear(mixer, mixtures, 1, checkpoint, notes.append)  # nothing is left to do
    for name, tensor in ear.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name

    batch = mixer.batch(32)
    with torch.inference_mode():
        logits = ear(fitting.ear_input(batch.ear))
    for column in (TONE, NOISE):
        right = batch.heard[:, column] > 0
        assert logits[right, column].mean() > logits[~right, column].mean()


def test_features_are_kept_and_the_perceptron_learns_from_them(bank_files, tmp_path):
    def extract():
        fitting.extract(bank_files, 2, 96, tmp_path, 1, print, shard=32, progress=0.0)

    extract()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3
    again = next(iter(before))
    again.unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    extract()
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}.items()
    with np.load(again) as made, np.load(io.BytesIO(before[again])) as earlier:
        assert all(np.array_equal(made[name], earlier[name]) for name in earlier.files)

    features, heard = fitting.read_features(tmp_path)
    mean, scale = fitting.scaling(features)
    scaled = ((features - mean) * scale).clamp(-6, 6)
    model = fitting.fit_perceptron(scaled, heard, seed=1, epochs=10)
    with torch.inference_mode():
        found = model(scaled)[:, NOISE].sigmoid()
    assert found[heard[:, NOISE] > 0].mean() > found[heard[:, NOISE] == 0].mean() + 0.3


def test_platt_scaling_is_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-(0.6 * logits - 1)))
    scale, offset = fit_logistic(logits[:, None], truth, np.ones(len(truth)), (1.0, 0.0))
    assert scale == pytest.approx(0.6, abs=0.03)
    assert offset == pytest.approx(-1, abs=0.1)


def test_each_class_is_weighed_against_the_highest_other_and_equal_ones_against_each_other():
    logits = np.array([[3.0, 1.0, -2.0], [1.0, 1.0, -2.0]])
    ones, half = np.ones(3), np.array([0.5, 0.5, 0.0])
    expected = [[3 - 0.5, 1 - 1.5, -2.0], [1 - 0.5, 1 - 0.5, -2.0]]
    found = calibrated(logits, ones, half, np.zeros(3))
    assert found == pytest.approx(1 / (1 + np.exp(-np.array(expected))))


def test_what_the_command_runs_in_other_processes_is_imported():
    """They cannot import ``__main__`` of a package. (The origins themselves need packages that tests do without.)"""
    tree = ast.parse((Path(training.__file__).parent / "__main__.py").read_text())
    imported = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    mapped = [call.args[0] for call in calls if ast.unparse(call.func) == "pool.map"]
    assert mapped and {ast.unparse(function) for function in mapped} <= imported


def test_a_bound_separates_what_can_be_separated():
    scores = np.concatenate([np.full(50, 0.1), np.full(10, 0.6)])
    assert 0.1 < best_bound(scores, scores > 0.5) <= 0.6


@pytest.mark.parametrize(
    ("rule", "score"),
    [("mean", 0.3), ("maximum", 0.9), ("best quarter", 1.1 / 3), ("noisy-or", 1 - 0.9**3 * 0.1)],
)
def test_windows_are_pooled_by_the_rule(rule, score):
    windows = np.array([[0.1], [0.9], [0.1], [0.1], [0.5]])
    found = pooled(windows, np.array([0, 0, 0, 0, 2]), 3, rule)
    assert found[:, 0] == pytest.approx([score, 0.0, 0.5])


def _windows(shift: float, seed: int, playing: tuple[int, ...]) -> Windows:
    rng = np.random.default_rng(seed)
    truth = np.zeros((400, len(CLASSES)), bool)
    truth[np.arange(400), rng.choice(playing, 400)] = True
    return Windows(np.where(truth, 2.0, -2.0) + rng.normal(0, 1, truth.shape) + shift, truth, np.arange(400))


def test_bounds_are_chosen_on_real_notes_where_there_are_any_and_round_trip(tmp_path):
    rendered = _windows(0.0, 1, tuple(range(len(CLASSES))))
    real = _windows(-1.0, 2, (TONE, NOISE))
    found = calibrate(rendered, [real])
    assert {name for name, values in found.items() if values.chosen_on == "real notes"} == {"flute", "drums"}
    scores = probabilities(real, found)
    bounds = np.array([found[name].present_from for name in CLASSES])
    others = [column for column in range(len(CLASSES)) if column not in (TONE, NOISE)]
    assert (scores[:, others] >= bounds[others]).mean() <= 0.005
    assert judged(scores, real.truth, bounds).micro_f1 > 0.85
    outcome.write_bounds(found, tmp_path / "bounds.toml")
    assert read_bounds(tmp_path / "bounds.toml") == found


def test_perfect_scores_have_perfect_figures():
    truth = np.eye(len(CLASSES), dtype=bool)
    figures = judged(truth.astype(float), truth, np.full(len(CLASSES), 0.5))
    assert (figures.micro_f1, figures.top_1, figures.mean_ap) == (1.0, 1.0, 1.0)
    assert expected_calibration_error(truth.astype(float), truth) == 0


@pytest.fixture
def notes_folder(tmp_path) -> Path:
    (tmp_path / "notes").mkdir()
    rows: list[tuple[str, str]] = []
    for number, (name, instrument) in enumerate(
        [("flute", "flute"), ("bass-clarinet", "clarinet"), ("cello", "cello")]
    ):
        for note in range(6):
            file = f"notes/{name}_A{note}_long.wav"
            soundfile.write(tmp_path / file, _tone(1.5, 200 + 100 * number + 7 * note), SAMPLE_RATE)
            rows.append((file, instrument))
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "instrument"), *rows])
    return tmp_path


def test_notes_are_split_into_halves_that_share_nothing(notes_folder):
    notes = Notes(notes_folder, seed=3)
    assert notes.classes == {"flute": "flute", "bass-clarinet": "clarinet", "cello": "cello"}
    halves = [{note.tobytes() for note in notes._halves[half]["flute"]} for half in ("a", "b")]
    assert [len(half) for half in halves] == [3, 3]
    assert not halves[0] & halves[1]
    phrases = notes.phrases("a", 2, seed=1)
    assert len(phrases) == 6
    assert all(len(piece.audio) == 10 * SAMPLE_RATE and len(piece.heard) == 1 for piece in phrases)
    mixtures = notes.mixtures("b", 6, seed=1)
    assert sorted(len(piece.heard) for piece in mixtures) == [2, 2, 2, 3, 3, 3]


def test_notes_of_an_instrument_that_the_tagger_lacks_are_refused(notes_folder):
    labels = notes_folder / "labels.csv"
    labels.write_text(labels.read_text().replace(",cello", ",theremin"))
    with pytest.raises(ValueError, match="'theremin'"):
        Notes(notes_folder, seed=3)


def test_real_notes_reach_the_figures(notes_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "PHRASES_EACH", 2)
    monkeypatch.setattr(outcome, "MIXTURES", 4)
    network = fitting.untrained_network()
    real = outcome.real_windows(network, notes_folder, "b", tmp_path / "kept.pt")
    assert {name: windows.count for name, windows in real.items()} == {"single": 6, "mixture": 4}
    found = calibrate(_windows(0.0, 1, tuple(range(len(CLASSES)))), list(real.values()))
    lines: list[str] = []
    outcome.report(real, found, tmp_path, lines.append)
    assert any("micro-F1" in line for line in lines)
    assert json.loads((tmp_path / "figures.json").read_text())["single"]["mean_ap"] > 0
    for name in ("confusion.svg", "reliability.svg"):
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")


def test_production_keeps_length_and_level():
    audio = _tone(3, 440)
    for seed in range(25):
        made = produced(audio, SAMPLE_RATE, np.random.default_rng(seed))
        assert made.shape == audio.shape
        assert made.dtype == np.float32
        assert rms(made) == pytest.approx(0.1, rel=0.01)
    coded = encoded(audio, SAMPLE_RATE, np.random.default_rng(1))
    assert coded.shape == audio.shape
    assert rms(coded) == pytest.approx(rms(audio), rel=0.2)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_sounds_without_an_instrument_are_sounds(make):
    audio = make(2 * SAMPLE_RATE, SAMPLE_RATE, np.random.default_rng(3))
    assert audio.shape == (2 * SAMPLE_RATE,)
    assert np.isfinite(audio).all()
    assert rms(np.asarray(audio, np.float32)) > 1e-4
