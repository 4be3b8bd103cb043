from pathlib import Path

import pytest
import torch

from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.inventory import find_model, load_inventory
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.registry import SEPARATORS, load_separator

EMBEDDED = [name for name in SEPARATORS if find_model(name).embedded]
NOT_EMBEDDED = [name for name in SEPARATORS if name not in EMBEDDED]


def load(name: str, models_folder: Path = Path("nowhere")) -> Separator:
    return load_separator(name, models_folder, "cpu", SeparationOptions())


def test_the_separators_are_those_of_the_inventory() -> None:
    assert list(SEPARATORS) == [
        model.name for model in load_inventory().values() if model.kind == "separator"
    ]


def test_an_unknown_separator_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(SettingsError) as raised:
        load("spleeter-5stems")
    assert "BANDSCOPE_SEPARATOR='spleeter-5stems'" in str(raised.value)
    assert all(name in str(raised.value) for name in SEPARATORS)


@pytest.mark.parametrize("name", NOT_EMBEDDED)
def test_weights_that_are_not_here_are_an_error_that_names_the_command(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is missing") as raised:
        load(name, tmp_path)
    assert f"bandscope models pull {name}" in str(raised.value)
    assert find_model(name).files[0].published.sha256 in str(raised.value)


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedded_separator_keeps_the_protocol(name: str) -> None:
    separator = load(name)
    noise = torch.randn((1, 2, separator.plan.length), generator=torch.Generator().manual_seed(0))

    stems = separator.separate(noise)

    assert separator.identity.name == name
    assert len(separator.identity.sha256) == 64
    assert len(set(separator.stems)) == len(separator.stems)
    assert separator.batch >= 1
    assert separator.device == "cpu"
    assert stems.shape == (1, len(separator.stems), 2, separator.plan.length)
    assert stems.dtype == torch.float32
    assert stems.isfinite().all()


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedded_separator_finds_silence_in_silence(name: str) -> None:
    separator = load(name)
    assert separator.separate(torch.zeros((1, 2, separator.plan.length))).abs().max() < 1e-5


def test_every_embedded_separator_has_the_stems_of_the_inventory() -> None:
    assert {name: load(name).stems for name in EMBEDDED} == {
        name: find_model(name).stems for name in EMBEDDED
    }
    assert all(find_model(name).stems for name in SEPARATORS)


def test_only_the_chosen_stems_are_returned_and_they_are_part_of_the_identity() -> None:
    whole = load("spleeter-2stems")
    options = SeparationOptions(stems=("accompaniment",))
    chosen = load_separator("spleeter-2stems", Path("nowhere"), "cpu", options)
    segment = torch.randn((1, 2, whole.plan.length), generator=torch.Generator().manual_seed(0))
    assert chosen.stems == ("accompaniment",)
    assert torch.equal(chosen.separate(segment), whole.separate(segment)[:, 1:])
    assert chosen.identity.params == whole.identity.params | {"stems": ["accompaniment"]}
    assert "stems" not in whole.identity.params, "the stored results of all versions would be outdated"


def test_a_stem_that_the_weights_lack_is_an_error_that_names_those_they_have() -> None:
    options = SeparationOptions(stems=("piano",))
    with pytest.raises(SettingsError, match="no stem 'piano'; its stems are vocals, accompaniment"):
        load_separator("spleeter-2stems", Path("nowhere"), "cpu", options)


def test_the_batch_is_the_one_that_was_set() -> None:
    separator = load_separator("spleeter-2stems", Path("nowhere"), "cpu", SeparationOptions(batch=3))
    assert separator.batch == 3
