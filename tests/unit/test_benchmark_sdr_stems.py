"""The stems that ``benchmarks.sdr`` compares, and the true ones that it compares them with."""

from pathlib import Path

import pytest

from benchmarks.sdr import BadTracks, Measured, measured_stems


def preset(folder: Path, stems: str) -> str:
    folder.mkdir()
    path = folder / "made.toml"
    path.write_text(f"[stems]\n{stems}")
    return str(path)


def test_stems_that_the_true_other_contains_are_added_to_it() -> None:
    six = ("drums", "bass", "other", "vocals", "guitar", "piano")
    found = measured_stems("htdemucs_6s", six)
    assert found["other"] == Measured(("other", "guitar", "piano"), ("other",))
    assert list(found) == ["drums", "bass", "other", "vocals"]
    assert measured_stems("htdemucs_6s", ("drums",)) == {"drums": Measured(("drums",), ("drums",))}
    assert measured_stems("six-stems", six)["other"] == found["other"]
    spleeter = measured_stems("spleeter-2stems", ("accompaniment",))
    assert spleeter["accompaniment"].true == ("drums", "bass", "other")


def test_the_rest_of_a_preset_is_compared_with_all_that_it_does_not_name(tmp_path: Path) -> None:
    two = preset(tmp_path / "a", 'vocals = "htdemucs"\ndrums = "htdemucs"\nother = "rest"')
    assert measured_stems(two, ("vocals", "drums", "other"))["other"] == Measured(
        ("other",), ("bass", "other")
    )
    guitar = preset(tmp_path / "b", 'vocals = "htdemucs"\nguitar = "htdemucs_6s"\nband = "rest"')
    assert measured_stems(guitar, ("vocals", "guitar", "band"))["band"] == Measured(
        ("band", "guitar"), ("drums", "bass", "other")
    )
    own = preset(tmp_path / "c", 'other = "htdemucs"\nguitar = "htdemucs_6s"')
    assert measured_stems(own, ("other", "guitar")) == {"other": Measured(("other",), ("other",))}


def test_an_other_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    partial = 'vocals = "htdemucs"\nother = "htdemucs_6s"\nguitar = "htdemucs_6s"'
    mean = 'other = ["htdemucs", "htdemucs_6s"]\nguitar = "htdemucs_6s"\npiano = "htdemucs_6s"'
    for number, (separator, stems) in enumerate(
        [
            ("htdemucs_6s", ("other", "vocals")),
            ("six-stems", ("other",)),
            (partial, ("vocals", "other", "guitar")),
            (mean, ("other", "guitar", "piano")),
        ]
    ):
        name = preset(tmp_path / str(number), separator) if "=" in separator else separator
        with pytest.raises(
            BadTracks, match=r"'other' cannot be compared: the true one contains guitar, piano"
        ):
            measured_stems(name, stems)
    with pytest.raises(BadTracks, match="none of guitar can be compared"):
        measured_stems("htdemucs_6s", ("guitar",))
