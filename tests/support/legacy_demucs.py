"""Networks in the pickle format of Demucs's models before safetensors."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from demucs.htdemucs import HTDemucs
from demucs.states import get_state, save_with_checksum

from bandscope_dagster.models.inventory import HubSource, Model, ModelFile, PublishedFile


def save_legacy(model: HTDemucs, folder: Path) -> Path:
    """Write ``<name>-<first digits of the SHA-256>.th`` in half precision, like the published files."""
    args, kwargs = model._init_args_kwargs
    package = {
        "klass": type(model),
        "args": args,
        "kwargs": kwargs,
        "state": get_state(model, None, half=True),
        "training_args": {"seed": 42, "demucs": {"segment": 11}},
    }
    save_with_checksum(package, folder / "f00dcafe.th")
    (path,) = folder.glob("f00dcafe-*.th")
    return path


def pickled(package: Any) -> bytes:
    """The bytes that torch.save writes."""
    stream = io.BytesIO()
    torch.save(package, stream)
    return stream.getvalue()


def listed(content: bytes, name: str = "f00dcafe.th") -> PublishedFile:
    """The inventory's entry for a pickle."""
    return PublishedFile(name, len(content), hashlib.sha256(content).hexdigest())


def legacy_model(legacy: PublishedFile) -> Model:
    """A model whose one file has no safetensors version in the inventory."""
    return Model(
        name="legacy",
        kind="separator",
        embedded=False,
        description="",
        licence="MIT",
        citation="",
        files=(ModelFile("f00dcafe.safetensors", 84_025_440, "0" * 64, legacy),),
        source=HubSource(url="", repository="mia/legacy", revision="0" * 40),
    )
