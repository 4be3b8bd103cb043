"""Ends a command's process without returning to the threads of native libraries."""

import atexit
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress


@contextmanager
def direct_exit() -> Generator[None]:
    """End the process directly after its exit handlers, with the exit code of the block.

    pyarrow reads through Python files in threads of its own. If such a thread asks for the interpreter while Python
    shuts down, Python up to 3.13 ends the thread inside C++ code, which aborts the process: a command that had
    finished, or was interrupted twice, ended with SIGABRT (https://github.com/python/cpython/issues/87135).

    Enter this first: exit handlers run in reverse order, so that all later ones run before this one.
    """
    code = 1  # of an exception that nothing catches

    def leave() -> None:
        ended_with = code
        try:
            if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]; None without a descriptor
                sys.stdout.flush()
        except OSError as error:  # a full disk, or a pipe whose reader has ended, such as `| head`
            ended_with = code or 1
            if not isinstance(error, BrokenPipeError):
                print(f"bandscope: the output is incomplete: {error}", file=sys.stderr)
        with suppress(OSError, AttributeError):
            sys.stderr.flush()
        os._exit(ended_with)

    atexit.register(leave)
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
