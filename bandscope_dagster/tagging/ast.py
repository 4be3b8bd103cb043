"""The Audio Spectrogram Transformer, trained on AudioSet: scores for its instruments and voices in windows of 10.24 s.

Gong, Chung & Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021. The network is transformers' own
``ASTForAudioClassification``, and its features equal those of ``ASTFeatureExtractor``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.models.store import how_to_get, verified_folder
from bandscope_dagster.tagging.audioset import INSTRUMENT_CLASSES
from bandscope_dagster.tagging.kaldi_mel import (
    FRAME_HOP,
    N_FFT,
    SAMPLE_RATE,
    hann_window,
    log_mel,
    mel_filters,
)
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.protocol import Heard, ScoredLabels, WindowPlan

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ASTForAudioClassification

FILES: Final = ("config.json", "preprocessor_config.json", "model.safetensors")
ARCHITECTURE: Final = "ASTForAudioClassification"

CPU_BATCH: Final = 1  # windows
ACCELERATOR_BATCH: Final = 32  # windows


@dataclass(frozen=True, slots=True)
class Features:
    """The spectrogram that a network was trained on, as ``preprocessor_config.json`` tells."""

    frames: int  # of 25 ms, every 10 ms
    bands: int  # mel
    mean: float  # of the logarithms over AudioSet
    std: float


def load_ast(model: Model, folder: Path, device: str, options: TaggingOptions) -> Ast:
    """A model of the inventory, whose files lie in ``folder``, on ``device`` as torch names it.

    Raises:
        ModelFileError: a file is missing, is not the one in the inventory, or does not fit the class.
        SettingsError: the options do not fit the model.
    """
    with verified_folder(model, folder) as verified:
        network, features = read_network(model, verified.path)
    return Ast(model.name, verified.sha256, network, features, device, options)


def read_network(model: Model, folder: Path) -> tuple[ASTForAudioClassification, Features]:
    """The network and what its features are, from a folder with ``FILES``; nothing is fetched.

    Raises:
        ModelFileError: the files are of another class, or their tensors are not exactly those of the network.
    """
    import torch
    from transformers import ASTForAudioClassification

    if lacking := [name for name in FILES if not (folder / name).exists()]:
        raise _unfit(model, f"it has no {', '.join(lacking)}")
    architectures = json.loads((folder / "config.json").read_bytes()).get("architectures")
    if architectures != [ARCHITECTURE]:
        raise _unfit(model, f"config.json is for {architectures}, and only {ARCHITECTURE} is read")
    # Without the info, tensors that are missing would stay random with no more than a warning.
    loaded: Any = ASTForAudioClassification.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    network, info = cast("tuple[ASTForAudioClassification, Mapping[str, Any]]", loaded)
    if wrong := [f"{kind}: {sorted(map(str, keys))}" for kind, keys in info.items() if keys]:
        raise _unfit(model, f"model.safetensors does not hold the network's tensors ({'; '.join(wrong)})")
    if not instrument_columns(network):
        raise _unfit(model, "none of the labels in config.json is an instrument or voice of AudioSet")
    return network, _read_features(model, folder, network)


def _read_features(model: Model, folder: Path, network: ASTForAudioClassification) -> Features:
    config: dict[str, Any] = json.loads((folder / "preprocessor_config.json").read_bytes())
    frames, bands = network.config.max_length, network.config.num_mel_bins
    needed = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "sampling_rate": SAMPLE_RATE,
        "max_length": frames,
        "num_mel_bins": bands,
        "do_normalize": True,
    }
    for name, value in needed.items():
        if (found := config.get(name)) != value:
            raise _unfit(model, f"preprocessor_config.json has {name} = {found}, and {value} is needed")
    mean, std = config.get("mean"), config.get("std")
    if not isinstance(mean, float) or not isinstance(std, float):
        raise _unfit(
            model, f"preprocessor_config.json has mean = {mean} and std = {std}, and numbers are needed"
        )
    return Features(frames, bands, mean, std)


def _unfit(model: Model, what: str) -> ModelFileError:
    return ModelFileError(
        f"Model {model.name} is no AST tagger: {what}. Get its files with {how_to_get(model)}."
    )


def instrument_columns(network: ASTForAudioClassification) -> dict[str, int]:
    """The labels that name an instrument or a voice, each with its column among the logits."""
    labels = cast("dict[int, str]", network.config.id2label)
    return {label: column for column, label in sorted(labels.items()) if label in INSTRUMENT_CLASSES}


def window_plan(mel_frames: int, hop_s: float | None, name: str) -> WindowPlan:
    """Windows of ``mel_frames`` times 10 ms: 1024 are 10.24 s, 163,840 samples at 16 kHz.

    Frames of 25 ms that lie wholly inside are two fewer (1022), and the last two rows of the spectrogram stay empty, as
    after AudioSet's own clips of 10 s the last 26 did. By default the windows do not overlap: AudioSet's labels are of
    whole clips, so that overlap would cost twice as much and place nothing better.

    Raises:
        SettingsError: the hop is not above 0, or would leave out audio between the windows.
    """
    length = mel_frames * FRAME_HOP
    hop = length if hop_s is None else round(hop_s * SAMPLE_RATE)
    if not 0 < hop <= length:
        raise SettingsError(
            f"BANDSCOPE_TAG_HOP_S={hop_s} does not fit {name}: it must be above 0 and at most the "
            f"{length / SAMPLE_RATE:g} s of its windows"
        )
    return WindowPlan(sample_rate=SAMPLE_RATE, length=length, hop=hop)


class Ast:
    """The ``Tagger`` over an AST network: the scores of all of AudioSet's instruments and voices that it knows.

    None is left out for a low score, so that means over the windows of a song are means over all of them.
    """

    fixed_batch = True

    def __init__(
        self,
        name: str,
        sha256: str,
        network: ASTForAudioClassification,
        features: Features,
        device: str,
        options: TaggingOptions,
    ) -> None:
        """``network`` and ``features`` belong together, as ``read_network`` gives them.

        Raises:
            SettingsError: an option is set that AST does not have, or the hop does not fit its windows.
        """
        import torch

        options.refuse("window_s", "mode", tagger=name)
        self.network = network.eval().requires_grad_(False).to(device)  # pyright: ignore[reportArgumentType]
        self.device = device
        self.plan = window_plan(features.frames, options.hop_s, name)
        self.batch = options.batch or (CPU_BATCH if device == "cpu" else ACCELERATOR_BATCH)
        columns = instrument_columns(network)
        self.labels = tuple(columns)
        self._columns = list(columns.values())
        self._features = features
        self._window = torch.from_numpy(hann_window()).to(device)
        self._filters = torch.from_numpy(mel_filters(features.bands)).to(device)
        self.identity = ModelIdentity(
            name=name,
            sha256=sha256,
            params={
                "sample_rate": SAMPLE_RATE,
                "n_fft": N_FFT,
                "hop": FRAME_HOP,
                "mel_bands": features.bands,
                "window_frames": self.plan.length,
                "window_hop": self.plan.hop,
                "precision": "fp32",
                "labels": list(self.labels),
            },
        )

    def features(self, samples: Tensor) -> Tensor:
        """``(batch, length)`` samples → ``(batch, mel frames, mel bands)``, normalised as the network was trained."""
        from torch.nn import functional

        bands = log_mel(samples, self._window, self._filters)
        lacking = self._features.frames - bands.shape[1]
        # Twice the standard deviation: AST's authors normalise to 0 ± 0.5.
        return (functional.pad(bands, (0, 0, 0, lacking)) - self._features.mean) / (2 * self._features.std)

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, length)`` mono float32 in [-1, 1] → ``(batch, labels)`` probabilities of ``labels``."""
        import torch

        expected = self.plan.length
        if windows.ndim != 2 or windows.shape[1] != expected or windows.dtype != np.float32:
            raise ValueError(
                f"{self.identity.name} takes float32 windows of shape (batch, {expected}), mono at "
                f"{SAMPLE_RATE} Hz, not {windows.dtype} of shape {windows.shape}"
            )
        # Convolutions on CUDA would else round to TF32.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            samples = torch.from_numpy(windows).to(self.device)
            logits = self.network(input_values=self.features(samples)).logits
            return logits[:, self._columns].sigmoid().cpu().numpy()

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        """``(batch, length)`` mono float32 in [-1, 1] → all instruments and voices with their scores, by window."""
        return [Heard(ScoredLabels(self.labels, scores.copy())) for scores in self.scores(windows)]
