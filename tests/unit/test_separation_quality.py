"""The figures of a separation as JSON: what every reader can parse, and what comes back."""

import json
import math

import pytest

from bandscope_dagster.separation.quality import FLOOR_DB, SeparationQuality, StemQuality

QUALITY = SeparationQuality(
    FLOOR_DB,
    (
        StemQuality("vocals", 1.0, 0.75, -12.5, -11.25, False),
        StemQuality("drums", 0.0, 0.0, None, None, True),
    ),
)


def strict(token: str) -> float:
    raise ValueError(f"{token} is no JSON")


def test_json_has_plain_names_and_null_where_there_is_no_level() -> None:
    assert json.loads(QUALITY.to_json(), parse_constant=strict) == {
        "residual_db": -200.0,
        "stems": [
            {
                "stem": "vocals",
                "share": 1.0,
                "peak": 0.75,
                "rms_dbfs": -12.5,
                "loudness_lufs": -11.25,
                "silent": False,
            },
            {
                "stem": "drums",
                "share": 0.0,
                "peak": 0.0,
                "rms_dbfs": None,
                "loudness_lufs": None,
                "silent": True,
            },
        ],
    }


def test_what_is_written_is_read_back() -> None:
    assert SeparationQuality.from_json(QUALITY.to_json()) == QUALITY


def test_what_a_later_version_adds_is_passed_over() -> None:
    values = json.loads(QUALITY.to_json())
    values["sdr_db"] = 7.5
    values["stems"][0]["true_peak"] = 0.8
    assert SeparationQuality.from_json(json.dumps(values)) == QUALITY


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_json_does_not_have_is_an_error_and_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        SeparationQuality(number, ()).to_json()
