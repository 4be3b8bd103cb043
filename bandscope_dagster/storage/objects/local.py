"""The object store on a local or mounted disk: each object is a file, which appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from bandscope_dagster.storage.objects.keys import check_key, is_listed
from bandscope_dagster.storage.objects.protocol import CHUNK_BYTES, PendingObject, StoredObject
from bandscope_dagster.storage.objects.retries import with_retries

logger = logging.getLogger(__name__)

PENDING_FOLDER = ".pending"  # hidden, and not below a table: globs such as stems/*.parquet never match it

PLAIN_NAME = re.compile(r"[0-9A-Za-z_-]+\.parquet")  # of our tables; a listing of many skips further checks

# Errors of a network mount whose server is away. A full or read-only disk is not a transient fault.
TRANSIENT_ERRNOS = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)

_BEFORE_RENAME_NS = 1_000_000  # the time of a published file is this much earlier: `StoredObject.may_grow`

T = TypeVar("T")


class LocalStore:
    """Objects as files below ``root``. Links to files outside ``root`` are refused."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().resolve()
        self._sweep_once = threading.Lock()
        self._swept = False

    @property
    def url(self) -> str:
        """The root folder, absolute."""
        return str(self.root)

    def uri(self, key: str) -> str:
        """The file's absolute path."""
        return str(self.root / check_key(key))

    def list(
        self, prefix: str = "", *, after: str | None = None, any_name: bool = False
    ) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``. Keys are ordered by their bytes, as on S3."""
        folder = self._path(prefix) if prefix else self.root
        last = os.fsencode(after or "")
        start = len(f"{self.root}/")
        for entry in self._walk(folder):
            key = entry.path[start:]
            if (not last or os.fsencode(key) > last) and is_listed(key, any_name=any_name):
                with suppress(FileNotFoundError):  # deleted after its folder was read
                    yield _stored(key, self._stat(key, entry))

    def fingerprints(self, folders: Sequence[str]) -> dict[str, dict[str, str]]:
        """See ``ObjectStore.fingerprints``. It takes 5 µs per file; ``list`` takes 13.

        The folders are read one after the other: threads wait for the interpreter lock, and six took twice as long.
        """
        return {folder: self._fingerprints(folder) for folder in folders}

    def _fingerprints(self, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in self._entries(self._path(folder)):
            name = entry.name
            if PLAIN_NAME.fullmatch(name) or is_listed(f"{folder}/{name}", any_name=False):
                with suppress(FileNotFoundError):  # deleted after its folder was read
                    if entry.is_file() and (not entry.is_symlink() or self._is_inside(Path(entry.path))):
                        found[name] = _fingerprint(self._stat(f"{folder}/{name}", entry))
        return found

    def head(self, key: str) -> StoredObject | None:
        """See ``ObjectStore.head``."""
        path = self._path(key)
        try:
            status = self.call(key, lambda: os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _stored(key, status) if stat.S_ISREG(status.st_mode) else None

    def read(self, key: str) -> bytes:
        """See ``ObjectStore.read``."""
        return b"".join(self.chunks(key))

    def chunks(self, key: str) -> Iterator[bytes]:
        """See ``ObjectStore.chunks``. If the file is replaced meanwhile, the old file is read to its end."""
        position = 0
        with self.open(key) as file:

            def read_on() -> bytes:
                return os.pread(file.fileno(), CHUNK_BYTES, position)

            while chunk := self.call(key, read_on):
                position += len(chunk)
                yield chunk

    def open(self, key: str) -> BinaryIO:
        """See ``ObjectStore.open``."""
        path = self._path(key)
        return self.call(key, lambda: path.open("rb"))

    def create(self, key: str) -> PendingObject:
        """See ``ObjectStore.create``. The first call also removes the files of killed writers."""
        path = self._path(key)
        with self._sweep_once:
            if not self._swept:
                self.sweep()
                self._swept = True
        return self.call(key, lambda: _PendingFile(self, key, path))

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        path = self._path(key)
        self.call(key, lambda: path.unlink(missing_ok=True))

    def polars_options(self) -> dict[str, str]:
        """An empty dictionary: polars needs no options for local paths."""
        return {}

    def sweep(self) -> int:
        """Delete the pending files whose writers have exited; returns their number.

        A writer holds a lock on its file until it exits, so a file whose lock is free has no writer.
        """
        removed = 0
        with suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.root / PENDING_FOLDER):
                with (
                    suppress(FileNotFoundError, BlockingIOError, PermissionError),
                    open(entry.path, "rb") as file,
                ):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)
                    removed += 1
        return removed

    def _walk(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """The files below ``folder`` in key order. Links to folders are not followed, so there are no loops."""
        # S3 compares whole keys, in which "/" follows a folder's name: "a-b/x" comes before "a/x".
        shown = {
            os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b""): entry
            for entry in self._entries(folder)
            if not entry.name.startswith(".")
        }
        for name, entry in sorted(shown.items()):
            if name.endswith(b"/"):
                yield from self._walk(folder / entry.name)
            elif entry.is_file() and (not entry.is_symlink() or self._is_inside(Path(entry.path))):
                yield entry

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """The entries of a folder; none if there is no such folder."""

        def scan() -> list[os.DirEntry[str]]:
            with os.scandir(folder) as entries:
                return list(entries)

        try:
            return self.call(folder.name, scan)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _stat(self, key: str, entry: os.DirEntry[str]) -> os.stat_result:
        """The entry's status. The retry policy starts only after a failure: it costs more than the call itself."""
        try:
            return entry.stat()
        except OSError:
            return self.call(key, entry.stat)

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        if not self._is_inside(path):
            raise PermissionError(
                errno.EACCES, f"{key} is a link out of the store {self.url}; replace it with the file itself"
            )
        return path

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run an operation on ``key``. Transient faults are retried; all others name the key and the store."""
        try:
            return with_retries(operation, _is_transient)
        except OSError as error:
            # Python chooses the subclass (FileNotFoundError, …) by the number.
            cause = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, f"{cause}: {key} in the store {self.url}") from error


class _PendingFile(PendingObject):
    """A file in the pending folder, locked by its writer. ``commit`` moves it to its final path."""

    def __init__(self, store: LocalStore, key: str, target: Path) -> None:
        folder = store.root / PENDING_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._store = store
        self._target = target
        self._pending, file = _locked_file(folder)
        super().__init__(key, file)

    def _publish(self) -> None:
        self.file.flush()
        # Never repeated: after a failed fsync the kernel discards the data, and a second fsync succeeds without it.
        os.fsync(self.file.fileno())
        # The clock of files ticks every few milliseconds: the rename could be in the same tick as the last write.
        status = os.fstat(self.file.fileno())
        os.utime(self.file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns - _BEFORE_RENAME_NS))
        self._store.call(self.key, self._rename)
        _sync_folder(self._target.parent)

    def _rename(self) -> None:
        _make_folder(self._target.parent)
        os.replace(self._pending, self._target)

    def _discard(self) -> None:
        self._pending.unlink(missing_ok=True)


def _stored(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(
        key=key,
        size=status.st_size,
        fingerprint=_fingerprint(status),
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
        # A write sets both times. After a rename, or after a copy that keeps the time, the file is whole.
        may_grow=status.st_mtime_ns >= status.st_ctime_ns,
    )


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _locked_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file, locked by this process."""
    while True:
        path = folder / f"{uuid.uuid4().hex}.part"
        file = open(path, "xb")  # noqa: SIM115 - closed by commit or abort
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


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS
