"""Upkeep of a Delta table: checkpoints, and the deletion of what only old versions have."""

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from bandscope_dagster.storage.objects.protocol import ObjectStore, StoredObject
from bandscope_dagster.storage.tables.delta_log import LOG, delta_key, explained, open_delta
from bandscope_dagster.storage.tables.schemas import Table

CHECKPOINT_EVERY: Final = 10  # versions: so many commits are read to open the table
_LOG_NAME: Final = re.compile(r"/(\d{20})\.(json|checkpoint)[^/]*$")


def tidy(store: ObjectStore, table: Table, days: int, *, vacuum: bool) -> None:
    """Make a checkpoint; with ``vacuum``, also delete what only versions before the last ``days`` days have.

    A file is deleted ``days`` days after a commit removed it, and a file of a killed refresh when it is that old. The
    log is kept from the checkpoint before the version that was the newest ``days`` days ago.
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

    for path in explained(store, key, work):
        store.delete(f"{key}/{path}")
    if vacuum:
        for each in _old_log(list(store.list(f"{key}/{LOG}")), datetime.now(UTC) - timedelta(days=days)):
            store.delete(each)


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


def delete_delta(store: ObjectStore, table: Table) -> None:
    """Delete the table with its history, the log first."""
    for folder in (f"{delta_key(table)}/{LOG}", delta_key(table)):
        for found in list(store.list(folder)):
            store.delete(found.key)
