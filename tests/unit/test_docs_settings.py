"""docs/settings.md equals what the fields of ``Settings`` give, and has every setting once."""

import re
import sys
from pathlib import Path

import pytest

from bandscope_dagster.settings import PREFIX, Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import settings_page
from write_docs import SETTINGS_PAGE


def test_the_page_equals_the_fields() -> None:
    assert SETTINGS_PAGE.read_text() == settings_page.page_text(), "run `python scripts/write_docs.py`"


def test_every_setting_has_one_row_with_its_default_and_description() -> None:
    rows = re.findall(
        r"^\| `(BANDSCOPE_\w+)` \| (.*?) \| .* \| (.*) \|$", SETTINGS_PAGE.read_text(), re.MULTILINE
    )
    fields = Settings.model_fields
    assert sorted(name for name, _, _ in rows) == sorted(f"{PREFIX}{name}".upper() for name in fields)
    for variable, default, meaning in rows:
        field = fields[variable.removeprefix(PREFIX).lower()]
        assert meaning == " ".join((field.description or "").split())
        shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
        assert default.startswith("unset" if field.default is None else f"`{shown}`")


@pytest.mark.parametrize("name", ["storage", "max_decode_silence_s"])
def test_a_setting_without_a_group_is_an_error_that_names_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {
        heading: tuple(n for n in names if n != name) for heading, names in settings_page.GROUPS.items()
    }
    monkeypatch.setattr(settings_page, "GROUPS", groups)
    with pytest.raises(settings_page.Ungrouped, match=rf"scripts/settings_page.py: \['{name}'\]"):
        settings_page.page_text()
