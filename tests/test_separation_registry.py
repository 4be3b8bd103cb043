import numpy as np
import pytest

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.separation.registry import SEPARATORS, load_separator


def test_an_unknown_separator_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(SettingsError) as raised:
        load_separator("spleeter-5stems", "cpu")
    assert "BANDSCOPE_SEPARATOR='spleeter-5stems'" in str(raised.value)
    assert all(name in str(raised.value) for name in SEPARATORS)


@pytest.mark.parametrize("name", SEPARATORS)
def test_every_separator_keeps_the_protocol(name: str) -> None:
    separator = load_separator(name, "cpu")
    noise = np.random.default_rng(0).standard_normal((1, 2, separator.plan.length), np.float32)

    stems = separator.separate(noise)

    assert separator.identity.name == name
    assert len(separator.identity.sha256) == 64
    assert len(set(separator.stems)) == len(separator.stems)
    assert separator.batch >= 1
    assert stems.shape == (1, len(separator.stems), 2, separator.plan.length)
    assert stems.dtype == np.float32
    assert np.isfinite(stems).all()


@pytest.mark.parametrize("name", SEPARATORS)
def test_every_separator_finds_silence_in_silence(name: str) -> None:
    separator = load_separator(name, "cpu")
    silence = np.zeros((1, 2, separator.plan.length), np.float32)
    assert np.abs(separator.separate(silence)).max() < 1e-5
