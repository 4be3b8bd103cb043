"""One S3 bucket through obstore (Rust's object_store): its client and its retries."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Handle

from bandscope_dagster.storage.objects.keys import check_key
from bandscope_dagster.storage.objects.protocol import S3Options, StoredObject
from bandscope_dagster.storage.objects.retries import RETRY_FIRST_WAIT_S, with_retries
from bandscope_dagster.storage.objects.s3_access import S3Access
from bandscope_dagster.storage.objects.s3_errors import NotS3, explain, is_transient

# One request is sent up to three times within about 2 s, so that one lost part does not repeat a whole upload.
# If it still fails, with_retries repeats the whole operation.
REQUEST_RETRIES = 2
REQUEST_RETRIES_FOR_S = 2.0
CONNECT_TIMEOUT_S = 3
STALL_TIMEOUT_S = 30  # without receiving a byte; also the longest time to upload one part
REQUEST_TIMEOUT_S = 3600  # for a whole download: a slow reader keeps its connection open

T = TypeVar("T")


class S3Bucket:
    """The objects of a bucket whose keys start with ``prefix``."""

    def __init__(self, url: str, options: S3Options) -> None:
        self.name, _, self.prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not self.name:
            raise ValueError(f"{url!r} has no bucket name; use s3://bucket/prefix")
        if self.prefix:
            check_key(self.prefix)
        self.access = S3Access(self.name, options)
        self._is_s3 = False

    @cached_property
    def handle(self) -> Handle:
        """obstore's client. Made for the first request, because finding the keys may take a request, and may fail.

        Raises:
            WrongServer: the endpoint is no URL.
            PermissionError: no keys were found, or they cannot be used.
        """
        access = self.access
        endpoint = (
            access.endpoint
        )  # before the keys: an endpoint that is no URL is the first thing to correct
        if not access.anonymous:
            access.keys()  # an error has its own words here; obstore reports those of a later renewal
        config: dict[str, Any] = {
            "region": access.region,
            "endpoint": endpoint,
            "virtual_hosted_style_request": access.virtual_host,
            "skip_signature": access.anonymous,
        }
        return Handle(
            self.name,
            prefix=self.prefix or None,
            config=cast(Any, {name: value for name, value in config.items() if value is not None}),
            client_options={
                "allow_http": access.plain_http,
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
                "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
            },
            retry_config={
                "max_retries": REQUEST_RETRIES,
                "backoff": {"init_backoff": timedelta(seconds=RETRY_FIRST_WAIT_S)},
                "retry_timeout": timedelta(seconds=REQUEST_RETRIES_FOR_S),
            },
            credential_provider=None if access.anonymous else access.for_obstore,
        )

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return "/".join(part for part in ("s3:/", self.name, self.prefix) if part)

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run a request on ``key``. Transient faults are retried; all others become builtin errors."""
        try:
            return with_retries(operation, is_transient)
        except (BaseError, OSError) as error:
            kind, cause = explain(error, self.access)
            # Not chained: the original text has the server's whole answer, with the access key.
            raise kind(f"{key} in the store {self.url}: {cause}") from None

    def check_server(self) -> None:
        """Raise NotS3 if the server returns an object that cannot exist. Asks once.

        A web server that answers every request with its own page looks like an empty bucket.
        """
        if self._is_s3:
            return
        try:
            obstore.head(self.handle, f"no-such-object-{uuid.uuid4().hex}")
        except (BaseError, OSError):
            self._is_s3 = True
        else:
            raise NotS3


def stored_object(entry: Any) -> StoredObject:
    """An entry of obstore's listing as a ``StoredObject``."""
    return StoredObject(entry["path"], entry["size"], entry["e_tag"] or "", entry["last_modified"])
