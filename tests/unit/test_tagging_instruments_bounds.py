"""tagging/instruments_bounds: the calibration is complete; a file that is not usable is refused by class."""

from pathlib import Path

import pytest

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.tagging.audioset import INSTRUMENT_CLASSES
from bandscope_dagster.tagging.instruments_bounds import ClassBounds, load_bounds, read_bounds
from bandscope_dagster.tagging.instruments_network import CLASSES

GOOD = 'scale = 1.5\nrivals = 0.2\noffset = -0.25\npresent_from = 0.4\nchosen_on = "real notes"\n'


def write(folder: Path, changed: dict[str, str]) -> Path:
    """A file with good bounds for all classes but the ``changed`` ones; an empty text leaves the class out."""
    path = folder / "instruments_bounds.toml"
    tables = dict.fromkeys(CLASSES, GOOD) | changed
    path.write_text("".join(f'["{name}"]\n{table}\n' for name, table in tables.items() if table), "utf-8")
    return path


def test_the_shipped_bounds_are_usable_and_in_the_order_of_the_classes() -> None:
    assert list(load_bounds()) == list(CLASSES)


def test_the_classes_of_audioset_exist() -> None:
    named = {each.audioset for each in load_bounds().values()} - {None}
    assert named <= {*INSTRUMENT_CLASSES, "Speech"}


def test_bounds_are_read_by_class_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    swapped = write(tmp_path, {"piano": "", "harp": GOOD + 'audioset = "Harp"\n'})
    swapped.write_text(swapped.read_text() + f"[piano]\n{GOOD}")
    bounds = read_bounds(swapped)
    assert list(bounds) == list(CLASSES)
    assert bounds["piano"] == ClassBounds(1.5, 0.2, -0.25, 0.4, "real notes")
    assert bounds["harp"].audioset == "Harp"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("", "class 'harp' is missing"),
        (GOOD.replace("1.5", "nan"), "class 'harp': scale must be a finite number, not nan"),
        (GOOD.replace("1.5", "0.0"), "class 'harp': scale must be above 0, not 0.0"),
        (GOOD.replace("0.2\n", "-0.2\n"), "class 'harp': rivals must be at least 0, not -0.2"),
        (GOOD.replace("-0.25", "inf"), "class 'harp': offset must be a finite number, not inf"),
        (GOOD.replace("-0.25", '"much"'), "class 'harp': offset must be a finite number, not 'much'"),
        (GOOD.replace("offset = -0.25\n", ""), "class 'harp': offset must be a finite number, not None"),
        (GOOD.replace("0.4", "1.1"), r"class 'harp': present_from must be from 0 to 1, not 1\.1"),
        (GOOD.replace("0.4", "true"), "class 'harp': present_from must be a finite number, not True"),
        (
            GOOD.replace("real notes", "hope"),
            "class 'harp': chosen_on must be one of real notes, rendered audio",
        ),
        (GOOD + "audioset = 3\n", "class 'harp': audioset must be text, not 3"),
        (GOOD + "threshold = 0.3\n", "class 'harp': threshold is unknown"),
        (GOOD + f"[theremin]\n{GOOD}", "'theremin' is no class of the network"),
        (GOOD + "[broken", "instruments_bounds.toml .* cannot be used"),
    ],
)
def test_a_file_that_is_not_usable_is_refused_and_the_class_is_named(
    tmp_path: Path, table: str, says: str
) -> None:
    with pytest.raises(ModelFileError, match=says):
        read_bounds(write(tmp_path, {"harp": table}))


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, {"harp": "", "flute": GOOD.replace("1.5", "nan")})
    with pytest.raises(ModelFileError, match="'harp' is missing; class 'flute': scale") as refused:
        read_bounds(path)
    assert "Get it with a new installation of Bandscope" in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be used"):
        read_bounds(tmp_path / "instruments_bounds.toml")
