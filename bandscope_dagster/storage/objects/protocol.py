"""The protocol of object stores: objects are read by key, and written whole or not at all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Protocol, Self, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 1024 * 1024  # of one streamed read


class ObjectChanged(OSError):
    """The object was replaced while it was being read; to read the new object, start again."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing returns it, without reading the object."""

    key: str
    size: int  # bytes
    fingerprint: str  # changes with the content: the ETag on S3, size and modification time on a local disk
    modified: datetime  # UTC
    may_grow: bool = False  # True if a program may still be writing it; never for objects that appear whole


@dataclass(frozen=True, slots=True)
class S3Options:
    """Access to S3. A field that is None is found as the AWS tools find it: variables, ``~/.aws``, roles."""

    endpoint: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    region: str | None = None
    virtual_host: bool = False  # requests go to bucket.host, and not to host/bucket


class PendingObject(ABC):
    """An object that is being written: invisible before ``commit``, and removed without a trace by ``abort``.

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
        """Make the whole object visible, and replace the one that had the key. Returns its size in bytes."""
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
        """Discard the written data. Does nothing after ``commit`` or ``abort``."""
        if not self._ended:
            self._ended = True
            self._discard()
            # On a full disk, closing fails once more for data in a buffer, which is discarded anyway.
            with suppress(OSError):
                self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
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

    Transient faults are retried for about 10 s (``retries.py``). All other faults are raised as FileNotFoundError,
    PermissionError or another OSError, whose text has the store, the key and the cause. Keys follow ``keys.check_key``.
    """

    @property
    def url(self) -> str:
        """The store's root."""
        ...

    def uri(self, key: str) -> str:
        """The object's address for other tools: a path or ``s3://bucket/prefix/key``."""
        ...

    def list(
        self,
        prefix: str = "",
        *,
        after: str | None = None,
        any_name: bool = False,
        left_out: Callable[[str, str], object] | None = None,
    ) -> Iterator[StoredObject]:
        """The objects in the folder ``prefix`` and below it, page by page, in the store's key order.

        ``after`` resumes a listing: only objects with a larger key are listed. A folder that does not exist is an
        empty folder. Hidden and temporary names are never listed. Names that are no keys, and therefore cannot be
        read, are listed only with ``any_name``. ``left_out`` is called with the key and the reason for each hidden
        file (``keys.HIDDEN``), and for each entry of a local folder that cannot be listed, such as a link to itself;
        without it, the log has a warning of the latter. If it returns True for a file in a hidden folder, the other
        files of this folder may be passed over.
        """
        ...

    def fingerprints(self, folders: Sequence[str]) -> dict[str, dict[str, str]]:
        """Folder → name → fingerprint, as in ``list``, of the objects directly in each folder; fast for very many."""
        ...

    def head(self, key: str) -> StoredObject | None:
        """The object's size, fingerprint and time; None if there is no such object."""
        ...

    def read(self, key: str) -> bytes:
        """All bytes of a small object."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """The object as a stream of chunks of about ``CHUNK_BYTES``, all from one version of the object."""
        ...

    def open(self, key: str) -> BinaryIO:
        """The object as a seekable file, which fetches only the ranges that are read."""
        ...

    def create(self, key: str) -> PendingObject:
        """Begin to write an object."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Store ``data`` if no object has the key, in one step; of several writers at once, one gets True."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; does nothing if there is no such object."""
        ...

    def move(self, key: str, to: str) -> None:
        """Give the object another key, and replace the object that has it. On a local disk it keeps its time.

        Raises FileNotFoundError if there is no such object.
        """
        ...

    def polars_access(self) -> dict[str, Any]:
        """The arguments with which ``polars.scan_parquet`` reads ``uri(key)``."""
        ...

    def delta_options(self) -> dict[str, str]:
        """The ``storage_options`` with which ``deltalake`` reads ``uri(key)``, with the keys of this moment."""
        ...

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run an operation of another library on ``key``: its faults are retried and named as those of the store."""
        ...
