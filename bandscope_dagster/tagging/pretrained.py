"""Read a network of ``transformers`` from a verified folder: no download, no foreign code, no missing tensor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def missing_files(folder: Path, names: Sequence[str]) -> str | None:
    """A message that names the files that ``folder`` lacks; None if all are there."""
    missing = [name for name in names if not (folder / name).exists()]
    return f"it has no {', '.join(missing)}" if missing else None


def read_pretrained(
    stock: Any, folder: Path, *, dtype: Any, unread: tuple[str, ...] = (), **options: Any
) -> Any:
    """A network of the class ``stock`` with the weights in ``folder``, as ``dtype``, on the CPU.

    ``unread`` are prefixes of tensors that may be in the files beside those of the network. ``options`` go to
    ``from_pretrained``.

    Raises:
        ValueError: the files do not have exactly the tensors of the network. Without this check, transformers would
            only log a warning and leave missing tensors random.
    """
    network, info = stock.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
        dtype=dtype,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not key.startswith(unread)]
    if wrong := [f"{kind}: {', '.join(sorted(map(str, keys)))}" for kind, keys in info.items() if keys]:
        raise ValueError("; ".join(wrong))
    return network
