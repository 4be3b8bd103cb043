"""Converts pickles of weights to safetensors files, without executing the pickles.

Before 4.1, Demucs published its weights as pickles: ``demucs.states.save_with_checksum`` of a dict with the class, its
arguments and the state. SCNet and the RoFormers are published as pickles of their state alone, or of a dict with it. A
pickle can run any code when it is read, so three things are required: its full digest is in the inventory, torch's
restricted unpickler builds only tensors, plain values and, for Demucs, the two classes below, and the result has the
expected structure. The output for Demucs has the layout of ``demucs.hf`` (demucs 4.1).
"""

import hashlib
import io
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import PublishedFile

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS: Final = ("state_dict", "model_state_dict", "state")
PREFIXES: Final = ("module.", "model.")


def convert_legacy(content: bytes, legacy: PublishedFile) -> bytes:
    """The safetensors file with the weights of a Demucs pickle; equal weights give equal bytes.

    Raises:
        ModelFileError: ``content`` is not the listed file, the restricted unpickler refuses it, or it is not a Demucs
            model.
    """
    from demucs.htdemucs import HTDemucs
    from safetensors.torch import save

    package = _unpickle(content, legacy, [HTDemucs, Fraction])
    if not (isinstance(package, dict) and {"klass", "args", "kwargs", "state"} <= package.keys()):
        raise _refusal(legacy, "it is not a dict of klass, args, kwargs and state")
    package = cast(dict[str, Any], package)
    if package["klass"] is not HTDemucs:
        raise _refusal(legacy, f"its class is {package['klass']!r}, not HTDemucs")
    if not (isinstance(package["args"], list | tuple) and isinstance(package["kwargs"], dict)):
        raise _refusal(legacy, "its arguments are not a list and a dict")
    metadata = {
        "klass": f"{HTDemucs.__module__}.{HTDemucs.__name__}",
        "args": json.dumps(_encode(package["args"], legacy)),
        "kwargs": json.dumps(_encode(package["kwargs"], legacy)),
    }
    return _sorted_header(save(_tensors(package["state"], legacy), metadata))


def convert_state(content: bytes, legacy: PublishedFile) -> bytes:
    """The safetensors file with the tensors of a pickled state; equal weights give equal bytes.

    The state may be in a dict under one of ``WRAPPERS``, and all names may start with one of ``PREFIXES``, as training
    programs write them.

    Raises:
        ModelFileError: ``content`` is not the listed file, the restricted unpickler refuses it, or it is not a state.
    """
    from safetensors.torch import save

    state = _unpickle(content, legacy, [])
    if isinstance(state, Mapping):
        found = cast(Mapping[object, object], state)
        state = next((found[wrapper] for wrapper in WRAPPERS if wrapper in found), found)
    tensors = _tensors(state, legacy)
    if not tensors:
        raise _refusal(legacy, "its state has no tensors")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return _sorted_header(save(dict(sorted(tensors.items())), {"format": "pt"}))


def shapes_in(content: bytes) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by name, from its header."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = cast(dict[str, dict[str, Any]], json.loads(content[8:end]))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def _unpickle(content: bytes, legacy: PublishedFile, classes: list[Any]) -> Any:
    """The content of a pickle with the listed digest, by the restricted unpickler."""
    import torch

    found = hashlib.sha256(content).hexdigest()
    if (len(content), found) != (legacy.bytes, legacy.sha256):
        raise _refusal(
            legacy,
            f"expected {legacy.bytes} bytes with SHA-256 {legacy.sha256}, "
            f"found {len(content)} bytes with SHA-256 {found}",
        )
    try:
        with torch.serialization.safe_globals(classes):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a bad file can raise any error; each has the same meaning here
        raise _refusal(legacy, f"the restricted unpickler refuses it: {_reason(error)}") from error


def _tensors(state: object, legacy: PublishedFile) -> dict[str, "Tensor"]:
    from torch import Tensor

    if not isinstance(state, Mapping):
        raise _refusal(legacy, f"its state is a {type(state).__name__}, not a mapping")
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in cast(Mapping[object, object], state).items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise _refusal(legacy, f"its state has {name!r}, which is not a named tensor")
        shared = tensor.untyped_storage().data_ptr() in storages
        storages.add(tensor.untyped_storage().data_ptr())
        # safetensors refuses tensors that share memory. Copies of all would take another gigabyte.
        tensors[name] = tensor.contiguous().clone() if shared else tensor.contiguous()
    return tensors


def _encode(value: object, legacy: PublishedFile) -> object:
    """``value`` for JSON, with fractions in the form that ``demucs.hf`` decodes."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Fraction():
            return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
        case list() | tuple():
            return [_encode(item, legacy) for item in cast(list[object], value)]
        case dict() if all(isinstance(key, str) for key in cast(dict[object, object], value)):
            return {key: _encode(item, legacy) for key, item in cast(dict[str, object], value).items()}
        case _:
            raise _refusal(
                legacy, f"its arguments contain a {type(value).__name__}, which JSON cannot represent"
            )


def _sorted_header(content: bytes) -> bytes:
    """The same safetensors file with sorted header keys, because the library's order of metadata is random.

    A file is an 8-byte little-endian length, a JSON header of that length padded with spaces, and the tensors, whose
    offsets count from the header's end (https://github.com/huggingface/safetensors#format).
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def _reason(error: Exception) -> str:
    """The restricted unpickler's own message, without torch's advice on how to execute the file."""
    cause = error.__context__ or error
    return str(cause).partition(". Please use")[0].rstrip(".") or type(cause).__name__


def _refusal(legacy: PublishedFile, reason: str) -> ModelFileError:
    return ModelFileError(
        f"{legacy.name} cannot be converted: {reason}. Pull or add the safetensors file of these weights instead."
    )
