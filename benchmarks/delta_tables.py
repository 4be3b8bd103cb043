"""The Delta tables' part of a refresh over N songs: time, growth of the store, queries, vacuum.

    python -m benchmarks.delta_tables [--songs 100000]

``benchmarks.catalog`` measures whole refreshes, and needs the files of all songs. Here the rows of 1,000 synthetic
songs are repeated under other ids until there are N, so that there are no songs to list or to read; all else is the
code of a refresh. For each catalog: all rows as the first version; then 100 changes (90 songs replaced, 5 new, 5
removed), once of neighbours by song id and once of songs from all over the catalog; then ten versions of five new songs
each. The last column is the time to write the plain file after the same changes. Then the queries of
``benchmarks.catalog``, and a vacuum.

The last line is JSON: seconds and MB of growth, the sums of all three catalogs; of the small versions, the means.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from bandscope_dagster.catalogs.catalog import Catalog
from bandscope_dagster.catalogs.delta import DeltaTarget, delta_base, follow
from bandscope_dagster.catalogs.instrument_catalog import instrument_catalog
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.catalogs.song_catalog import song_catalog
from bandscope_dagster.catalogs.song_errors import song_errors
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import read_state, write_state
from bandscope_dagster.storage.tables.delta_log import newest_version
from bandscope_dagster.storage.tables.schemas import catalog_key
from bandscope_dagster.storage.tables.sorted_table import write_sorted
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from
from benchmarks.catalog import NEW, QUERIES, REMOVED, REPLACED, delta_mb, query, query_delta, vacuum
from benchmarks.measuring import spent
from benchmarks.synthetic_songs import song_id, write_songs

TEMPLATES = 1000  # songs that are computed
SMALL_VERSIONS = 10


@dataclass(frozen=True, slots=True)
class Step:
    """One refresh of a catalog: the versions of all songs, and the rows in sorted parts."""

    versions: pl.DataFrame
    parts: list[pl.LazyFrame]


class Collection:
    """The rows of one catalog for any song: those of a template, under the song's id."""

    def __init__(self, catalog: Catalog, rows: pl.DataFrame, folder: Path) -> None:
        self.catalog = catalog
        ids = {song_id(number): number for number in range(TEMPLATES)}
        self._rows = rows.with_columns(pl.col("song_id").replace_strict(ids).alias("template"))
        self._folder = folder
        self._files = 0

    def part(self, numbers: Iterable[int]) -> pl.LazyFrame:
        """The rows of these songs, sorted, in a local file as a refresh spills them."""
        songs = pl.DataFrame({"number": list(numbers)}).with_columns(template=pl.col("number") % TEMPLATES)
        ids = pl.Series("song_id", [song_id(number) for number in songs["number"]])
        rows = self._rows.drop("song_id").join(songs.with_columns(ids), on="template")
        path = self._folder / f"{self.catalog.table.name}-{self._files}.parquet"
        self._files += 1
        self.catalog.layout.sort(rows).write_parquet(path, compression="lz4", row_group_size=16_384)
        return pl.scan_parquet(path, glob=False)

    def copy(self, store: ObjectStore) -> pl.LazyFrame:
        """The plain file that was written last, as a refresh copies it."""
        self._files += 1
        path = self._folder / f"old-{self._files}.parquet"
        shutil.copy(store.uri(catalog_key(self.catalog.table)), path)
        return pl.scan_parquet(path, glob=False)

    def versions(self, songs: dict[int, str]) -> pl.DataFrame:
        """The versions of the songs' files: number → any text that changes with them."""
        texts = list(songs.values())
        columns = {"song_id": [song_id(number) for number in songs]}
        columns |= dict.fromkeys(self.catalog.compared, texts)
        return pl.DataFrame(columns).sort("song_id")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the Delta tables of the catalogs.")
    parser.add_argument("--songs", type=int, default=100_000)
    songs = parser.parse_args().songs
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        report = measure(Path(temporary), songs)
    print(json.dumps({name: round(value, 3) for name, value in report.items()}))


