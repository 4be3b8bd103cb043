"""``benchmarks.sdr`` through the product, on the excerpt in the stempeg package, whose true stems are known."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import stempeg_song

from benchmarks.sdr import BadTracks, find_tracks, main

STREAMS = ("mixture", "drums", "bass", "other", "vocals")


def write_track(folder: Path) -> Path:
    """The excerpt in the shape of a track of MUSDB18-HQ."""
    folder.mkdir(parents=True)
    for number, name in enumerate(STREAMS):
        with av.open(io.BytesIO(stempeg_song())) as container:
            frames = container.decode(container.streams.audio[number])
            samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
        soundfile.write(folder / f"{name}.wav", samples.T, 44_100, "FLOAT")
    return folder


def test_the_figures_of_spleeter_on_the_excerpt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_track(tmp_path / "test" / "The Easton Ellises - Falcon 69")
    main([str(tmp_path / "test"), "--separator", "spleeter-2stems"])
    *_, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert (found["separator"], found["tracks"]) == ("spleeter-2stems", 1)
    figures = found["sdr_db"]
    # Spleeter's own TensorFlow output has 5.06 and 11.29 dB without the first 0.1 s.
    assert figures["vocals"]["mdx_mean"] == pytest.approx(5.3, abs=0.3)
    assert figures["accompaniment"]["mdx_mean"] == pytest.approx(11.4, abs=0.3)
    assert figures["vocals"]["v4_median"] == pytest.approx(figures["vocals"]["mdx_mean"], abs=1.5)


def test_a_folder_without_tracks_or_with_other_files_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadTracks, match=r"has no folder with a mixture\.wav"):
        find_tracks(tmp_path)
    track = write_track(tmp_path / "track")
    soundfile.write(track / "vocals.wav", np.zeros((100, 2)), 44_100)
    with pytest.raises(SystemExit, match=r"vocals\.wav is shorter than mixture\.wav"):
        main([str(tmp_path), "--separator", "spleeter-2stems"])
    soundfile.write(track / "vocals.wav", np.zeros((100, 1)), 48_000)
    with pytest.raises(SystemExit, match=r"vocals\.wav has 1 channels at 48000 Hz, not 2 at 44100 Hz"):
        main([str(tmp_path), "--separator", "spleeter-2stems"])
    (track / "drums.wav").unlink()
    with pytest.raises(SystemExit, match=r"track has no drums\.wav"):
        main([str(tmp_path), "--separator", "spleeter-2stems"])
