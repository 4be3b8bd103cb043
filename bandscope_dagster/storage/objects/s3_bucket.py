"""One S3 bucket through obstore (Rust's object_store): its client, its retries and the texts of its errors."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, cast

from obstore.exceptions import (
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store as Handle

from bandscope_dagster.storage.objects.keys import check_key
from bandscope_dagster.storage.objects.protocol import ObjectChanged, S3Options, StoredObject
from bandscope_dagster.storage.objects.retries import RETRY_FIRST_WAIT_S, with_retries

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
        self.options = _completed(options)
        config: dict[str, Any] = {
            "region": self.options.region,
            "endpoint": self.options.endpoint,
            "access_key_id": self.options.access_key_id,
            "secret_access_key": self.options.secret_access_key,
        }
        self.handle = Handle(
            self.name,
            prefix=self.prefix or None,
            config=cast(Any, {name: value for name, value in config.items() if value is not None}),
            client_options={
                "allow_http": self.plain_http,
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
                "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
            },
            retry_config={
                "max_retries": REQUEST_RETRIES,
                "backoff": {"init_backoff": timedelta(seconds=RETRY_FIRST_WAIT_S)},
                "retry_timeout": timedelta(seconds=REQUEST_RETRIES_FOR_S),
            },
        )

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return "/".join(part for part in ("s3:/", self.name, self.prefix) if part)

    @property
    def plain_http(self) -> bool:
        """True if the endpoint is reached without TLS."""
        return self.options.endpoint is not None and self.options.endpoint.startswith("http://")

    def call(self, key: str, operation: Callable[[], T]) -> T:
        """Run a request on ``key``. Transient faults are retried; all others become builtin errors."""
        try:
            return with_retries(operation, _is_transient)
        except (BaseError, OSError) as error:
            kind = _kind(error)
            # Not chained: the original text has the server's whole answer, with the access key.
            raise kind(f"{key} in the store {self.url}: {_cause(error)}") from None


def _completed(options: S3Options) -> S3Options:
    """``options``, completed with the endpoint and the region of the standard AWS environment."""
    environment = os.environ.get
    return replace(
        options,
        endpoint=options.endpoint or environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL"),
        region=options.region
        or environment("AWS_REGION")
        or environment("AWS_DEFAULT_REGION")
        or "us-east-1",  # the default of the AWS tools
    )


def stored_object(entry: Any) -> StoredObject:
    """An entry of obstore's listing as a ``StoredObject``."""
    return StoredObject(entry["path"], entry["size"], entry["e_tag"] or "", entry["last_modified"])


def _status(error: BaseException) -> int | None:
    """The HTTP status in the error's text, if any: obstore has no exceptions for failed listings and deletions."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, GenericError):
        status = _status(error)
        return status is None or status >= 500 or status in (408, 429)  # timeout; too many requests
    return isinstance(error, ConnectionError)


def _kind(error: BaseException) -> type[OSError]:
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return FileNotFoundError
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
        return PermissionError
    return ObjectChanged if isinstance(error, PreconditionError) else OSError


def _cause(error: BaseException) -> str:
    """The line of obstore's report that has the cause, and the server's error code and message."""
    report = str(error)
    line = report.partition("\n")[0].partition("<?xml")[0]
    answer = re.search(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>", report)
    if answer:
        line += f"{answer[1]}: {answer[2]}"
    # The address of the request has the endpoint, which may contain a password.
    return re.sub(r"//[^/@\s]*@", "//", line).strip(" -")
