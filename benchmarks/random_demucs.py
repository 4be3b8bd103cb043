"""HTDemucs with the published architecture and random weights; it costs the same as the published models."""

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from demucs.htdemucs import HTDemucs
from demucs.states import save_with_checksum
from safetensors.torch import save_file

from bandscope_dagster.models.inventory import Model, ModelFile, find_model
from bandscope_dagster.separation.demucs.model import CLASS, load_demucs
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import Separator

SIGNATURE = "random00"
ARCHITECTURE = {
    # As htdemucs was trained; this gives its 41,984,456 parameters and the file size in the inventory.
    "sources": ["drums", "bass", "other", "vocals"],
    "channels": 48,
    "bottom_channels": 512,
    "t_layers": 5,
    "t_heads": 8,
    "dconv_mode": 3,
}
SEGMENT = Fraction(39, 5)  # seconds


def random_network() -> HTDemucs:
    """A network with the same weights in every process, rounded to half precision like the published ones."""
    torch.manual_seed(0)
    return HTDemucs(**ARCHITECTURE, segment=SEGMENT).eval().half().float()


def write_weights(folder: Path) -> None:
    """Write the weights for Bandscope (safetensors) and for ``python -m demucs --repo`` (a pickle and a bag)."""
    network = random_network()
    state = {name: tensor.half() for name, tensor in network.state_dict().items()}
    kwargs = ARCHITECTURE | {
        "segment": {"_type": "fraction", "numerator": SEGMENT.numerator, "denominator": SEGMENT.denominator}
    }
    metadata = {"klass": CLASS, "args": "[]", "kwargs": json.dumps(kwargs)}
    save_file(state, folder / f"{SIGNATURE}.safetensors", metadata)
    args, kwargs = network._init_args_kwargs
    package = {"klass": HTDemucs, "args": args, "kwargs": kwargs, "state": state}
    save_with_checksum(package | {"training_args": {}}, folder / f"{SIGNATURE}.th")
    (folder / "random.yaml").write_text(f"models: ['{SIGNATURE}']\n")


def random_separator(folder: Path, device: str, options: SeparationOptions) -> Separator:
    """The separator from the weights in ``folder``, by the product's own verification and loading."""
    file = folder / f"{SIGNATURE}.safetensors"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    listed: Model = replace(
        find_model("htdemucs"),
        name="random",
        files=(ModelFile(file.name, file.stat().st_size, digest),),
    )
    return load_demucs(listed, folder, device, options)
