"""The demo songs: repeatable, not clipped, and the sum of their stems."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import LIMITS, snr_db

from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.probe import probe

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import demo_songs  # noqa: E402

render = cache(demo_songs.render)


@pytest.mark.parametrize("number", range(3))
def test_a_song_lasts_about_twenty_seconds_and_is_not_clipped(number):
    _, stems = render(number)
    mixture = sum(stems.values())
    assert 19 < mixture.shape[1] / 44_100 < 24
    assert np.abs(mixture).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    assert tuple(stems) == demo_songs.STEMS
    assert all(stem.dtype == np.float32 and stem.shape == mixture.shape for stem in stems.values())


@pytest.mark.parametrize("number", range(3))
def test_every_stem_is_there_to_be_found(number):
    _, stems = render(number)
    power = {name: np.mean(stem.astype(np.float64) ** 2) for name, stem in stems.items()}
    assert all(share / sum(power.values()) > 0.03 for share in power.values())


def test_the_same_seed_gives_the_same_song_and_another_seed_another():
    title, stems = demo_songs.render(0)
    assert title == render(0)[0]
    assert all(np.array_equal(stems[name], stem) for name, stem in render(0)[1].items())
    assert not np.array_equal(demo_songs.render(0, seed=1)[1]["vocals"], stems["vocals"])


def test_more_songs_than_styles_are_new_takes():
    titles = [demo_songs.render(number)[0] for number in (0, 3)]
    assert titles == ["Night Bus", "Night Bus (take 2)"]


def test_the_written_songs_are_tagged_and_their_stems_sum_to_them(tmp_path):
    run = [sys.executable, str(SCRIPTS / "demo_songs.py"), "--to", str(tmp_path), "--songs", "3", "--stems"]
    subprocess.run(run, check=True, capture_output=True)
    songs = sorted(path for path in tmp_path.iterdir() if path.is_file())
    assert sorted(path.suffix for path in songs) == [".flac", ".mp3", ".wav"]
    for path in songs:
        with path.open("rb") as file:
            found = probe(file, LIMITS)
            mixture = np.concatenate(list(decode(file, LIMITS)), axis=1)
        assert found.artist == demo_songs.ARTIST
        stems = [soundfile.read(stem)[0].T for stem in (tmp_path / "stems" / found.title).iterdir()]
        assert len(stems) == 4
        if path.suffix == ".mp3":
            assert snr_db(mixture, sum(stems)) > 15
        else:
            assert np.abs(sum(stems) - mixture).max() < 5 / 2**23  # a step for each of five files
