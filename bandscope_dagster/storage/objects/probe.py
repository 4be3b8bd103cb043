"""Tries out if a store can be written, before work is done for it."""

import uuid

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects.protocol import ObjectStore

PROBED = b"bandscope"


class StoreNotWritable(BandscopeError):
    """The store cannot be written; the message has the cause."""


def require_writable(store: ObjectStore) -> None:
    """Write, read and delete a small object.

    Raises:
        StoreNotWritable: one of them failed.
    """
    key = f"probe-{uuid.uuid4().hex}"  # in no folder, which would stay
    try:
        with store.create(key) as pending:
            pending.write(PROBED)
        found = store.read(key)
        store.delete(key)
    except OSError as error:
        cause = error.strerror or str(error)
        raise StoreNotWritable(
            f"the store {store.url} cannot be written ({cause}). Commands that only read, such as `bandscope status`,"
            " work; for all others, give this user or this key the right to write, or use another store."
        ) from error
    if found != PROBED:
        raise StoreNotWritable(f"the store {store.url} returned other bytes than were written to it")
