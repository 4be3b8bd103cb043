"""Lists an S3 bucket, also when a page breaks or an object has a hostile name."""

from collections.abc import Callable, Iterator
from typing import Any

import obstore
from obstore.exceptions import InvalidPathError

from bandscope_dagster.storage.objects.protocol import StoredObject
from bandscope_dagster.storage.objects.s3_bucket import (
    CONNECT_TIMEOUT_S,
    REQUEST_RETRIES,
    STALL_TIMEOUT_S,
    S3Bucket,
    stored_object,
)

PAGE_KEYS = 1000  # the maximum of one ListObjectsV2 answer


class S3Listing:
    """A listing by pages. After an error, it continues behind the last key that it returned."""

    def __init__(self, bucket: S3Bucket, prefix: str, after: str | None) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._after = after
        self._pages: Iterator[list[StoredObject]] | None = None
        self._open: Callable[[], Iterator[list[StoredObject]]] = self._pages_of_obstore

    def next_page(self) -> list[StoredObject] | None:
        """The next page; None after the last one."""
        try:
            if self._pages is None:
                self._pages = self._open()
            page = next(self._pages, None)
        except InvalidPathError:
            # object_store refuses a whole page for one name such as "a\nb", so any uploader could stop all
            # listings with one such name. botocore is five times slower and accepts every name.
            self._open = self._pages_of_botocore
            self._pages = None
            return []
        except Exception:
            self._pages = None
            raise
        if page:
            self._after = page[-1].key
        return page

    def _pages_of_obstore(self) -> Iterator[list[StoredObject]]:
        pages = obstore.list(
            self._bucket.handle, self._prefix or None, offset=self._after, chunk_size=PAGE_KEYS
        )
        for page in pages:
            yield [stored_object(entry) for entry in page]

    def _pages_of_botocore(self) -> Iterator[list[StoredObject]]:
        import botocore.session
        from botocore import UNSIGNED
        from botocore.config import Config

        access = self._bucket.access
        root = self._bucket.prefix and self._bucket.prefix + "/"
        keys = None if access.anonymous else access.keys()
        client: Any = botocore.session.get_session().create_client(
            "s3",
            region_name=access.region,
            endpoint_url=access.server,
            aws_access_key_id=keys and keys.access_key_id,
            aws_secret_access_key=keys and keys.secret_access_key,
            aws_session_token=keys and keys.token,
            config=Config(
                s3={"addressing_style": "virtual" if access.virtual_host else "path"},
                signature_version=None if keys else UNSIGNED,
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=STALL_TIMEOUT_S,
                retries={"total_max_attempts": REQUEST_RETRIES + 1, "mode": "standard"},
            ),
        )
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name,
            Prefix=root + (self._prefix and self._prefix + "/"),
            StartAfter=root + (self._after or ""),
        )
        for page in pages:
            yield [
                StoredObject(
                    entry["Key"].removeprefix(root), entry["Size"], entry["ETag"], entry["LastModified"]
                )
                for entry in page.get("Contents", [])
                if not entry["Key"].endswith("/")  # a "new folder" of a web console
            ]
