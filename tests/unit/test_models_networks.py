from typing import Any

import pytest

from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.models.networks import RoformerNetwork, ScnetNetwork, read_network

SCNET: dict[str, Any] = {
    "architecture": "scnet",
    "stems": ["drums", "vocals"],
    "chunks": {"frames": 485_100, "overlap": 4, "normalised": False},
    "channels": [4, 64],
    "n_fft": 4096,
    "hop": 1024,
    "band_shares": [0.2, 0.4, 0.4],
    "band_strides": [1, 4, 16],
    "band_kernels": [3, 4, 16],
    "band_depths": [3, 2, 1],
    "compression": 4,
    "time_kernel": 3,
    "dual_paths": 6,
    "expansion": 1,
}
ROFORMER: dict[str, Any] = {
    "architecture": "roformer",
    "stems": ["vocals", "accompaniment"],
    "chunks": {"frames": 352_800, "overlap": 2, "normalised": False},
    "bands": "mel",
    "width": 384,
    "depth": 6,
    "heads": 8,
    "head_width": 64,
    "n_fft": 2048,
    "hop": 441,
    "mask_layers": 2,
    "mask_expansion": 4,
}


def test_the_tables_of_the_inventory_become_networks() -> None:
    found = {name: type(model.network) for name, model in load_inventory().items() if model.network}
    assert found == {
        "scnet-large": ScnetNetwork,
        "scnet-xl-ihf": ScnetNetwork,
        "bs-roformer": RoformerNetwork,
        "bs-roformer-sw": RoformerNetwork,
        "mel-band-roformer": RoformerNetwork,
    }


def test_the_accompaniment_is_not_estimated() -> None:
    assert read_network(ROFORMER).estimated == ("vocals",)
    assert read_network(SCNET).estimated == ("drums", "vocals")


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        (SCNET, {"architecture": "demucs"}, "unknown architecture 'demucs'"),
        (SCNET, {"heads": 8}, "not the parameters of a scnet: .*'heads'"),
        (SCNET, {"n_fft": None}, "not the parameters of a scnet"),
        (SCNET, {"n_fft": "4096"}, "not the parameters of a scnet"),
        (SCNET, {"n_fft": True}, "n_fft = True is of another type"),
        (SCNET, {"n_fft": 4096.0}, "n_fft = 4096.0 is of another type"),
        (SCNET, {"hop": 0}, "above zero"),
        (SCNET, {"stems": ["drums", "drums"]}, "different names"),
        (SCNET, {"stems": [1, 2]}, "stems = .* is of another type"),
        (SCNET, {"channels": [2, 64]}, "the first of channels must be 4"),
        (SCNET, {"band_strides": [1, 4]}, "three bands"),
        (SCNET, {"band_shares": [0.2, 0.2, 0.2]}, "must add up to 1"),
        (SCNET, {"time_kernel": 4}, "time_kernel must be odd"),
        (SCNET, {"dual_paths": 5}, "dual_paths must be even"),
        (SCNET, {"chunks": {"frames": 100, "overlap": 1, "normalised": False}}, "overlap must be 2 or more"),
        (SCNET, {"chunks": {"frames": 10, "overlap": 2, "normalised": False}}, "at least 20 frames"),
        (SCNET, {"chunks": {"frames": 100, "overlap": 2}}, "normalised"),
        (
            SCNET,
            {"chunks": {"frames": 4096, "overlap": 2, "normalised": 1}},
            "normalised = 1 is of another type",
        ),
        (SCNET, {"chunks": {"frames": 4095, "overlap": 2, "normalised": True}}, "a window or more"),
        (ROFORMER, {"bands": [1024]}, "every frequency of the spectrogram once"),
        (ROFORMER, {"bands": "bark"}, "."),
        (ROFORMER, {"head_width": 7}, "head_width must be even"),
    ],
    ids=str,
)
def test_parameters_that_do_not_make_a_network_are_refused(
    table: dict[str, Any], change: dict[str, Any], says: str
) -> None:
    read_network(table)
    with pytest.raises(ValueError, match=says):
        read_network(table | change)


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(ValueError, match=r"not the parameters of a roformer: .*'width'"):
        read_network({name: value for name, value in ROFORMER.items() if name != "width"})
