"""A Demucs pickle is converted to the safetensors file of the same model, without executing the pickle."""

import pickle
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from demucs.hf import load_safetensors_model
from demucs.htdemucs import HTDemucs
from demucs.states import load_model
from legacy_demucs import listed, pickled, save_legacy
from safetensors.torch import load
from tiny_demucs import tiny_network

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.legacy import convert_legacy, convert_state, shapes_in


def test_the_converted_model_computes_the_same_bits_as_the_pickle(tmp_path: Path) -> None:
    path = save_legacy(tiny_network(segment=22_050), tmp_path)
    converted = tmp_path / "converted.safetensors"
    converted.write_bytes(convert_legacy(path.read_bytes(), listed(path.read_bytes())))

    before, after = load_model(path).eval(), load_safetensors_model(converted).eval()
    assert type(after) is HTDemucs and after.segment == Fraction(1, 2)
    audio = torch.randn(1, 2, 22_050)
    with torch.inference_mode():
        assert torch.equal(before(audio), after(audio))


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    content = save_legacy(tiny_network(), tmp_path).read_bytes()
    assert len({convert_legacy(content, listed(content)) for _ in range(4)}) == 1


class TouchesAFile:
    """Creates a file if it is unpickled without restriction; a hostile pickle could run any code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class RunsACommand(TouchesAFile):
    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("hostile", [TouchesAFile, RunsACommand])
def test_a_pickle_that_would_execute_code_is_refused_also_with_the_listed_digest(
    hostile: type[TouchesAFile], tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    content = pickled({"klass": HTDemucs, "args": (), "kwargs": {}, "state": {"weight": hostile(touched)}})
    with pytest.raises(ModelFileError, match=r"restricted unpickler refuses it: .*GLOBAL") as refused:
        convert_legacy(content, listed(content))
    assert "safetensors file of these weights instead" in str(refused.value)
    assert "`weights_only`" not in str(refused.value)  # torch's advice on how to execute it
    assert not touched.exists()
    torch.load(save_bytes(tmp_path, content), weights_only=False)
    assert touched.exists(), "the pickle has no effect, so the test proves nothing"


def save_bytes(folder: Path, content: bytes) -> Path:
    path = folder / "saved.th"
    path.write_bytes(content)
    return path


def test_what_has_another_digest_is_not_even_read() -> None:
    content = pickled({"klass": HTDemucs})
    with pytest.raises(ModelFileError, match=r"expected \d+ bytes with SHA-256 \w{64}, found 3 bytes with"):
        convert_legacy(b"abc", listed(content))


STATE = {"weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ([1, 2], "not a dict of klass"),
        ({"klass": HTDemucs, "args": (), "kwargs": {}}, "not a dict of klass"),
        ({"klass": Fraction, "args": (), "kwargs": {}, "state": STATE}, "not HTDemucs"),
        ({"klass": HTDemucs, "args": 3, "kwargs": {}, "state": STATE}, "arguments are not a list and a dict"),
        (
            {"klass": HTDemucs, "args": (), "kwargs": {"a": STATE["weight"]}, "state": STATE},
            "contain a Tensor",
        ),
        ({"klass": HTDemucs, "args": (), "kwargs": {"a": {1: 2}}, "state": STATE}, "contain a dict"),
        ({"klass": HTDemucs, "args": (), "kwargs": {}, "state": [STATE]}, "a list, not a mapping"),
        (
            {"klass": HTDemucs, "args": (), "kwargs": {}, "state": {"weight": 3}},
            "'weight', which is not a named tensor",
        ),
    ],
)
def test_what_is_no_demucs_model_is_refused_with_what_is_wrong(package: object, reason: str) -> None:
    content = pickled(package)
    with pytest.raises(ModelFileError, match=reason):
        convert_legacy(content, listed(content))


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"klass": 1}, protocol=2)[:-3]])
def test_what_is_no_whole_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(ModelFileError, match="restricted unpickler refuses it"):
        convert_legacy(content, listed(content))


WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(3, dtype=torch.float16)}


@pytest.mark.parametrize(
    "package",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3, "callbacks": {"a": [1.0]}},
        {"model_state_dict": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}},
        {"state": {f"model.{name}": tensor for name, tensor in WEIGHTS.items()}},
        {f"module.model.{name}": tensor for name, tensor in WEIGHTS.items()},
    ],
    ids=["state", "state_dict", "module.", "model.", "both prefixes"],
)
def test_a_state_is_found_in_what_training_programs_write(package: object) -> None:
    content = pickled(package)
    converted = convert_state(content, listed(content))
    found = load(converted)
    assert found.keys() == WEIGHTS.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
        for name, tensor in WEIGHTS.items()
    )
    assert shapes_in(converted) == {"layer.weight": (2, 3), "layer.bias": (3,)}
    assert converted == convert_state(content, listed(content))


def test_tensors_that_share_memory_are_stored_each() -> None:
    whole = torch.arange(8.0)
    content = pickled({"a": whole, "b": whole, "c": whole[2:4], "d": whole.reshape(2, 4).T})
    found = load(convert_state(content, listed(content)))
    assert torch.equal(found["a"], whole) and torch.equal(found["b"], whole)
    assert torch.equal(found["c"], whole[2:4]) and torch.equal(found["d"], whole.reshape(2, 4).T)


@pytest.mark.parametrize("hostile", [TouchesAFile, RunsACommand])
def test_a_state_that_would_execute_code_is_refused(hostile: type[TouchesAFile], tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    content = pickled({"state_dict": WEIGHTS, "optimizer": hostile(touched)})
    with pytest.raises(ModelFileError, match=r"restricted unpickler refuses it: .*GLOBAL"):
        convert_state(content, listed(content))
    assert not touched.exists()
    torch.load(save_bytes(tmp_path, content), weights_only=False)
    assert touched.exists(), "the pickle has no effect, so the test proves nothing"


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ([1, 2], "a list, not a mapping"),
        ({}, "no tensors"),
        ({"state_dict": {}}, "no tensors"),
        ({"state_dict": [WEIGHTS]}, "a list, not a mapping"),
        ({"layer.weight": 3}, "'layer.weight', which is not a named tensor"),
        ({1: torch.zeros(2)}, "1, which is not a named tensor"),
    ],
)
def test_what_is_no_state_is_refused_with_what_is_wrong(package: object, reason: str) -> None:
    content = pickled(package)
    with pytest.raises(ModelFileError, match=reason):
        convert_state(content, listed(content))
