"""Tries out if a store can be written, before work is done for it."""

from contextlib import suppress

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects.protocol import ObjectStore

KEY = "probe"  # in no folder, which would stay
PROBED = b"bandscope"


class StoreNotWritable(BandscopeError):
    """The store cannot be written; the message has the cause."""


def require_writable(store: ObjectStore) -> None:
    """Write, read and delete a small object. A key that may not delete is enough to upload.

    Raises:
        StoreNotWritable: it cannot be written or read.
    """
    found = PROBED
    try:
        with store.create(KEY) as pending:
            pending.write(PROBED)
        with suppress(FileNotFoundError):  # another process has deleted it
            found = store.read(KEY)
        with suppress(PermissionError):
            store.delete(KEY)
    except OSError as error:
        cause = error.strerror or str(error)
        raise StoreNotWritable(
            f"the store {store.url} cannot be written ({cause}). Commands that only read, such as `bandscope status`,"
            " work; for all others, give this user or this key the right to write, or use another store."
        ) from error
    if found != PROBED:
        raise StoreNotWritable(f"the store {store.url} returned other bytes than were written to it")
