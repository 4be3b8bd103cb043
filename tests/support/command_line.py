"""The ``bandscope`` command in this process: what it prints, and its exit code."""

import sys
from dataclasses import dataclass

import pytest

from bandscope_dagster.cli.app import main


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Runs commands through ``main``, errors included."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Ended:
        """``bandscope <arguments>``"""
        self.monkeypatch.setattr(sys, "argv", ["bandscope", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self.capsys.readouterr()
        return Ended(ended.value.code if isinstance(ended.value.code, int) else 0, printed.out, printed.err)
