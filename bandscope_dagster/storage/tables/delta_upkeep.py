"""Upkeep of a Delta table: checkpoints, and the deletion of what only old versions have."""

import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

from bandscope_dagster.storage.objects.keys import TRASH
from bandscope_dagster.storage.objects.protocol import ObjectStore, StoredObject
from bandscope_dagster.storage.tables.delta_log import LOG, delta_key, explained, open_delta
from bandscope_dagster.storage.tables.schemas import Table

CHECKPOINT_EVERY: Final = 10  # versions: so many commits are read to open the table
EVERY: Final = timedelta(days=1)  # a vacuum lists the folder
READ_WITHIN: Final = timedelta(hours=1)  # a reader that has found a checkpoint has opened it
DELETIONS_AT_ONCE: Final = 16  # requests
_LOG_NAME: Final = re.compile(r"/(\d{20})\.(json|checkpoint)[^/]*$")


def upkeep_is_due(store: ObjectStore, table: Table) -> bool:
    """True if the last vacuum was a day ago or more, or if there was none."""
    last = store.head(_marker(table))
    return last is None or datetime.now(UTC) - last.modified > EVERY


def tidy(store: ObjectStore, table: Table, days: int, *, vacuum: bool) -> None:
    """Make a checkpoint; with ``vacuum``, also delete what only versions before the last ``days`` days have.

    A file is deleted ``days`` days after a commit removed it, and a file of a killed refresh when it is that old. The
    log is kept from the checkpoint before the version that was the newest ``days`` days ago. Of the checkpoints, which
    all name the files that were removed in these days, one a day is kept: with the commits after it, every version can
    be read.
    """
    opened = open_delta(store, table)
    key = delta_key(table)
    hours = int(timedelta(days=days) / timedelta(hours=1))

    def work() -> list[str]:
        opened.create_checkpoint()
        if not vacuum:
            return []
        # Only its list: its own deletion writes two commits.
        return opened.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)

    unused = explained(store, key, work)
    if not vacuum:
        return
    _delete(store, [f"{key}/{path}" for path in unused])
    log = list(store.list(f"{key}/{LOG}"))
    now = datetime.now(UTC)
    superseded = set(_superseded(log, now - READ_WITHIN))
    # The log begins with a checkpoint, and so with one that stays.
    staying = [each for each in log if each.key not in superseded]
    _delete(store, [*superseded, *_old_log(staying, now - timedelta(days=days))])
    with store.create(
        _marker(table)
    ) as pending:  # not before: what failed is tried again by the next refresh
        pending.write(f"{now.isoformat()}\n".encode())


def _delete(store: ObjectStore, keys: Collection[str]) -> None:
    with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:
        list(pool.map(store.delete, keys))


def _marker(table: Table) -> str:
    """The key whose time is that of the last vacuum. Delta leaves names with ``_`` alone."""
    return f"{delta_key(table)}/_last_vacuum"


def _superseded(log: Collection[StoredObject], before: datetime) -> Iterator[str]:
    """The keys of checkpoints from before this time, except the last of each day (UTC)."""
    found = [
        (int(name[1]), each) for each in log if (name := _LOG_NAME.search(each.key)) and name[2] != "json"
    ]
    newest = {each.modified.date(): number for number, each in sorted(found, key=lambda pair: pair[0])}
    for number, each in found:
        if each.modified <= before and number != newest[each.modified.date()]:
            yield each.key


def _old_log(log: Collection[StoredObject], before: datetime) -> Iterator[str]:
    """The keys that no version since ``before`` needs.

    Not by deltalake's ``cleanup_metadata``, which deletes a commit by its age, also if it was the newest until today.
    """
    numbered = [(int(found[1]), found[2], each) for each in log if (found := _LOG_NAME.search(each.key))]
    old = [number for number, kind, each in numbered if kind == "json" and each.modified <= before]
    starts = [number for number, kind, _ in numbered if kind != "json" and old and number <= max(old)]
    for number, _, each in numbered:
        if starts and number < max(starts):
            yield each.key


def set_aside(store: ObjectStore, table: Table) -> str:
    """Move the table with its history to the trash, the log first; returns its place there."""
    key = delta_key(table)
    place = f"{TRASH}/{key}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for folder in (f"{key}/{LOG}", key):
        for found in list(store.list(folder)):
            store.move(found.key, f"{place}{found.key.removeprefix(key)}")
    return store.uri(place)
