"""tagging/musicnn: the scores of the original network for a real song and its true stems."""

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from audio_files import excerpt
from numpy.typing import NDArray

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.tagging.musicnn import INSTRUMENT_TAGS, PLAN, TAGS, Musicnn
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.protocol import Heard
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.window_queue import WindowQueue
from bandscope_dagster.tagging.windows import Windows

# Stream of the stem file → tag → mean score over the two 3 s patches, from the authors' checkpoint.
REFERENCE = {
    "mixture": (0, {"techno": 0.271, "electronic": 0.249, "synth": 0.191, "guitar": 0.185, "piano": 0.117}),
    "drums": (1, {"drums": 0.366, "beat": 0.295}),
    "vocals": (4, {"male vocal": 0.303}),
}
TOLERANCE = 0.002


@pytest.fixture(scope="module")
def musicnn() -> Musicnn:
    return Musicnn("cpu")


def windows_of(stream: int) -> NDArray[np.float32]:
    """``(windows, lead + length)`` of one stream of the excerpt in the stempeg package, at 16 kHz mono."""
    package = find_spec("stempeg")  # not imported: the import needs an ffmpeg program
    assert package is not None and package.origin is not None
    path = Path(package.origin).parent / "data" / "The Easton Ellises - Falcon 69.stem.mp4"
    with av.open(str(path)) as container:
        audio = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=stream)], axis=1)
    mono = soxr.resample(audio.mean(axis=0), 44_100, PLAN.sample_rate, quality="HQ")
    windows = Windows(PLAN)
    return np.stack([window.samples for window in windows.push(mono) + windows.finish()])


@pytest.mark.parametrize("source", REFERENCE)
def test_scores_on_a_real_song_are_those_of_the_original(musicnn: Musicnn, source: str):
    stream, expected = REFERENCE[source]
    mean = musicnn.taggram(windows_of(stream)).mean(axis=0)
    found = {tag: float(mean[TAGS.index(tag)]) for tag in expected}
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_only_instruments_and_voices_are_tagged_in_the_models_own_words(musicnn: Musicnn):
    tags = musicnn.tag(windows_of(4))
    assert [[tag.label for tag in window.tags] for window in tags] == [list(INSTRUMENT_TAGS)] * 2
    assert {"guitar", "beats", "male vocal", "choral"} <= set(INSTRUMENT_TAGS)
    assert set(INSTRUMENT_TAGS).isdisjoint({"no vocals", "no vocal", "no voice", "techno", "quiet", "solo"})


def test_tags_carry_the_scores_of_their_columns(musicnn: Musicnn):
    windows = windows_of(1)
    taggram = musicnn.taggram(windows)
    for scores, heard in zip(taggram, musicnn.tag(windows), strict=True):
        assert all(tag.score == scores[TAGS.index(tag.label)] for tag in heard.tags)


def test_a_window_is_scored_alike_alone_and_in_a_batch(musicnn: Musicnn):
    windows = windows_of(0)
    alone = np.concatenate([musicnn.taggram(window[None]) for window in windows])
    np.testing.assert_allclose(musicnn.taggram(windows), alone, atol=1e-5)


def test_samples_at_full_scale_give_finite_scores(musicnn: Musicnn):
    square = np.sign(np.sin(np.arange(PLAN.lead + PLAN.length) * 0.05)).astype(np.float32)
    assert np.isfinite(musicnn.taggram(square[None])).all()


def test_a_window_of_the_wrong_length_is_refused(musicnn: Musicnn):
    with pytest.raises(ValueError, match=r"musicnn takes .* \(batch, 48128\), .* of shape \(1, 48000\)"):
        musicnn.tag(np.zeros((1, 48_000), np.float32))


def test_the_identity_names_the_weights_and_is_json(musicnn: Musicnn):
    assert musicnn.identity.sha256 == find_model("musicnn").sha256
    assert json.loads(json.dumps(asdict(musicnn.identity)))["params"]["sample_rate"] == 16_000


def test_options_that_the_network_does_not_have_are_refused():
    with pytest.raises(SettingsError, match=r"BANDSCOPE_TAG_WINDOW_S=30 has no meaning for musicnn"):
        Musicnn("cpu", TaggingOptions(window_s=30))
    assert Musicnn("cpu", TaggingOptions(batch=3)).batch == 3


def test_a_windows_scores_are_equal_to_the_last_bit_alone_and_in_any_batch(musicnn: Musicnn) -> None:
    def song(seed: int) -> NDArray[np.float32]:
        start = 20_000 * seed
        return np.roll(excerpt(), -start, axis=1)[:, : 44_100 * (2 + seed)] * np.float32(1 / (1 + seed))

    def scores(tags: SourceTags) -> list[tuple[int, Heard]]:
        return [(window.start_frame, window.heard) for window in tags.tagged]

    def push(queue: WindowQueue, seed: int) -> SourceTags:
        tags = SourceTags("mixture", musicnn, 44_100)
        queue.add(tags, tags.push(song(seed)) + tags.finish())
        return tags

    alone: list[SourceTags] = []
    for seed in range(4):
        queue = WindowQueue(musicnn)
        alone.append(push(queue, seed))
        queue.flush()
    shared = WindowQueue(musicnn)
    company = [push(shared, seed) for seed in (2, 0, 3, 1)]
    shared.flush()

    assert sum(len(tags.tagged) for tags in alone) > musicnn.batch
    assert [scores(tags) for tags in alone] == [scores(company[i]) for i in (1, 3, 0, 2)]
