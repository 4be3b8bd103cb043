"""The versions of a catalog in its Delta table: which there are, and the files of an earlier one."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.delta_log import (
    CONFIGURATION,
    LOG,
    DamagedDelta,
    commit_info,
    data_files,
    delta_key,
    explained,
    has_delta,
    open_delta,
)
from bandscope_dagster.storage.tables.lineage import PREFIX
from bandscope_dagster.storage.tables.schemas import Table
from bandscope_dagster.storage.tables.song_files import FOOTERS_AT_ONCE

_COMMIT: Final = re.compile(r"\d{20}\.json")
_DAYS: Final = re.compile(r"interval (\d+) days")


class NoSuchVersion(BandscopeError):
    """A catalog has no version of this time, or it is no longer kept; the message says since when there are some."""


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """A version of a catalog. The numbers are None if another program wrote it."""

    number: int  # from 0
    committed_at: datetime  # UTC
    refresh_id: str
    songs: int | None  # in the catalog's sources
    added: int | None  # songs that the version before did not have
    changed: int | None
    removed: int | None
    kept: bool  # True if all its files are kept

    @property
    def time_text(self) -> str:
        """``committed_at`` in UTC, to the second."""
        return f"{self.committed_at:%F %T} UTC"


def catalog_versions(store: ObjectStore, table: Table, last: int | None = None) -> Iterator[CatalogVersion]:
    """The versions of a catalog whose commits are kept, the newest first; none if it has no Delta table.

    With ``last``, only so many of the newest. Commits are read as the versions are asked for, some at once.

    Raises:
        DamagedDelta: the table's log cannot be read.
    """
    if not has_delta(store, table):
        return
    opened = open_delta(store, table)
    found = _DAYS.fullmatch(opened.metadata().configuration.get(CONFIGURATION[0], ""))
    oldest = datetime.now(UTC) - timedelta(days=int(found[1])) if found else datetime.min.replace(tzinfo=UTC)
    names = (each.key.rpartition("/")[2] for each in store.list(f"{delta_key(table)}/{LOG}"))
    numbers = sorted((int(name[:20]) for name in names if _COMMIT.fullmatch(name)), reverse=True)[:last]
    later: datetime | None = None
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        for start in range(0, len(numbers), FOOTERS_AT_ONCE):
            some = numbers[start : start + FOOTERS_AT_ONCE]
            for number, commit in zip(some, pool.map(partial(commit_info, store, table), some), strict=True):
                if "timestamp" not in commit:  # deleted since it was listed
                    continue
                # A file is deleted so long after the commit that removed it: a version is whole until then.
                version = _version(number, commit, kept=later is None or later > oldest)
                later = version.committed_at
                yield version


def files_at(store: ObjectStore, table: Table, when: datetime) -> list[str]:
    """The keys of the files that the catalog had at the time ``when``.

    Raises:
        NoSuchVersion: there was none, or it is no longer kept.
    """
    begin = "`bandscope run` makes the first version"
    try:
        for version in catalog_versions(store, table):
            if not version.kept:
                break
            if version.committed_at <= when:
                opened = open_delta(store, table, version.number)
                paths = explained(store, delta_key(table), lambda opened=opened: _paths(opened))
                return [f"{delta_key(table)}/{path}" for path in paths]
            begin = f"the oldest version that is kept is of {version.time_text}"
    except DamagedDelta as error:
        raise NoSuchVersion(f"{error}; `bandscope run` makes it again") from None
    raise NoSuchVersion(f"{table.name} as of {when.astimezone(UTC):%F %T} UTC is gone, or never was: {begin}")


def _paths(opened: Any) -> list[str]:
    return [each.path for each in data_files(opened)]


def _version(number: int, commit: dict[str, Any], *, kept: bool) -> CatalogVersion:
    def count(name: str) -> int | None:
        text = commit.get(f"{PREFIX}{name}")
        return None if text is None else int(text)

    return CatalogVersion(
        number,
        datetime.fromtimestamp(commit["timestamp"] / 1000, UTC),
        commit.get(f"{PREFIX}refresh_id", ""),
        *(count(name) for name in ("songs", "songs_added", "songs_changed", "songs_removed")),
        kept=kept,
    )
