"""A ``bandscope`` command in a pseudo-terminal of 80 columns: all that it writes there, and the keys for it."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from select import select
from typing import Final

CTRL_C: Final = b"\x03"
STYLES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SILENCE_S: Final = 600.0  # without any output


class PseudoTerminal:
    """A command that is the foreground process of its own terminal."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        program = str(Path(sys.executable).with_name("bandscope"))
        variables = self._variables(environment)
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.execve(program, [program, *arguments], variables)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.printed = ""  # without colours and movements of the cursor

    @staticmethod
    def _variables(environment: Mapping[str, str]) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        return kept | {"TERM": "xterm-256color"} | dict(environment)

    def read_until(self, pattern: str) -> str:
        """Read until ``pattern`` is in the output after this call; returns the output of this call."""
        before = len(self.printed)
        while not re.search(pattern, self.printed[before:]):
            assert self._read(), f"the command ended before {pattern!r}: {self.printed}"
        return self.printed[before:]

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._terminal, key)

    def end(self) -> int:
        """Read to the end of the command; returns its exit code."""
        while self._read():
            pass
        _, status = os.waitpid(self._process, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        assert select([self._terminal], [], [], SILENCE_S)[0], f"no output: {self.printed}"
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # on Linux, the end of the last process in the terminal
            return False
        self.printed += STYLES.sub("", data.decode(errors="replace"))
        return bool(data)
