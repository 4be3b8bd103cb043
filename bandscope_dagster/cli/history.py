"""``bandscope history``: the versions of the catalogs, and what each refresh changed."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import print_raw
from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.delta_history import CatalogVersion, catalog_versions
from bandscope_dagster.storage.tables.delta_log import DamagedDelta, delta_key
from bandscope_dagster.storage.tables.schemas import CATALOG_TABLES, Table


class HistoryError(BandscopeError):
    """There is no such catalog, or its history cannot be read."""


def print_history(
    store: ObjectStore, console: Console, catalog: str | None, *, last: int | None = None, as_json: bool
) -> None:
    """Print one line per version, the newest first; only the ``last`` versions of each catalog, if it is given.

    Raises:
        HistoryError: ``catalog`` is no catalog, or its Delta table is damaged.
    """
    known = {table.name: table for table in CATALOG_TABLES}
    if catalog is not None and catalog not in known:
        raise HistoryError(f"{catalog} is no catalog; the catalogs are {', '.join(known)}")
    for table in [known[catalog]] if catalog else known.values():
        versions = _versions(store, table, last)
        if as_json:
            for each in versions:
                values = asdict(each) | {"committed_at": each.committed_at.isoformat()}
                print_raw(json.dumps({"catalog": table.name} | values))
            continue
        where = store.uri(delta_key(table)) if versions else "no versions yet; `bandscope run` makes one"
        console.print(escape(f"{table.name}: {where}"), highlight=False, soft_wrap=True)
        for each in versions:
            console.print(escape(f"  {_line(each)}"), highlight=False, soft_wrap=True)


def _versions(store: ObjectStore, table: Table, last: int | None) -> list[CatalogVersion]:
    try:
        return list(catalog_versions(store, table, last))
    except DamagedDelta as error:
        raise HistoryError(f"{error}; `bandscope run` makes it again") from None


def _line(version: CatalogVersion) -> str:
    if version.songs is None:
        what = "by another program"
    else:
        changes = f"{version.added} added, {version.changed} changed, {version.removed} removed"
        what = f"made from {counted(version.songs, 'song')}: {changes}; refresh {version.refresh_id}"
    gone = "" if version.kept else "; too old to be read"
    return f"version {version.number}  {version.time_text}  {what}{gone}"
