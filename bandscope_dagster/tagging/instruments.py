"""The embedded tagger of our own: 38 instruments and voices in windows of 3 s, with scores that are probabilities.

The network is in ``instruments_network.py``, its calibration in ``instruments_bounds.toml``. docs/tagging.md has its
data, its licences and its figures.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.store import EMBEDDED, read_verified
from bandscope_dagster.tagging.instruments_bounds import load_bounds
from bandscope_dagster.tagging.instruments_network import (
    CLASSES,
    FRONT_END,
    LEAD,
    LENGTH,
    SAMPLE_RATE,
    build_network,
)
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.presence_rule import PresenceRule
from bandscope_dagster.tagging.protocol import Heard, ScoredLabels

NAME: Final = "bandscope-instruments"

BEST_SHARE: Final = 0.25
FEWEST: Final = 3
"""An instrument is present in a song if the mean score over this share of its windows, but at least over so many,
reaches the bound. docs/tagging.md compares this rule with others.
"""

CPU_BATCH: Final = 1  # window; as with musicnn, larger ones gain nothing
ACCELERATOR_BATCH: Final = 32  # windows


def presence_rule() -> PresenceRule:
    """The bound of each class, and the share of windows that must reach it."""
    bounds = {label: bounds.present_from for label, bounds in load_bounds().items()}
    return PresenceRule(bound=max(bounds.values()), bounds=bounds, best_share=BEST_SHARE, fewest=FEWEST)


class Instruments:
    """The ``Tagger`` with our network: a probability for every class. Weights are verified before they are read.

    Low scores are included, so that a mean over the windows of a song is a mean over all of them.
    """

    fixed_batch = True

    def __init__(self, device: str, options: TaggingOptions | None = None) -> None:
        """``device`` is a device of torch that exists: "cpu", "cuda", "cuda:1", "mps".

        Raises:
            SettingsError: an option is set that the network does not have, or the hop does not fit its windows.
            ModelFileError: the weights or the bounds are not those of this version.
        """
        import torch
        from safetensors.torch import load

        options = options or TaggingOptions()
        options.refuse("window_s", "mode", tagger=NAME)
        self.plan = options.window_plan(NAME, SAMPLE_RATE, LENGTH, LEAD)
        self.device = device
        self.batch = options.batch or (CPU_BATCH if device == "cpu" else ACCELERATOR_BATCH)
        model = find_model(NAME)
        verified = read_verified(model, EMBEDDED)
        network = build_network()
        network.load_state_dict(load(verified.files[model.files[0].name]), strict=True)
        self._network = network.eval().requires_grad_(False).to(device)
        bounds = load_bounds().values()
        scales, offsets = [each.scale for each in bounds], [each.offset for each in bounds]
        rivals = [each.rivals for each in bounds]
        self._scales, self._rivals, self._offsets = (
            torch.tensor(values).to(device) for values in (scales, rivals, offsets)
        )
        self.identity = ModelIdentity(
            name=NAME,
            sha256=verified.sha256,
            params={
                "sample_rate": SAMPLE_RATE,
                **FRONT_END,
                "window_frames": self.plan.length,
                "window_hop": self.plan.hop,
                "precision": "fp32",
                "labels": list(CLASSES),
                "scales": scales,
                "rivals": rivals,
                "offsets": offsets,
            },
        )

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, lead + length)`` mono float32 in [-1, 1] → ``(batch, classes)`` probabilities of ``CLASSES``."""
        import torch

        self.plan.check(windows, NAME)
        # Without this, convolutions on CUDA round to TF32.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            logits = self._network(torch.from_numpy(windows).to(self.device))
            first, second = logits.topk(2).values.split(1, dim=1)
            others = torch.where(logits == first, second, first)  # the highest logit of another class
            return torch.sigmoid(self._scales * logits - self._rivals * others + self._offsets).cpu().numpy()

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        """``(batch, lead + length)`` mono float32 in [-1, 1] → the probabilities of all classes in each window."""
        return [Heard(ScoredLabels(CLASSES, scores.copy())) for scores in self.scores(windows)]
