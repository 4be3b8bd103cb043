import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.store import EMBEDDED, read_verified
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.spleeter import Spleeter, unet
from bandscope_dagster.separation.streaming import Separated, StreamingSeparation

Audio = NDArray[np.float32]

STEMPEG_DATA = Path(find_spec("stempeg").origin).parent / "data"  # importing stempeg needs ffmpeg
EXCERPT = STEMPEG_DATA / "The Easton Ellises - Falcon 69.stem.mp4"
STREAMS = ("mixture", "drums", "bass", "other", "vocals")
SDR_FROM = 4_410  # frames; the excerpt begins with the AAC encoder's priming


def decode(path: Path, stream: int) -> Audio:
    """``(2, frames)`` at the file's 44.1 kHz."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=stream)]
    return np.concatenate(frames, axis=1)


def sdr(reference: Audio, estimate: Audio) -> float:
    """Plain signal-to-distortion ratio in dB, without a filter between reference and estimate."""
    reference, estimate = reference[:, SDR_FROM:].astype(np.float64), estimate[:, SDR_FROM:]
    return float(10 * np.log10((reference**2).sum() / ((reference - estimate) ** 2).sum()))


def separate(spleeter: Spleeter, mixture: Audio, block: int = 100_000) -> Audio:
    """``(2 stems, 2, frames)``."""
    streaming = StreamingSeparation(spleeter)
    streaming.open("song", Normalisation())
    results = []
    for start in range(0, mixture.shape[1], block):
        results += streaming.push("song", mixture[:, start : start + block])
    results += [*streaming.finish("song"), *streaming.flush()]
    assert all(isinstance(result, Separated) for result in results)
    return np.concatenate([result.stems for result in results], axis=-1)


def weights_file() -> bytes:
    return read_verified(find_model("spleeter-2stems"), EMBEDDED).files["spleeter-2stems.safetensors"]


def whole_song_vocals(mixture: Audio) -> Audio:
    """The vocals by the published signal path over the whole song at once, in numpy except for the nets."""
    from safetensors.torch import load

    weights = {k: v.float() for k, v in load(weights_file()).items()}
    nets = {
        stem: {
            name.removeprefix(f"nets.{stem}."): tensor
            for name, tensor in weights.items()
            if f".{stem}." in name
        }
        for stem in ("vocals", "accompaniment")
    }
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(4096) / 4096)
    frames = -(-(mixture.shape[1] + 4096) // 1024)
    total = (frames - 1) * 1024 + 4096
    padded = np.pad(mixture, ((0, 0), (4096, total - 4096 - mixture.shape[1])))
    spectrum = np.fft.rfft(sliding_window_view(padded, 4096, axis=1)[:, ::1024] * window)  # (2, frames, 2049)

    magnitude = np.abs(spectrum[..., :1024]).astype(np.float32)
    mask = np.zeros(spectrum.shape)
    for start in range(0, frames, 512):
        part = magnitude[:, start : start + 512]
        count = part.shape[1]
        image = torch.from_numpy(np.pad(part, ((0, 0), (0, 512 - count), (0, 0))))[None]
        with torch.inference_mode():
            vocals, accompaniment = (
                unet(net, image)[0, :, :count].double().numpy() ** 2 for net in nets.values()
            )
        mask[:, start : start + count, :1024] = (vocals + 5e-11) / (vocals + accompaniment + 1e-10)

    out = np.zeros((2, total))
    for index, frame in enumerate(np.fft.irfft(spectrum * mask).transpose(1, 0, 2)):
        out[:, index * 1024 : index * 1024 + 4096] += frame * window / 1.5
    return out[:, 4096 : 4096 + mixture.shape[1]].astype(np.float32)


@pytest.fixture(scope="module")
def spleeter() -> Spleeter:
    return Spleeter("cpu", SeparationOptions())


@pytest.fixture(scope="module")
def excerpt() -> dict[str, Audio]:
    song = {name: decode(EXCERPT, stream) for stream, name in enumerate(STREAMS)}
    song["accompaniment"] = song["drums"] + song["bass"] + song["other"]
    return song


@pytest.fixture(scope="module")
def estimate(spleeter: Spleeter, excerpt: dict[str, Audio]) -> dict[str, Audio]:
    return dict(zip(spleeter.stems, separate(spleeter, excerpt["mixture"]), strict=True))


def noise(frames: int) -> Audio:
    return 0.1 * np.random.default_rng(frames).standard_normal((2, frames), np.float32)


@pytest.mark.parametrize(
    ("stem", "of_the_mixture", "of_the_estimate"),
    # dB, measured; the position of the STFT frames changes the estimates by 0.3 dB on so short a song
    [("vocals", -7.10, 5.30), ("accompaniment", 6.85, 11.45)],
)
def test_a_real_song_is_separated_far_better_than_by_its_mixture(
    excerpt: dict[str, Audio],
    estimate: dict[str, Audio],
    stem: str,
    of_the_mixture: float,
    of_the_estimate: float,
) -> None:
    assert sdr(excerpt[stem], excerpt["mixture"]) == pytest.approx(of_the_mixture, abs=0.02)
    assert sdr(excerpt[stem], estimate[stem]) == pytest.approx(of_the_estimate, abs=0.05)


def test_the_stems_sum_to_the_mixture(excerpt: dict[str, Audio], estimate: dict[str, Audio]) -> None:
    np.testing.assert_allclose(
        estimate["vocals"] + estimate["accompaniment"], excerpt["mixture"], rtol=0, atol=5e-7
    )


def test_what_lies_above_the_mask_stays_in_the_accompaniment(spleeter: Spleeter) -> None:
    time = np.arange(60_000) / 44_100
    tone = np.tile(0.5 * np.sin(2 * np.pi * 15_000 * time), (2, 1)).astype(np.float32)
    vocals, accompaniment = separate(spleeter, tone)
    assert np.abs(vocals[:, 4_096:-4_096]).max() < 1e-3  # the tone's abrupt ends have energy below 11 kHz
    np.testing.assert_allclose(accompaniment + vocals, tone, rtol=0, atol=5e-7)


FIRST_SEGMENT = 512 * 1024 - 4096  # frames of the song that the first segment finishes


@pytest.mark.parametrize(
    "frames",
    [1, FIRST_SEGMENT, FIRST_SEGMENT + 50_000],
)
def test_segments_equal_the_whole_song_at_once(spleeter: Spleeter, frames: int) -> None:
    mixture = noise(frames)
    vocals, _ = separate(spleeter, mixture)
    np.testing.assert_allclose(vocals, whole_song_vocals(mixture), rtol=0, atol=3e-6)


def test_the_same_song_twice_gives_the_same_bytes(spleeter: Spleeter) -> None:
    mixture = noise(600_000)
    assert separate(spleeter, mixture).tobytes() == separate(spleeter, mixture, block=77_777).tobytes()


def test_a_segment_depends_on_nothing_else_in_its_batch(spleeter: Spleeter) -> None:
    two = [noise(spleeter.plan.length), 0.01 * noise(spleeter.plan.length)[:, ::-1]]
    segments = torch.from_numpy(np.stack(two))
    together = spleeter.separate(segments)
    for index in range(2):
        alone = spleeter.separate(segments[index : index + 1])[0]
        np.testing.assert_allclose(together[index], alone, rtol=0, atol=3e-6)


def test_segments_of_another_length_are_refused(spleeter: Spleeter) -> None:
    with pytest.raises(ValueError, match=r"takes segments of \(batch, 2, 527360\), not \(1, 2, 44100\)"):
        spleeter.separate(torch.zeros((1, 2, 44_100)))


def test_the_identity_is_that_of_the_verified_file(spleeter: Spleeter) -> None:
    assert spleeter.identity.sha256 == hashlib.sha256(weights_file()).hexdigest()
    assert spleeter.identity.name == "spleeter-2stems"
    assert spleeter.identity.params["accompaniment"] == "mixture - vocals"


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        (SeparationOptions(shifts=0), "BANDSCOPE_SHIFTS=0"),
        (SeparationOptions(overlap=0.5), "BANDSCOPE_OVERLAP=0.5"),
        (SeparationOptions(segment_s=4), "BANDSCOPE_SEGMENT_S=4"),
        (SeparationOptions(precision="fp16"), "BANDSCOPE_PRECISION=fp16"),
    ],
)
def test_an_option_of_the_demucs_models_is_refused_and_not_ignored(
    options: SeparationOptions, variable: str
) -> None:
    with pytest.raises(SettingsError, match=f"{variable} has no meaning for spleeter-2stems"):
        Spleeter("cpu", options)


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, bandscope_dagster.separation.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
