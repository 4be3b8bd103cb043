"""Opens an object store by its URL."""

import re
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options

_URL: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL
)  # also with one slash: a typing error


class NotAStore(BandscopeError, ValueError):
    """The text names no store that Bandscope can open; the message says what it can."""


def open_store(url: str, options: S3Options | None = None) -> ObjectStore:
    """Open the store at ``url``: ``s3://bucket/prefix``, or a local folder, which is created by the first write.

    Raises:
        NotAStore: ``url`` is neither. A relative folder whose name looks like a URL can be opened as ``./name``.
    """
    if url.startswith("s3://"):
        from bandscope_dagster.storage.objects.s3 import S3Store

        return S3Store(url, options or S3Options())
    found = _URL.match(url)
    if not url or found:
        meant = f". Did you mean s3://{found[2]}?" if found and found[1].lower() == "s3" and found[2] else ""
        raise NotAStore(f"{url!r} is not a store; use a local folder or s3://bucket/prefix{meant}")
    return LocalStore(url)


def open_folder(folder: Path) -> ObjectStore:
    """Open a local folder for exported files; a path has lost the second slash of a URL.

    Raises:
        NotAStore: the path is a URL.
    """
    if _URL.match(str(folder)):
        raise NotAStore(f"{folder} is a URL; give a local folder, and copy it from there")
    return LocalStore(str(folder), kind="folder")