def measure(folder: Path, songs: int) -> dict[str, float]:
    """Run all measurements; returns the figures of the last line."""
    templates = open_store(str(folder / "templates"))
    write_songs(templates.url, range(TEMPLATES))
    rules = present_from(None, AUDIBLE_DB)
    catalogs = (song_catalog(rules, "1"), instrument_catalog(rules, "1"), song_errors("1"))
    for _ in refresh(templates, catalogs):
        pass
    store = open_store(str(folder / "store"))
    report: dict[str, float] = {}
    print(f"{songs:,} songs\n{'':20}{'':20}{'wall s':>8}{'CPU s':>8}{'grew MB':>9}{'files':>7}{'plain s':>9}")
    for catalog in catalogs:
        rows = pl.read_parquet(templates.uri(catalog_key(catalog.table)))
        collection = Collection(catalog, rows, folder)
        for number, (what, step) in enumerate(steps(collection, store, songs)):
            for name, value in version(store, catalog, f"{number:032x}", what, step).items():
                share = value / SMALL_VERSIONS if what == "five_new" else value
                report[f"{what}_{name}"] = report.get(f"{what}_{name}", 0.0) + share
    report["slowest_query_s"] = max(query_delta(store, table, ask) for table, ask, _ in QUERIES)
    report["slowest_plain_query_s"] = max(query(folder / "store", *each) for each in QUERIES)
    vacuum(store)
    return report


def steps(collection: Collection, store: ObjectStore, songs: int) -> Iterator[tuple[str, Step]]:
    """The refreshes of a catalog."""
    known = dict.fromkeys(range(songs), "0")
    yield "first", Step(collection.versions(known), [collection.part(known)])
    everything = collection.copy(store)
    ordered = sorted(known, key=song_id)
    apart = songs // (REPLACED + REMOVED)
    added = songs
    for what, chosen in (
        ("neighbours", ordered[: REPLACED + REMOVED]),
        ("scattered", ordered[apart // 2 :: apart][: REPLACED + REMOVED]),
    ):
        replaced, removed = chosen[:REPLACED], chosen[REPLACED:]
        new = list(range(added, added + NEW))
        added += NEW
        known = {song: text for song, text in known.items() if song not in removed}
        known |= dict.fromkeys([*replaced, *new], what)
        everything = without(everything, chosen)
        yield what, Step(collection.versions(known), [collection.part([*replaced, *new]), everything])
        everything = collection.copy(store)
    for _ in range(SMALL_VERSIONS):
        new = list(range(added, added + NEW))
        added += NEW
        known |= dict.fromkeys(new, "new")
        yield "five_new", Step(collection.versions(known), [collection.part(new), everything])
        everything = collection.copy(store)


def without(rows: pl.LazyFrame, songs: Iterable[int]) -> pl.LazyFrame:
    """The rows of all other songs."""
    ids = pl.Series([song_id(number) for number in songs])
    return rows.filter(~pl.col("song_id").is_in(ids.implode()))


def version(store: ObjectStore, catalog: Catalog, refresh_id: str, what: str, step: Step) -> dict[str, float]:
    """Make one version and the plain file; returns the seconds and the growth."""
    write_state(store, catalog.table, refresh_id, step.versions)
    plain = time.perf_counter()
    write_sorted(store, catalog.layout, step.parts, {})
    plain = time.perf_counter() - plain
    base, before = delta_base(store, catalog.layout), delta_mb(store)
    target = DeltaTarget(catalog, refresh_id, step.versions, step.parts, everything=False)
    known: dict[str, pl.DataFrame] = {}
    if base.version is not None:  # as a refresh has read it
        known[base.version.refresh_id] = read_state(
            store, catalog.table, base.version.refresh_id, catalog.compared
        )
        target = replace(target, since=base.version.refresh_id, new=step.parts[:1])
    took = spent(lambda: follow(store, base, target, known))
    found, grew = newest_version(store, catalog.table), delta_mb(store) - before
    files = len(found.files) if found else 0
    name = catalog.table.name
    print(f"{what:20}{name:20}{took.wall:8.2f}{took.cpu:8.2f}{grew:9.2f}{files:7,}{plain:9.2f}", flush=True)
    return {"s": took.wall, "mb": grew, "plain_s": plain}


if __name__ == "__main__":
    main()
