"""The ``bandscope`` command in this process: its output and its exit code."""

import sys
from dataclasses import dataclass

import pytest

from bandscope_dagster.cli.app import command_line


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Runs commands through ``command_line``, which also prints errors."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Ended:
        """Run ``bandscope <arguments>``."""
        self.monkeypatch.setattr(sys, "argv", ["bandscope", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command_line()
        printed = self.capsys.readouterr()
        return Ended(ended.value.code if isinstance(ended.value.code, int) else 0, printed.out, printed.err)
