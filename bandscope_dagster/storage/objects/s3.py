"""The object store on Amazon S3 and on other servers with its protocol."""

import io
import mimetypes
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar, cast

import obstore
from obstore.exceptions import AlreadyExistsError

from bandscope_dagster.storage.objects import s3_bucket
from bandscope_dagster.storage.objects.keys import HIDDEN, check_key, fault_of_key, is_hidden, is_listed
from bandscope_dagster.storage.objects.protocol import (
    CHUNK_BYTES,
    PendingObject,
    S3Options,
    StoredObject,
)
from bandscope_dagster.storage.objects.retries import read_one_version
from bandscope_dagster.storage.objects.s3_bucket import S3Bucket, stored_object
from bandscope_dagster.storage.objects.s3_listing import S3Listing

T = TypeVar("T")

PART_BYTES = 8 * 1024 * 1024  # larger objects are uploaded in parts of this size
UPLOADS_AT_ONCE = 4  # parts in parallel; limits the memory of an upload


class S3Store:
    """Objects below ``s3://bucket/prefix``.

    An upload becomes visible when it is complete. If its writer is killed, the uploaded parts are never listed;
    a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) deletes them.
    """

    def __init__(self, url: str, options: S3Options) -> None:
        self._bucket = S3Bucket(url, options)

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return self._bucket.url

    def uri(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return f"{self.url}/{check_key(key)}"

    def list(
        self,
        prefix: str = "",
        *,
        after: str | None = None,
        any_name: bool = False,
        left_out: Callable[[str, str], object] | None = None,
    ) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``. The server orders the keys. Every object of a bucket can be listed."""
        if prefix:
            check_key(prefix)
        listing = S3Listing(self._bucket, prefix, after)
        what = prefix or "the listing"
        empty = True
        while (page := self._bucket.call(what, listing.next_page)) is not None:
            empty = empty and not page
            for found in page:
                if left_out is not None and is_hidden(found.key):
                    left_out(found.key, HIDDEN)
                # A "new folder" of a web console is an empty object "folder/", listed here without its slash.
                # Unlike an empty file, it is not found by that name.
                if is_listed(found.key, any_name=any_name) and (
                    found.size or fault_of_key(found.key) or self.head(found.key)
                ):
                    yield found
        if empty:
            self._bucket.call(what, self._bucket.check_server)

    def fingerprints(self, folders: Sequence[str]) -> dict[str, dict[str, str]]:
        """See ``ObjectStore.fingerprints``. Folders are listed in parallel: the server's answers take most time."""
        with ThreadPoolExecutor(max(1, len(folders))) as pool:
            return dict(zip(folders, pool.map(self._fingerprints, folders), strict=True))

    def _fingerprints(self, folder: str) -> dict[str, str]:
        start = len(f"{folder}/")
        found = ((each.key[start:], each.fingerprint) for each in self.list(folder))
        return {name: fingerprint for name, fingerprint in found if "/" not in name}

    def head(self, key: str) -> StoredObject | None:
        """See ``ObjectStore.head``."""
        check_key(key)
        try:
            return stored_object(self._bucket.call(key, lambda: obstore.head(self._bucket.handle, key)))
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes:
        """See ``ObjectStore.read``. An object that is replaced meanwhile is read again."""
        return read_one_version(lambda: b"".join(self.chunks(key)))

    def chunks(self, key: str) -> Iterator[bytes]:
        """See ``ObjectStore.chunks``. A download that breaks continues at the byte where it broke."""
        download = _Download(self._bucket, check_key(key))
        while chunk := self._bucket.call(key, download.next_chunk):
            yield chunk

    def open(self, key: str) -> BinaryIO:
        """See ``ObjectStore.open``. Raises ObjectChanged if the object is replaced while it is open."""
        found = self.head(key)
        if found is None:
            raise FileNotFoundError(f"{key} does not exist in the store {self.url}")
        return cast(BinaryIO, _RangeFile(self._bucket, found))

    def create(self, key: str) -> PendingObject:
        """See ``ObjectStore.create``. Until ``commit``, the data is in an anonymous local file."""
        return _PendingUpload(self._bucket, check_key(key))

    def put_new(self, key: str, data: bytes) -> bool:
        """See ``ObjectStore.put_new``: a put with the condition If-None-Match, which the server decides."""
        check_key(key)

        def put() -> bool:
            try:
                obstore.put(self._bucket.handle, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        # A repeated request may meet the object of the first one, whose answer was lost.
        return self._bucket.call(key, put) or self.read(key) == data

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        check_key(key)
        self._bucket.call(key, lambda: obstore.delete(self._bucket.handle, key))

    def move(self, key: str, to: str) -> None:
        """See ``ObjectStore.move``. The server copies; the copy of an object of several parts has another ETag."""
        for each in (key, to):
            check_key(each)
        self._bucket.call(key, lambda: obstore.copy(self._bucket.handle, key, to))
        self.delete(key)

    def polars_access(self) -> dict[str, Any]:
        """See ``ObjectStore.polars_access``."""
        access = self._bucket.access
        return {
            "storage_options": self._access_options(),
            "credential_provider": None if access.anonymous else access.for_polars,
        }

    def delta_options(self) -> dict[str, str]:
        """See ``ObjectStore.delta_options``."""
        return self._bucket.call("the Delta tables", self._delta_options)

    def _delta_options(self) -> dict[str, str]:
        options = self._access_options() | {
            "max_retries": str(s3_bucket.REQUEST_RETRIES),
            "retry_timeout": f"{s3_bucket.REQUEST_RETRIES_FOR_S:g}s",
        }
        access = self._bucket.access
        return options if access.anonymous else options | access.for_polars()[0]

    def _access_options(self) -> dict[str, str]:
        """The server and how to reach it, by the names that polars and deltalake share."""
        access = self._bucket.access
        options = {
            "aws_region": access.region,
            "aws_endpoint_url": access.endpoint,
            "aws_virtual_hosted_style_request": str(access.virtual_host).lower(),
            "aws_skip_signature": str(access.anonymous).lower(),
            "aws_allow_http": str(access.plain_http).lower(),
            # Without timeouts, polars waits on a silent connection until the server closes it.
            "connect_timeout": f"{s3_bucket.CONNECT_TIMEOUT_S}s",
            "read_timeout": f"{s3_bucket.STALL_TIMEOUT_S}s",
        }
        return {name: value for name, value in options.items() if value is not None}

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """See ``ObjectStore.call``."""
        return self._bucket.call(key, operation)


class _Download:
    """One version of an object, as a stream that continues where it broke."""

    def __init__(self, bucket: S3Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._position = 0
        self._size: int | None = None
        self._etag: str | None = None
        self._stream: Iterator[bytes] | None = None

    def next_chunk(self) -> bytes:
        """The next bytes; empty at the end. After an error, the next call continues."""
        if self._position == self._size:
            return b""
        try:
            if self._stream is None:
                self._stream = self._open()
            chunk = bytes(next(self._stream, b""))
            if not chunk and self._position != self._size:
                raise ConnectionError(f"the download ended at byte {self._position} of {self._size}")
        except Exception:
            self._stream = None
            raise
        self._position += len(chunk)
        return chunk

    def _open(self) -> Iterator[bytes]:
        options: Any = {}
        if self._position:
            options = {"range": {"offset": self._position}, "if_match": self._etag}
        result = obstore.get(self._bucket.handle, self._key, options=options)
        if not self._position:
            self._size, self._etag = result.meta["size"], result.meta["e_tag"]
        return iter(result.stream(min_chunk_size=CHUNK_BYTES))


class _RangeFile(io.RawIOBase):
    """A read-only file on one version of an object. Each read is one ranged request."""

    def __init__(self, bucket: S3Bucket, found: StoredObject) -> None:
        super().__init__()
        self._bucket = bucket
        self._found = found
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._found.size)
        if end <= self._position:
            return 0
        options: Any = {"range": (self._position, end), "if_match": self._found.fingerprint}

        def fetch() -> bytes:
            return bytes(obstore.get(self._bucket.handle, self._found.key, options=options).bytes())

        data = self._bucket.call(self._found.key, fetch)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _PendingUpload(PendingObject):
    """Data in an anonymous local file, which ``commit`` uploads."""

    def __init__(self, bucket: S3Bucket, key: str) -> None:
        super().__init__(key, cast(BinaryIO, tempfile.TemporaryFile()))  # noqa: SIM115 - closed by commit or abort
        self._bucket = bucket

    def _publish(self) -> None:
        self._bucket.call(self.key, self._upload)

    def _upload(self) -> None:
        self.file.seek(0)
        obstore.put(
            self._bucket.handle,
            self.key,
            self.file,
            attributes={"Content-Type": mimetypes.guess_type(self.key)[0] or "application/octet-stream"},
            chunk_size=PART_BYTES,
            max_concurrency=UPLOADS_AT_ONCE,
        )

    def _discard(self) -> None:
        """Do nothing: the file has no name, so closing it removes it."""
