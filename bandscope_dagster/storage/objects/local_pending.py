"""Files of a local store while they are written: hidden, locked by their writer, moved to their place when whole."""

import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from bandscope_dagster.storage.objects.protocol import PendingObject

PENDING_FOLDER = ".pending"  # hidden, and not below a table: globs such as stems/*.parquet never match it
SUFFIX = ".part"
_BEFORE_RENAME_NS = 1_000_000  # the time of a published file is this much earlier: `StoredObject.may_grow`

# Of exFAT, and of some mounts.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)

Call = Callable[[str, Callable[[], None]], None]


def sweep(root: Path) -> int:
    """Delete the pending files whose writers have exited; returns their number."""
    removed = 0
    for path in _without_writer(root):
        with suppress(FileNotFoundError, PermissionError):
            path.unlink()
            removed += 1
    return removed


def remove_if_empty(root: Path) -> None:
    """Remove the pending folder, unless a file is in it; the next writer makes it again."""
    with suppress(OSError):
        (root / PENDING_FOLDER).rmdir()


def left_over(root: Path) -> list[Path]:
    """The pending files whose writers have exited; they are only looked at."""
    return sorted(_without_writer(root))


def _without_writer(root: Path) -> Iterator[Path]:
    """The pending files that no process writes, each locked while the caller has it.

    A writer holds a lock on its file until it exits, so a file whose lock is free has no writer.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(root / PENDING_FOLDER):
            if not entry.name.endswith(SUFFIX):
                continue  # not ours: exports go into folders of users
            with (
                suppress(FileNotFoundError, BlockingIOError, PermissionError),
                open(entry.path, "rb") as file,
            ):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield Path(entry.path)


class PendingFile(PendingObject):
    """A file in the pending folder, locked by its writer. ``commit`` moves it to its final path."""

    def __init__(self, root: Path, call: Call, key: str, target: Path) -> None:
        """A file that ``commit`` moves to ``target``, both below ``root``. ``call`` retries an operation on ``key``."""
        self._call = call
        self._target = target
        self._pending, file = _locked_file(root / PENDING_FOLDER)
        super().__init__(key, file)

    def _publish(self) -> None:
        self.file.flush()
        # The clock of files ticks every few milliseconds: the rename could be in the same tick as the last write.
        status = os.fstat(self.file.fileno())
        os.utime(self.file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns - _BEFORE_RENAME_NS))
        # Never repeated: after a failed fsync the kernel discards the data, and a second fsync succeeds without it.
        os.fsync(self.file.fileno())
        self._call(self.key, self._rename)
        _sync_folder(self._target.parent)

    def commit_new(self) -> bool:
        """Make the file visible unless another one has its place; returns True if it is visible.

        False does not prove that the other file has other bytes: a network mount may carry a link out, and then report
        a fault, after which the repeated link finds its own file.
        """
        self._ended = True
        is_new: list[bool] = []
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self._call(self.key, lambda: is_new.append(_link(self._pending, self._target)))
            _sync_folder(self._target.parent)
            return is_new[-1]
        finally:
            self._discard()
            self.file.close()

    def _rename(self) -> None:
        _make_folder(self._target.parent)
        os.replace(self._pending, self._target)

    def _discard(self) -> None:
        self._pending.unlink(missing_ok=True)


def _link(pending: Path, target: Path) -> bool:
    """Give ``pending`` the name ``target`` too, in one step; False if a file has that name."""
    _make_folder(target.parent)
    try:
        os.link(pending, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Some file systems have no second names. The lock of the folder is then what makes it one step.
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if target.exists():
                return False
            os.replace(pending, target)
        finally:
            os.close(folder)
    return True


def _locked_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file, locked by this process, in a folder that is made if need be."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
        try:
            file = open(path, "x+b")  # noqa: SIM115 - closed by commit or abort; readable, for writers that amend a header
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        # Before the lock, a sweep of another process may have deleted the file.
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable: it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
