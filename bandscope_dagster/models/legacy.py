"""Converts a Demucs pickle to the safetensors file that Demucs writes today, without executing the pickle.

Before 4.1, Demucs published its weights as pickles: ``demucs.states.save_with_checksum`` of a dict with the class, its
arguments and the state. A pickle can run any code when it is read, so three things are required: its full digest is in
the inventory, torch's restricted unpickler builds only tensors, plain values and the two classes below, and the result
has the expected structure. The output has the layout of ``demucs.hf`` (demucs 4.1).
"""

import hashlib
import io
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import LegacyFile

if TYPE_CHECKING:
    from torch import Tensor


def convert_legacy(content: bytes, legacy: LegacyFile) -> bytes:
    """The safetensors file with the weights of a pickle; equal weights give equal bytes.

    Raises:
        ModelFileError: ``content`` is not the listed file, the restricted unpickler refuses it, or it is not a Demucs
            model.
    """
    import torch
    from demucs.htdemucs import HTDemucs
    from safetensors.torch import save

    found = hashlib.sha256(content).hexdigest()
    if (len(content), found) != (legacy.bytes, legacy.sha256):
        raise _refusal(
            legacy,
            f"expected {legacy.bytes} bytes with SHA-256 {legacy.sha256}, "
            f"found {len(content)} bytes with SHA-256 {found}",
        )
    try:
        with torch.serialization.safe_globals([HTDemucs, Fraction]):
            package = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a bad file can raise any error; each has the same meaning here
        raise _refusal(legacy, f"the restricted unpickler refuses it: {_reason(error)}") from error

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


def _tensors(state: object, legacy: LegacyFile) -> dict[str, "Tensor"]:
    from torch import Tensor

    if not isinstance(state, Mapping):
        raise _refusal(legacy, f"its state is a {type(state).__name__}, not a mapping")
    tensors: dict[str, Tensor] = {}
    for name, tensor in cast(Mapping[object, object], state).items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise _refusal(legacy, f"its state has {name!r}, which is not a named tensor")
        tensors[name] = tensor.contiguous().clone()  # safetensors refuses tensors that share memory
    return tensors


def _encode(value: object, legacy: LegacyFile) -> object:
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


def _refusal(legacy: LegacyFile, reason: str) -> ModelFileError:
    return ModelFileError(
        f"{legacy.name} cannot be converted: {reason}. Pull or add the safetensors file of these weights instead."
    )
