"""Which device the models run on: the best one present, or exactly the one that was asked for."""

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
