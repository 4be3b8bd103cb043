"""Tiny AST networks with random weights, of the class in transformers, in files like those of a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers  # its classes are loaded at their first use, which takes seconds

from bandscope_dagster.models.inventory import HubSource, Model, ModelFile
from bandscope_dagster.tagging.ast import FILES

# Display names of AudioSet: instruments or voices, alternating with other classes.
INSTRUMENTS = ("Singing", "Electric guitar", "Drum kit", "Piano", "Violin, fiddle")
LABELS = (
    "Speech",
    "Singing",
    "Dog",
    "Electric guitar",
    "Music",
    "Drum kit",
    "Piano",
    "Rain",
    "Violin, fiddle",
)
NAME = "tiny-ast"


torch.set_num_threads(1)  # for so little work a second thread saves nothing and can cost much


def tiny_network(
    seed: int = 0, labels: Sequence[str] = LABELS, frames: int = 1024
) -> transformers.ASTForAudioClassification:
    """A network with windows of ``frames`` times 10 ms; each seed gives different weights."""
    torch.manual_seed(seed)
    network = transformers.ASTForAudioClassification(
        transformers.ASTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_length=frames,
            id2label=dict(enumerate(labels)),
            label2id={label: column for column, label in enumerate(labels)},
        )
    )
    # The weights that transformers draws are so small that the audio hardly affects the output of a tiny network.
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return network.eval()


def save_tiny_ast(
    folder: Path, seed: int = 0, labels: Sequence[str] = LABELS, frames: int = 1024, name: str = NAME
) -> Model:
    """Write the files of a network into ``folder``; return their entry in the inventory."""
    tiny_network(seed, labels, frames).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=frames).save_pretrained(folder)
    return entry(folder, name)


def entry(folder: Path, name: str = NAME, **changes: Any) -> Model:
    """The entry in the inventory of the files in ``folder``."""
    contents = {file: (folder / file).read_bytes() for file in FILES if (folder / file).exists()}
    values: dict[str, Any] = {
        "name": name,
        "kind": "tagger",
        "embedded": False,
        "description": "A tiny AST of random weights.",
        "licence": "BSD-3-Clause",
        "citation": "None.",
        "files": tuple(
            ModelFile(file, len(content), hashlib.sha256(content).hexdigest())
            for file, content in contents.items()
        ),
        "source": HubSource("https://example.org", "example/tiny-ast", "0" * 40),
    }
    return Model(**(values | changes))
