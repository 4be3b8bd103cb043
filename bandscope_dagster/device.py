"""The device that the models run on: which one it is, and when its memory has run out."""

from bandscope_dagster.errors import SettingsError


def available_devices() -> tuple[str, ...]:
    """The devices of this machine as torch names them, best first; the CPU is always the last."""
    import torch

    cuda = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*(["cuda"] if cuda else []), *cuda, *mps, "cpu")


def resolve_device(name: str) -> str:
    """The torch device for a setting: ``auto`` takes CUDA, then MPS, then the CPU; any other name is itself.

    Raises:
        SettingsError: the named device is absent. There is no fallback: a run that was meant for a GPU must
            not take a hundred times as long in silence.
    """
    present = available_devices()
    if name == "auto":
        return present[0]
    if name not in present:
        raise SettingsError(
            f"BANDSCOPE_DEVICE={name!r}, but torch sees only {', '.join(present)} here: set it to one of "
            f"these or to auto, or install the driver and the torch build for that device"
        )
    return name


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own on CUDA, plain RuntimeErrors on MPS and the CPU."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
