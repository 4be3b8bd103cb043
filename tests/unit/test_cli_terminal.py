"""Output of commands: no text of a stranger reaches the terminal as a command, or changes the direction of writing."""

import io
import json
import pty
import re

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from syntax_trees import ROOT

from bandscope_dagster.cli.terminal import SafeConsole, lasting_console, one_line, printable

HOSTILE = "a\x1b[31m\x07\r\x9b2J\u202egnp.wav\u2066\u2028\udce9\x00"


def printed(what: object, **how: object) -> str:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    console.print(what, **how)
    return console.file.getvalue()


def table() -> Table:
    grid = Table(title=HOSTILE)
    grid.add_column(HOSTILE)
    grid.add_row(HOSTILE)
    return grid


@pytest.mark.parametrize("what", [HOSTILE, Text(HOSTILE), table()], ids=["text", "Text", "table"])
def test_whatever_is_printed_has_no_invisible_characters(what: object) -> None:
    output = printed(what, soft_wrap=True)
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\udc00-\udfff]", output
    )
    assert "\\u001b[31m" in output and "\\u202egnp.wav" in output


def test_errors_rules_and_raw_output_have_none_either() -> None:
    console = SafeConsole(file=io.StringIO(), width=200)
    console.rule(HOSTILE)
    console.out(HOSTILE)
    with Progress(console=console) as progress:
        progress.add_task(HOSTILE, total=1)
    assert not set(console.file.getvalue()) & set("\x1b\x07\x9b\u202e\u2066")


def test_visible_text_of_any_language_is_unchanged() -> None:
    for text in (
        "夜に駆ける",
        "क\u200dष",
        "👨\u200d👩\u200d👧",
        "a\u00a0b\u3000c",
        "tab\tand\nline",
        "é",
    ):
        assert printable(text) == text
        assert printable(printable(HOSTILE)) == printable(HOSTILE)


def test_json_stays_json() -> None:
    value = {"title": HOSTILE.replace("\udce9", "")}
    text = printed(json.dumps(value, ensure_ascii=False), soft_wrap=True, markup=False, highlight=False)
    assert json.loads(text) == value


def test_a_name_in_one_line_has_no_line_breaks() -> None:
    assert one_line("two\nlines\tand\x1b") == "two\\nlines\\tand\\u001b"


def test_every_command_prints_through_this_console() -> None:
    """Another way to the terminal would need its own care."""
    allowed = {"terminal.py", "process_end.py"}
    found = {
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "bandscope_dagster" / "cli").glob("*.py")
        if path.name not in allowed
        for line in path.read_text().splitlines()
        if re.search(r"(?<![.\w])(print|Console)\(|typer\.(echo|secho)|sys\.stdout\.write", line)
    }
    assert found == set()


def test_the_commands_of_one_terminal_get_one_lasting_console() -> None:
    shown, terminal = pty.openpty()
    with open(shown, "rb"), open(terminal, "w") as file, lasting_console(SafeConsole(file=file)) as outer:
        assert outer.is_terminal and outer.file is not file
        with lasting_console(outer) as inner:
            assert inner is outer
