"""The object store on a local or mounted disk: each object is a file, which appears whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bandscope_dagster.storage.objects.keys import HIDDEN, check_key, is_hidden, is_listed
from bandscope_dagster.storage.objects.local_pending import PendingFile, sweep
from bandscope_dagster.storage.objects.protocol import CHUNK_BYTES, PendingObject, StoredObject
from bandscope_dagster.storage.objects.retries import with_retries

logger = logging.getLogger(__name__)


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


T = TypeVar("T")


class LocalStore:
    """Objects as files below ``root``. Links to files outside ``root`` are refused."""

    def __init__(self, root: str, kind: str = "store") -> None:
        """``kind`` is the word for ``root`` in messages."""
        self.kind = kind
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
        self,
        prefix: str = "",
        *,
        after: str | None = None,
        any_name: bool = False,
        left_out: Callable[[str, str], object] | None = None,
    ) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``. Keys are ordered by their bytes, as on S3."""
        folder = self._path(prefix) if prefix else self.root
        last = os.fsencode(after or "")
        start = len(f"{self.root}/")
        for entry in self._walk(folder, left_out or _warn, hidden=left_out is not None):
            key = entry.path[start:]
            if left_out is not None and is_hidden(key):
                left_out(key, HIDDEN)
            elif (not last or os.fsencode(key) > last) and is_listed(key, any_name=any_name):
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
                    if self._fault(entry) is None:
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
                sweep(self.root)
                self._swept = True
        return self.call(key, lambda: PendingFile(self.root, self.call, key, path))

    def put_new(self, key: str, data: bytes) -> bool:
        """See ``ObjectStore.put_new``."""
        pending = self.create(key)
        assert isinstance(pending, PendingFile)
        with pending:
            pending.write(data)
            return pending.commit_new() or self.read(key) == data

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        path = self._path(key)
        self.call(key, lambda: path.unlink(missing_ok=True))

    def move(self, key: str, to: str) -> None:
        """See ``ObjectStore.move``."""
        source, target = self._path(key), self._path(to)

        def rename() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)

        self.call(key, rename)

    def polars_access(self) -> dict[str, Any]:
        """An empty dictionary: polars needs no arguments for local paths."""
        return {}

    def delta_options(self) -> dict[str, str]:
        """An empty dictionary: deltalake needs no options for local paths."""
        return {}

    def _walk(
        self, folder: Path, left_out: Callable[[str, str], object], *, hidden: bool
    ) -> Iterator[os.DirEntry[str]]:
        """The files below ``folder`` in key order. Links to folders are not followed, so there are no loops.

        What cannot be listed, such as a link to itself or a folder without permission, is ``left_out``.
        """
        # S3 compares whole keys, in which "/" follows a folder's name: "a-b/x" comes before "a/x".
        shown = {
            os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b""): entry
            for entry in self._entries(folder)
            if hidden or not entry.name.startswith(".")
        }
        for name, entry in sorted(shown.items()):
            if name.endswith(b"/") and entry.name.startswith("."):
                self._tell_hidden(entry.path, left_out)
            elif name.endswith(b"/"):
                try:
                    yield from self._walk(folder / entry.name, left_out, hidden=hidden)
                except PermissionError as error:
                    left_out(self._key(entry), error.strerror or "no permission")
            elif (fault := self._fault(entry)) is None:
                yield entry
            elif fault:
                left_out(self._key(entry), fault)

    def _tell_hidden(self, folder: str, left_out: Callable[[str, str], object]) -> None:
        """Call ``left_out`` for the files of a hidden folder until it returns True: a snapshot may have a million."""
        start = len(f"{self.root}/")

        def unreadable(error: OSError) -> None:
            if (
                error.filename == folder
            ):  # whatever is in it; of the folders in it, those that can be read suffice
                left_out(folder[start:], error.strerror or "no permission")

        for path, _, names in os.walk(folder, onerror=unreadable):
            if any(left_out(f"{path}/{name}"[start:], HIDDEN) for name in sorted(names)):
                return

    def _fault(self, entry: os.DirEntry[str]) -> str | None:
        """The reason why an entry is no object of the store; empty for one that is gone, None for an object."""
        try:
            if entry.is_file():
                inside = not entry.is_symlink() or self._is_inside(Path(entry.path))
                return None if inside else "a link out of the store"
            return "" if not os.path.lexists(entry.path) else "not a file"
        except OSError as error:
            return error.strerror or type(error).__name__

    def _key(self, entry: os.DirEntry[str]) -> str:
        return entry.path[len(f"{self.root}/") :]

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
                errno.EACCES,
                f"{key} is a link out of the {self.kind} {self.url}; replace it with the file itself",
            )
        return path

    def _is_inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self.root)
        except RuntimeError:  # a link to itself
            return False

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run an operation on ``key``. Transient faults are retried; all others name the key and the store."""
        try:
            return with_retries(operation, _is_transient)
        except OSError as error:
            # Python chooses the subclass (FileNotFoundError, …) by the number.
            cause = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, f"{cause}: {key} in the {self.kind} {self.url}") from error


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


def _warn(key: str, fault: str) -> None:
    logger.warning("%r is left out of the listing: %s", key, fault)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS
