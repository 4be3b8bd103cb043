"""Our SCNet against pymss-core's: the names of the parameters, and the output."""

from dataclasses import replace

import pytest
import torch
from tiny_chunked import SCNET, ours, pymss_network, theirs

from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.networks import ScnetNetwork
from bandscope_dagster.separation.chunked import build_module
from bandscope_dagster.separation.scnet.network import padding

FINE_BANDS = replace(
    SCNET,
    band_shares=(0.23, 0.37, 0.4),
    band_strides=(1, 4, 4),
    band_kernels=(3, 4, 4),
    band_depths=(3, 3, 3),
)
DEEP = replace(SCNET, channels=(4, 4, 8, 12), dual_paths=4, compression=2, expansion=2, stems=("one", "two"))


@pytest.mark.parametrize("network", [SCNET, FINE_BANDS, DEEP], ids=["large", "ihf", "deep"])
@pytest.mark.parametrize("frames", [256, 257, 1000, 2410, 4096])
def test_the_output_equals_that_of_pymss(network: ScnetNetwork, frames: int) -> None:
    audio = torch.randn((3, 2, frames), generator=torch.Generator().manual_seed(frames))
    with torch.inference_mode():
        found = ours(network)(audio)
    wanted = theirs(network)(audio)
    assert found.shape == (3, len(network.stems), 2, frames)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * max(1, float(wanted.abs().max())))


@pytest.mark.parametrize("name", ["scnet-large", "scnet-xl-ihf"])
def test_the_parameters_of_a_published_network_have_the_published_names_and_shapes(name: str) -> None:
    network = find_model(name).network
    assert isinstance(network, ScnetNetwork)
    with torch.device("meta"):
        ours_, theirs_ = (
            {key: tensor.shape for key, tensor in module.state_dict().items()}
            for module in (build_module(network), pymss_network(network))
        )
    assert ours_ == theirs_
    # A pickle has four bytes for each value, and some hundred for each name.
    values = sum(shape.numel() for shape in ours_.values())
    legacy = find_model(name).files[0].legacy
    assert legacy is not None and 0 < legacy.bytes - 4 * values < 1000 * len(ours_)


@pytest.mark.parametrize("frames", [1, 63, 64, 65, 128, 2410])
def test_the_padding_gives_an_even_number_of_frames(frames: int) -> None:
    padded = frames + padding(SCNET, frames)
    assert padded > frames and padded % SCNET.hop == 0 and (padded // SCNET.hop + 1) % 2 == 0
