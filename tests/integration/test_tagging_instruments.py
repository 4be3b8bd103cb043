"""tagging/instruments: probabilities that do not depend on the batch, from verified weights, for any audio."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soxr
from audio_files import excerpt
from numpy.typing import NDArray

from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.store import EMBEDDED
from bandscope_dagster.tagging import instruments
from bandscope_dagster.tagging.instruments import NAME, Instruments
from bandscope_dagster.tagging.instruments_bounds import load_bounds
from bandscope_dagster.tagging.instruments_network import CLASSES, LEAD, LENGTH, SAMPLE_RATE
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.protocol import Heard
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue
from bandscope_dagster.tagging.windows import Windows

FRAMES = LEAD + LENGTH
Audio = NDArray[np.float32]


@pytest.fixture(scope="module")
def tagger() -> Instruments:
    return Instruments("cpu")


@pytest.fixture(scope="module")
def windows(tagger: Instruments) -> Audio:
    """``(windows, lead + length)`` of a real song, and one window of noise."""
    cut = Windows(tagger.plan)
    song = soxr.resample(excerpt().mean(axis=0), 44_100, SAMPLE_RATE, quality="HQ").astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.1, FRAMES).astype(np.float32)
    return np.stack([*(window.samples for window in cut.push(song) + cut.finish()), noise])


def test_every_class_has_a_probability_in_every_window(tagger: Instruments, windows: Audio) -> None:
    heard = tagger.tag(windows)
    assert [[tag.label for tag in window.tags] for window in heard] == [list(CLASSES)] * len(windows)
    scores = tagger.scores(windows)
    assert scores.dtype == np.float32 and ((scores >= 0) & (scores <= 1)).all()
    assert [[tag.score for tag in window.tags] for window in heard] == scores.tolist()
    assert len(np.unique(scores.round(6), axis=0)) == len(windows), "the scores depend on the audio"


def test_the_score_is_the_logit_after_the_calibration_of_its_class(
    tagger: Instruments, windows: Audio
) -> None:
    import torch

    with torch.inference_mode():
        logits = tagger._network(torch.from_numpy(windows)).double().numpy()
    scale, rivals, offset = (
        np.array([getattr(each, name) for each in load_bounds().values()])
        for name in ("scale", "rivals", "offset")
    )
    others = np.array([[np.delete(row, column).max() for column in range(len(row))] for row in logits])
    np.testing.assert_allclose(
        tagger.scores(windows), 1 / (1 + np.exp(-(scale * logits - rivals * others + offset))), atol=1e-6
    )
    assert rivals.any(), "otherwise this tests nothing of them"


def test_a_window_is_scored_alike_alone_and_in_a_batch(tagger: Instruments, windows: Audio) -> None:
    alone = np.concatenate([tagger.scores(window[None]) for window in windows])
    np.testing.assert_allclose(tagger.scores(windows), alone, atol=1e-5)
    np.testing.assert_allclose(tagger.scores(windows[::-1].copy())[::-1], alone, atol=1e-5)


def test_the_same_windows_have_the_same_scores_to_the_last_bit_in_another_copy(
    tagger: Instruments, windows: Audio
) -> None:
    assert np.array_equal(Instruments("cpu").scores(windows), tagger.scores(windows))


def test_the_level_of_a_song_does_not_matter(tagger: Instruments, windows: Audio) -> None:
    np.testing.assert_allclose(tagger.scores(windows * np.float32(0.1)), tagger.scores(windows), atol=0.02)


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(FRAMES),
        np.full(FRAMES, 1e-30),
        np.ones(FRAMES),
        np.sign(np.sin(np.arange(FRAMES) * 0.05)),
        np.eye(1, FRAMES)[0],
    ],
    ids=["silence", "almost silence", "a constant", "full scale", "a click"],
)
def test_any_audio_has_finite_scores(tagger: Instruments, audio: NDArray[np.float64]) -> None:
    assert np.isfinite(tagger.scores(audio[None].astype(np.float32))).all()


def tags_of(tagger: Instruments, audio: Audio) -> SourceTags:
    """The tags of ``(2, frames)`` at 44.1 kHz."""
    queue, tags = WindowQueue(tagger), SourceTags("mixture", tagger, 44_100)
    queue.add(tags, tags.push(audio) + tags.finish())
    queue.flush()
    assert tags.error is None
    return tags


def test_silence_has_no_tags_and_a_short_song_has_those_of_one_window(tagger: Instruments) -> None:
    vocabulary = load_vocabulary()
    assert list(tags_of(tagger, np.zeros((2, 300_000), np.float32)).rows(vocabulary)) == []
    rows = list(tags_of(tagger, excerpt()[:, :22_050]).rows(vocabulary))
    assert {(row["start_s"], row["end_s"]) for row in rows} == {(0.0, 0.5)}
    assert len(rows) == len(CLASSES) - 1, "electric and distorted guitar are one instrument"
    assert all(row["mapped"] for row in rows)


def test_scores_are_equal_to_the_last_bit_alone_and_beside_other_songs(tagger: Instruments) -> None:
    def results(tags: SourceTags) -> list[tuple[int, Heard]]:
        return [(window.start_frame, window.heard) for window in tags.tagged]

    songs = [np.roll(excerpt(), -20_000 * n, axis=1)[:, : 44_100 * (2 + n)] for n in range(4)]
    alone = [results(tags_of(tagger, song)) for song in songs]
    queue, beside = WindowQueue(tagger), [SourceTags("mixture", tagger, 44_100) for _ in songs]
    for tags, song in zip(beside, songs, strict=True):
        queue.add(tags, tags.push(song) + tags.finish())
    queue.flush()
    assert [results(tags) for tags in beside] == alone


def test_the_hop_is_a_setting_and_the_scores_of_a_window_stay(tagger: Instruments) -> None:
    close = Instruments("cpu", TaggingOptions(hop_s=1.0))
    assert (close.plan.hop, close.plan.length, close.plan.lead) == (SAMPLE_RATE, LENGTH, LEAD)
    assert close.identity.params["window_hop"] == SAMPLE_RATE
    often, seldom = (tags_of(each, excerpt()) for each in (close, tagger))
    assert [window.start_frame for window in often.tagged][:3] == [0, SAMPLE_RATE, 2 * SAMPLE_RATE]
    assert len(often.tagged) > len(seldom.tagged)
    assert often.tagged[0].heard == seldom.tagged[0].heard


def test_options_that_the_network_does_not_have_are_refused() -> None:
    with pytest.raises(SettingsError, match=rf"BANDSCOPE_TAG_WINDOW_S=30 has no meaning for {NAME}"):
        Instruments("cpu", TaggingOptions(window_s=30))
    with pytest.raises(SettingsError, match=r"BANDSCOPE_TAG_MODE=list has no meaning"):
        Instruments("cpu", TaggingOptions(mode="list"))
    with pytest.raises(SettingsError, match=r"BANDSCOPE_TAG_HOP_S=3\.5 does not fit"):
        Instruments("cpu", TaggingOptions(hop_s=3.5))
    assert Instruments("cpu", TaggingOptions(batch=3)).batch == 3


def test_a_window_of_the_wrong_length_is_refused(tagger: Instruments) -> None:
    with pytest.raises(ValueError, match=rf"{NAME} takes .* \(batch, {FRAMES}\), .* of shape \(1, 48000\)"):
        tagger.tag(np.zeros((1, 48_000), np.float32))


def test_the_identity_has_all_that_scores_depend_on_and_not_the_bounds_of_presence(
    tagger: Instruments,
) -> None:
    assert tagger.identity.sha256 == find_model(NAME).sha256
    params = json.loads(json.dumps(asdict(tagger.identity)))["params"]
    assert params["labels"] == list(CLASSES)
    assert params["scales"] == [each.scale for each in load_bounds().values()]
    assert params["offsets"] == [each.offset for each in load_bounds().values()]
    assert {"sample_rate", "window_frames", "window_hop", "hop", "mel_bands"} <= params.keys()
    assert "present_from" not in json.dumps(params)


def test_the_rule_of_presence_has_the_bound_of_every_class() -> None:
    rule = instruments.presence_rule()
    assert rule.bounds == {name: each.present_from for name, each in load_bounds().items()}
    assert rule.best_share == instruments.BEST_SHARE


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-1]], ids=["one bit", "cut off"])
def test_weights_that_are_not_those_of_the_inventory_are_not_read(
    damage: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = find_model(NAME).files
    shutil.copy(EMBEDDED / file.name, tmp_path)
    monkeypatch.setattr(instruments, "EMBEDDED", tmp_path)
    assert Instruments("cpu").identity.sha256 == file.sha256
    (tmp_path / file.name).write_bytes(damage((tmp_path / file.name).read_bytes()))
    with pytest.raises(
        ModelFileError, match=rf"{file.name} of model {NAME} is not the file in the inventory"
    ):
        Instruments("cpu")
