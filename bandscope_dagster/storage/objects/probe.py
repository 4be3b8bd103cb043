"""Tries out if a store can be written, before work is done for it."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.local_pending import PENDING_FOLDER
from bandscope_dagster.storage.objects.protocol import ObjectStore

KEY = "probe"  # in no folder, which would stay
PROBED = b"bandscope"
ATTEMPTS = 3  # another process may delete the object of the probe in between


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
        cause = error.strerror or str(error).removeprefix(f"{KEY} in the store {store.url}: ")
        reading = (
            " Commands that only read, such as `bandscope status`, work; for all others, give this user or this key"
            " the right to write, or use another store."
        )
        kind = store.kind if isinstance(store, LocalStore) else "store"
        hint = reading if kind == "store" and _can_read(store, error) else ""
        raise StoreNotWritable(f"the {kind} {store.url} cannot be written ({cause}).{hint}") from error
    if found != PROBED:
        raise StoreNotWritable(f"the store {store.url} returned other bytes than were written to it")


def require_conditional_writes(store: ObjectStore) -> None:
    """Try to write an object only if there is none, where there is one. The versions of the catalogs depend on it.

    Raises:
        StoreNotWritable: the object was replaced, or the store refuses the condition.
    """
    try:
        for _ in range(ATTEMPTS):
            with store.create(KEY) as pending:
                pending.write(PROBED)
            if not store.put_new(KEY, PROBED + b" again"):
                return
        cause = "it replaces an object that was to be written only if there is none"
    except OSError as error:
        cause = str(error).removeprefix(f"{KEY} in the store {store.url}: ")
    finally:
        with suppress(OSError):
            store.delete(KEY)
    raise StoreNotWritable(
        f"the store {store.url} does not support the condition If-None-Match ({cause}). Without it, of two refreshes of"
        " the catalogs at once, one can overwrite what the other has written. Use a newer version of the server."
    )


@contextmanager
def without_trace(store: ObjectStore) -> Generator[None]:
    """Remove the empty folders that a probe in the block makes in a local store, also the store's own."""
    root = Path(store.url) if isinstance(store, LocalStore) else None
    made = (
        [folder for folder in (root / PENDING_FOLDER, root, *root.parents) if not folder.exists()]
        if root
        else []
    )
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # another process uses it by now
                folder.rmdir()


def _can_read(store: ObjectStore, error: OSError) -> bool:
    """True if the store can be read although ``error`` says that it cannot be written.

    Not tried after an error of the network, which would only take another ten seconds.
    """
    if error.errno is None and not isinstance(error, PermissionError):
        return False
    try:
        next(store.list(KEY), None)
    except OSError:
        return False
    return True
