"""The end of a command's process: its exit code, its output, and its exit handlers."""

import os
import signal
import subprocess
import sys

import pytest

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
PRINTS = "from bandscope_dagster.cli.process_end import direct_exit\nwith direct_exit():\n    print('lost')"

READS_AT_THE_END = """
import io, threading
import pyarrow as pa, pyarrow.parquet as pq

class Slow(io.BytesIO):
    waits = threading.Event()
    def readinto(self, buffer):
        return self.wait() or super().readinto(buffer)
    def read(self, *size):
        return self.wait() or super().read(*size)
    def wait(self):
        if threading.current_thread() is not threading.main_thread():
            self.waits.set()
            threading.Event().wait(1)  # the interpreter shuts down meanwhile

content = io.BytesIO()
pq.write_table(pa.table({"a": [1, 2, 3]}), content)
file = pq.ParquetFile(Slow(content.getvalue()), pre_buffer=True)
threading.Thread(target=file.read_row_group, args=[0], daemon=True).start()
assert Slow.waits.wait(60)
"""


def _end(body: str, before: str = "") -> "subprocess.CompletedProcess[str]":
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    program = f"from bandscope_dagster.cli.process_end import direct_exit\n{before}\nwith direct_exit():\n{indented}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
    ],
)
def test_the_exit_code_and_the_output_are_those_of_the_command(last: str, code: int) -> None:
    """Also output that was not flushed is printed, and later exit handlers run."""
    ended = _end(f"import atexit\natexit.register(print, 'handler')\nprint('output', end=' ')\n{last}")
    assert (ended.returncode, ended.stdout) == (code, "output handler\n")
    assert ("ZeroDivisionError" in ended.stderr) == (last == "1 / 0")


def test_a_library_that_still_reads_does_not_abort_a_command_that_has_ended() -> None:
    """pyarrow's own thread waits for the interpreter while Python shuts down."""
    ended = _end(READS_AT_THE_END + "print('done')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_without_a_direct_exit_python_aborts() -> None:
    """If this fails after an upgrade of Python or pyarrow, ``direct_exit`` is no longer needed."""
    plain = subprocess.run(
        [sys.executable, "-c", READS_AT_THE_END + "print('done')"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (plain.returncode, plain.stdout) == (-signal.SIGABRT, "done\n")


def test_output_that_cannot_be_written_is_an_error() -> None:
    """Such as the answer of a query on a full disk."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PRINTS],
            env=BUFFERED,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert ended.returncode == 1
    assert "the output is incomplete" in ended.stderr and "No space left" in ended.stderr


def test_a_reader_that_ends_early_gets_no_message() -> None:
    """``bandscope … | head -1`` ends before all output is written."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS],
        env=BUFFERED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(300) == 1


def test_a_program_without_standard_output_ends_with_its_code() -> None:
    """``bandscope status >&-``."""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", PRINTS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")
