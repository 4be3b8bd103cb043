"""The Audio Spectrogram Transformer (AST): scores for AudioSet's instruments and voices in windows of 10.24 s.

Gong, Chung & Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021. The network is
``ASTForAudioClassification`` of transformers, and its features equal those of ``ASTFeatureExtractor``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import ModelFileError
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
from bandscope_dagster.tagging.pretrained import missing_files, read_pretrained
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
    """The spectrogram that a network was trained on, from ``preprocessor_config.json``."""

    frames: int  # of 25 ms, one every 10 ms
    bands: int  # mel bands
    mean: float  # of the log powers over AudioSet
    std: float  # likewise


def load_ast(model: Model, folder: Path, device: str, options: TaggingOptions) -> Ast:
    """A model of the inventory with its files in ``folder``, on ``device``, a device name of torch.

    Raises:
        ModelFileError: a file is missing, is not the one in the inventory, or is of another kind of model.
        SettingsError: the options do not fit the model.
    """
    with verified_folder(model, folder) as verified:
        network, features = read_network(model, verified.path)
    return Ast(model.name, verified.sha256, network, features, device, options)


def read_network(model: Model, folder: Path) -> tuple[ASTForAudioClassification, Features]:
    """The network and its features, from a folder with ``FILES``; nothing is downloaded.

    Raises:
        ModelFileError: the files are of another class, or their tensors are not exactly those of the network.
    """
    import torch
    from transformers import ASTForAudioClassification

    if missing := missing_files(folder, FILES):
        raise _unfit(model, missing)
    architectures = json.loads((folder / "config.json").read_bytes()).get("architectures")
    if architectures != [ARCHITECTURE]:
        raise _unfit(model, f"config.json is for {architectures}; only {ARCHITECTURE} is supported")
    try:
        network: ASTForAudioClassification = read_pretrained(
            ASTForAudioClassification, folder, dtype=torch.float32
        )
    except ValueError as error:
        raise _unfit(model, f"model.safetensors does not have the network's tensors ({error})") from error
    if not instrument_columns(network):
        raise _unfit(model, "no label in config.json is an instrument or voice of AudioSet")
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
            raise _unfit(model, f"preprocessor_config.json has {name} = {found}; it must be {value}")
    mean, std = config.get("mean"), config.get("std")
    if not isinstance(mean, float) or not isinstance(std, float):
        raise _unfit(
            model, f"preprocessor_config.json has mean = {mean} and std = {std}; both must be numbers"
        )
    return Features(frames, bands, mean, std)


def _unfit(model: Model, what: str) -> ModelFileError:
    return ModelFileError(
        f"Model {model.name} is not an AST tagger: {what}. Get its files with {how_to_get(model)}."
    )


def instrument_columns(network: ASTForAudioClassification) -> dict[str, int]:
    """Label → column of the logits, for the labels that name an instrument or a voice."""
    labels = cast("dict[int, str]", network.config.id2label)
    return {label: column for column, label in sorted(labels.items()) if label in INSTRUMENT_CLASSES}


def window_plan(mel_frames: int, name: str, options: TaggingOptions) -> WindowPlan:
    """Windows of ``mel_frames`` times 10 ms: 1024 are 10.24 s, 163,840 samples at 16 kHz.

    1022 frames of 25 ms fit into such a window; the last two rows of its spectrogram stay empty, as the last 26 did in
    training with AudioSet's clips of 10 s. By default windows do not overlap: AudioSet labels whole clips, so overlap
    would double the cost and locate nothing better.

    Raises:
        SettingsError: the hop does not fit the windows.
    """
    return options.window_plan(name, SAMPLE_RATE, mel_frames * FRAME_HOP)


class Ast:
    """The ``Tagger`` with an AST network: a score for every instrument and voice of AudioSet that the network knows.

    Low scores are included, so that a mean over the windows of a song is a mean over all of them.
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
        """``network`` and ``features`` are a pair from ``read_network``.

        Raises:
            SettingsError: an option is set that AST does not have, or the hop does not fit its windows.
        """
        import torch

        options.refuse("window_s", "mode", tagger=name)
        self.network = network.eval().requires_grad_(False).to(device)  # pyright: ignore[reportArgumentType]
        self.device = device
        self.plan = window_plan(features.frames, name, options)
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
        """``(batch, length)`` samples → ``(batch, mel frames, mel bands)``, normalised as in training."""
        from torch.nn import functional

        bands = log_mel(samples, self._window, self._filters)
        missing = self._features.frames - bands.shape[1]
        # Twice the standard deviation: AST's authors normalise to 0 ± 0.5.
        return (functional.pad(bands, (0, 0, 0, missing)) - self._features.mean) / (2 * self._features.std)

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, length)`` mono float32 in [-1, 1] → ``(batch, labels)`` probabilities of ``labels``."""
        import torch

        self.plan.check(windows, self.identity.name)
        # Without this, convolutions on CUDA round to TF32.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            samples = torch.from_numpy(windows).to(self.device)
            logits = self.network(input_values=self.features(samples)).logits
            return logits[:, self._columns].sigmoid().cpu().numpy()

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        """``(batch, length)`` mono float32 in [-1, 1] → the scores of all instruments and voices in each window."""
        return [Heard(ScoredLabels(self.labels, scores.copy())) for scores in self.scores(windows)]
