"""The device of the models: its choice, and errors that mean its memory is full."""

from bandscope_dagster.errors import SettingsError


def available_devices() -> tuple[str, ...]:
    """The devices of this machine by their torch names, best first; the CPU is always last."""
    import torch

    cuda = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*(["cuda"] if cuda else []), *cuda, *mps, "cpu")


def resolve_device(name: str) -> str:
    """The torch device for a setting: ``auto`` is CUDA, else MPS, else the CPU; other names are returned as they are.

    Raises:
        SettingsError: the named device is absent. There is no fallback: without a warning, a run meant for a GPU
            would take 100 times as long.
    """
    present = available_devices()
    if name == "auto":
        return present[0]
    if name not in present:
        raise SettingsError(
            f"BANDSCOPE_DEVICE={name!r}, but torch finds only {', '.join(present)}; set it to one of these or to "
            f"auto, or install the driver and the torch build for {name}"
        )
    return name


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error means that memory ran out: torch's own error on CUDA, RuntimeErrors on MPS and the CPU."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
