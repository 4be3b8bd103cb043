"""What an object store is: keys, atomic writes, the one retry policy, and how to open a store by its URL."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

CHUNK_BYTES = 1024 * 1024  # of one streamed read
LONGEST_KEY_BYTES = 1024  # of UTF-8; the limit of Amazon S3, "Naming Amazon S3 objects"
TEMPORARY_SUFFIXES = (".part", ".partial", ".tmp", ".crdownload")  # of browsers and copy tools

RETRY_FIRST_WAIT_S = 0.1
RETRY_LONGEST_WAIT_S = 2.0
RETRY_FOR_S = 8.0  # with the last wait and try, a lasting fault is reported after about 10 s

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # of a name that is not UTF-8, as os.fsdecode gives it

T = TypeVar("T")


class ObjectChanged(OSError):
    """The object was replaced while it was being read; reading it again from its start gives the new one."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says about one object, without reading it."""

    key: str
    size: int  # bytes
    fingerprint: str  # changes with the content: the ETag on S3, size and modification time on a local disk
    modified: datetime  # UTC


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3. What is None comes from the standard AWS environment (variables, then the role)."""

    endpoint: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    region: str | None = None


class PendingObject(ABC):
    """An object that is being written; nobody sees it before ``commit``, and ``abort`` leaves no trace.

    As a context manager it commits at the end of the block, and aborts if the block raises.
    """

    def __init__(self, key: str, file: BinaryIO) -> None:
        self.key = key
        self.file = file  # for libraries that want a file, such as Parquet writers
        self._ended = False

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``; returns its length in bytes."""
        return self.file.write(data)

    def commit(self) -> int:
        """Make the object visible, whole, in place of what was under the key. Returns its size in bytes."""
        if self._ended:
            raise ValueError(
                f"{self.key} was already committed or aborted; create it again to write it again"
            )
        self._ended = True
        try:
            size = self.file.seek(0, 2)
            self._publish()
        except BaseException:
            self._discard()
            raise
        finally:
            self.file.close()
        return size

    def abort(self) -> None:
        """Forget what was written. Does nothing after ``commit`` or ``abort``."""
        if not self._ended:
            self._ended = True
            self._discard()
            # A full disk fails once more for what is left in a buffer; it is thrown away anyhow.
            with suppress(OSError):
                self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
        elif not self._ended:
            self.commit()

    @abstractmethod
    def _publish(self) -> None:
        """Put the written data under the key, in one step."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove the written data."""


class ObjectStore(Protocol):
    """A folder of objects, on a local disk or in an S3 bucket.

    Transient faults are retried for about 10 s. What remains is raised as FileNotFoundError, PermissionError
    or another OSError that names the store, the key and the cause. Keys follow ``check_key``.
    """

    @property
    def url(self) -> str:
        """The store's root, as it was opened."""
        ...

    def uri(self, key: str) -> str:
        """Where other tools find the object: a path or ``s3://bucket/prefix/key``."""
        ...

    def list(
        self, prefix: str = "", *, after: str | None = None, any_name: bool = False
    ) -> Iterator[StoredObject]:
        """The objects in the folder ``prefix`` and below it, page by page, in the store's key order.

        With ``after``, only those behind that key, so that a listing can be resumed. A folder that does not
        exist holds nothing. Hidden and temporary names are never listed; names that are no keys, and so cannot
        be read, only with ``any_name``.
        """
        ...

    def fingerprints(self, folders: Sequence[str]) -> dict[str, dict[str, str]]:
        """Folder → name → fingerprint of the objects in the folder itself, as ``list`` has them; made for very many."""
        ...

    def head(self, key: str) -> StoredObject | None:
        """What is known about the object; None where there is none."""
        ...

    def read(self, key: str) -> bytes:
        """The whole of a small object."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """The object as a stream of chunks of about ``CHUNK_BYTES``, all from one version of the object."""
        ...

    def open(self, key: str) -> BinaryIO:
        """The object as a seekable file that reads only the ranges that are asked for."""
        ...

    def create(self, key: str) -> PendingObject:
        """Begin to write an object."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        ...

    def polars_options(self) -> dict[str, str]:
        """``storage_options`` with which polars reads ``uri(key)``. They hold credentials: never log them."""
        ...


def check_key(key: str) -> str:
    """Return ``key`` if it can name an object in every store; raise ValueError if it cannot.

    Segments are joined by ``/``; none is empty or starts with a dot (so neither ``..`` nor hidden files), and
    control characters are refused.
    """
    fault = fault_of_key(key)
    if fault is not None:
        raise ValueError(f"{key!r} cannot be the key of an object: {fault}")
    return key


def fault_of_key(key: str) -> str | None:
    """Why ``key`` cannot name an object in every store; None where it can."""
    if not key or key.startswith("/") or key.endswith("/") or "//" in key:
        return "it has an empty segment"
    if key.startswith(".") or "/." in key:
        return "a segment starts with a dot"
    if CONTROL_CHARACTER.search(key):
        return "it has a control character"
    if LONE_SURROGATE.search(key):
        return "it is not UTF-8"
    if len(key.encode()) > LONGEST_KEY_BYTES:
        return f"it is longer than {LONGEST_KEY_BYTES} bytes"
    return None


def is_listed(key: str, *, any_name: bool) -> bool:
    """Whether a listing shows ``key``: nothing hidden or temporary, and what is no key only with ``any_name``."""
    hidden = key.startswith(".") or "/." in key
    if hidden or key.endswith(TEMPORARY_SUFFIXES):
        return False
    return any_name or fault_of_key(key) is None


def with_retries(operation: Callable[[], T], is_transient: Callable[[BaseException], bool]) -> T:
    """Run ``operation``; while it fails transiently, again, with growing and jittered waits.

    After ``RETRY_FOR_S`` seconds the last error is raised. ``operation`` must be safe to repeat.
    """
    policy = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_exponential(RETRY_FIRST_WAIT_S, RETRY_LONGEST_WAIT_S) + wait_random(0, RETRY_FIRST_WAIT_S),
        stop=stop_after_delay(RETRY_FOR_S),
        reraise=True,
    )
    return policy(operation)
