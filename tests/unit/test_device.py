"""The device of the models: its choice, and an error for an absent one."""

import pytest

from bandscope_dagster.device import available_devices, is_out_of_memory, resolve_device
from bandscope_dagster.errors import SettingsError


def test_every_available_device_holds_a_tensor() -> None:
    import torch

    for name in available_devices():
        assert torch.ones(2, device=name).sum().item() == 2


def test_the_cpu_is_always_there_and_the_last_choice() -> None:
    assert available_devices()[-1] == "cpu"
    assert available_devices().count("cpu") == 1


def test_auto_takes_an_accelerator_before_the_cpu() -> None:
    import torch

    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    assert (resolve_device("auto") == "cpu") is not accelerated


def test_a_device_that_is_there_is_taken_as_it_is() -> None:
    for name in available_devices():
        assert resolve_device(name) == name


@pytest.mark.parametrize("absent", ["cuda:99", "tpu", "", "CPU"])
def test_an_absent_device_is_an_error_that_says_what_is_there(absent: str) -> None:
    with pytest.raises(SettingsError) as raised:
        resolve_device(absent)
    message = str(raised.value)
    assert f"BANDSCOPE_DEVICE={absent!r}" in message
    assert ", ".join(available_devices()) in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_an_error_that_says_so_means_that_memory_ran_out(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
