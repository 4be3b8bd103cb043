"""The object store on a local or mounted disk: files that appear whole or not at all."""

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

from bandscope_dagster.storage.objects.protocol import (
    CHUNK_BYTES,
    PendingObject,
    StoredObject,
    check_key,
    is_listed,
    with_retries,
)

logger = logging.getLogger(__name__)

PENDING_FOLDER = ".pending"  # hidden, and beside the tables: globs such as stems/*.parquet never match it

PLAIN_NAME = re.compile(r"[0-9A-Za-z_-]+\.parquet")  # our tables': a listing of many need not look closer

# What a network mount reports while its server is away; a full or read-only disk is no passing fault.
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

T = TypeVar("T")


class LocalStore:
    """Objects as files below ``root``. Links that lead out of ``root`` are refused."""

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
        """See ``ObjectStore.list``; the order is that of S3, by the bytes of the keys."""
        folder = self._path(prefix) if prefix else self.root
        behind = os.fsencode(after or "")
        start = len(f"{self.root}/")
        for entry in self._walk(folder):
            key = entry.path[start:]
            if (not behind or os.fsencode(key) > behind) and is_listed(key, any_name=any_name):
                with suppress(FileNotFoundError):  # deleted since its folder was read
                    yield _stored(key, self._stat(key, entry))

    def fingerprints(self, folders: Sequence[str]) -> dict[str, dict[str, str]]:
        """See ``ObjectStore.fingerprints``; 5 µs a file, where ``list`` takes 13.

        One folder after the other: threads wait for each other's interpreter lock, and six took twice as long.
        """
        return {folder: self._fingerprints(folder) for folder in folders}

    def _fingerprints(self, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in self._entries(self._path(folder)):
            name = entry.name
            if PLAIN_NAME.fullmatch(name) or is_listed(f"{folder}/{name}", any_name=False):
                with suppress(FileNotFoundError):  # deleted since its folder was read
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
        """See ``ObjectStore.chunks``; a file that is replaced meanwhile is read to its old end."""
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
        """See ``ObjectStore.create``. The first call also sweeps what killed writers left."""
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
        """Nothing: polars reads local paths as they are."""
        return {}

    def sweep(self) -> int:
        """Delete the pending files whose writers are dead; returns how many there were.

        A writer holds a lock on its file for as long as it lives, so a file whose lock is free has no owner.
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
        """The files below ``folder`` in key order; links to folders are not followed: no loops."""
        # S3 compares whole keys, where a folder's name is followed by "/": "a-b/x" stands before "a/x".
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
        """What a folder holds; nothing where there is none."""

        def scan() -> list[os.DirEntry[str]]:
            with os.scandir(folder) as entries:
                return list(entries)

        try:
            return self.call(folder.name, scan)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _stat(self, key: str, entry: os.DirEntry[str]) -> os.stat_result:
        """Under the retry policy only where it fails: for the many files of a listing the policy costs more."""
        try:
            return entry.stat()
        except OSError:
            return self.call(key, entry.stat)

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        if not self._is_inside(path):
            raise PermissionError(
                errno.EACCES, f"{key} is a link out of the store {self.url}: put the file itself there"
            )
        return path

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run an operation on ``key``: retry passing faults, and name the key and the store in the rest."""
        try:
            return with_retries(operation, _is_transient)
        except OSError as error:
            # Python picks the subclass (FileNotFoundError, …) from the number.
            cause = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, f"{cause}: {key} in the store {self.url}") from error


class _PendingFile(PendingObject):
    """A file in the pending folder, locked by its writer, that is renamed to its place at commit."""

    def __init__(self, store: LocalStore, key: str, target: Path) -> None:
        folder = store.root / PENDING_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._store = store
        self._target = target
        self._pending, file = _locked_file(folder)
        super().__init__(key, file)

    def _publish(self) -> None:
        self.file.flush()
        # Not repeated on failure: the kernel drops what it could not write, and a second fsync then succeeds.
        os.fsync(self.file.fileno())
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
    )


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _locked_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file that this process holds a lock on."""
    while True:
        path = folder / f"{uuid.uuid4().hex}.part"
        file = open(path, "xb")  # noqa: SIM115 - it is closed by commit or abort
        fcntl.flock(file, fcntl.LOCK_EX)
        # Between the creation and the lock a sweep may have taken the file for a dead writer's.
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS
