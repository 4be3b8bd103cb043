"""The catalogs over N synthetic songs: build, refresh, memory and the cost of analysts' queries.

    python -m benchmarks.catalog --songs N [--storage DIR]

It writes N songs in the schemas of the real tables (benchmarks/synthetic_songs.py says where they are smaller), or uses
the songs that DIR has already. Three processes then refresh all three catalogs, one after the other: the first build,
after 100 changes (90 songs replaced, 5 new, 5 removed), and without changes. The seconds include the single listing of
files, which counts for the first catalog, but not imports. The peak is the largest resident size of the process
(Linux). All files are in the page cache, because they were just written.

The changes are of neighbours by song id, as of a batch of new songs. A fourth process refreshes after 90 songs from all
over the catalog were replaced. For each refresh the Delta tables are printed too: the files of the new version, and the
MB by which `delta/` grew; and how long a vacuum of everything that is not in the newest version takes.

Then it runs five queries in polars, on the plain file and on the Delta table. Their seconds are the best of five on the
local file. Their bytes are those that polars fetches for the same query over HTTP, counted by the server, relative to
the size of the file.

The last line is JSON: seconds of all three catalogs for the first build, after the changes, and after changes all over
the catalog; the MB that the Delta tables grew by these two; the largest peak in MB; and the seconds of the slowest
query of the plain files and of the Delta tables.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from bandscope_dagster.catalogs.instrument_catalog import instrument_catalog
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.catalogs.song_catalog import song_catalog
from bandscope_dagster.catalogs.song_errors import song_errors
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import STATES
from bandscope_dagster.storage.tables.delta_log import FOLDER, delta_key, newest_version
from bandscope_dagster.storage.tables.delta_upkeep import tidy
from bandscope_dagster.storage.tables.schemas import (
    CATALOG_TABLES,
    INSTRUMENT_CATALOG,
    SONG_CATALOG,
    SONGS,
    Table,
    catalog_key,
)
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from
from benchmarks.counting_server import counting_server
from benchmarks.measuring import MIB, ROOT, peak_mib
from benchmarks.synthetic_songs import remove_song, song_id, write_songs

REPLACED, NEW, REMOVED = 90, 5, 5
QUERY_ROUNDS = 5

Query = Callable[[pl.LazyFrame], pl.LazyFrame]


def in_front_without_voices(songs: pl.LazyFrame) -> pl.LazyFrame:
    """Songs under 100 s with a sitar in the foreground and no voice."""
    heard = pl.element().struct
    sitar = (heard.field("instrument") == "sitar") & (heard.field("layer") == "foreground")
    return songs.filter(
        pl.col("duration_s") < 100,
        pl.col("instruments").list.eval(sitar).list.any(),
        ~pl.col("instruments").list.eval(heard.field("family") == "voice").list.any(),
    ).select("song_id", "title", "duration_s")


def one_song(songs: pl.LazyFrame) -> pl.LazyFrame:
    """The catalog's row of one song."""
    return songs.filter(pl.col("song_id") == song_id(1))


def by_status(songs: pl.LazyFrame) -> pl.LazyFrame:
    """Songs, hours and loudness by status and genre."""
    return songs.group_by("status", "genre").agg(
        pl.len(), pl.col("duration_s").sum() / 3600, pl.col("loudness_lufs").median()
    )


def where_a_sitar_plays(instruments: pl.LazyFrame) -> pl.LazyFrame:
    """Every interval with a sitar in a mixture."""
    return (
        instruments.filter(pl.col("instrument") == "sitar", pl.col("source") == "mixture")
        .select("song_id", "intervals")
        .explode("intervals")
        .unnest("intervals")
    )


def most_heard(instruments: pl.LazyFrame) -> pl.LazyFrame:
    """Songs and hours of every instrument, by source."""
    return (
        instruments.filter(pl.col("seconds_present") > 10)
        .group_by("instrument", "source")
        .agg(pl.col("song_id").n_unique(), pl.col("seconds_present").sum() / 3600)
    )


QUERIES: list[tuple[Table, Query, bool]] = [  # True if the query needs few rows
    (SONG_CATALOG, in_front_without_voices, False),
    (SONG_CATALOG, one_song, True),
    (SONG_CATALOG, by_status, False),
    (INSTRUMENT_CATALOG, where_a_sitar_plays, True),
    (INSTRUMENT_CATALOG, most_heard, False),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the catalogs over synthetic songs.")
    parser.add_argument("--songs", type=int, default=10_000)
    parser.add_argument("--storage", type=Path, help="folder for the songs, which is kept")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        refresh_all(arguments.storage)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        report = measure(arguments.storage or Path(temporary), arguments.songs)
    print(json.dumps({name: round(value, 3) for name, value in report.items()}))


def measure(storage: Path, songs: int) -> dict[str, float]:
    """Run all measurements; returns the figures of the last line."""
    prepare(storage, songs)
    print(f"{songs:,} songs\n{'':16}{'catalog':20}{'s':>8}{'songs read':>12}{'rows':>12}{'MB':>9}")
    built = in_a_process("first build", storage)
    write_songs(str(storage), range(REPLACED), version=1)
    write_songs(str(storage), range(songs, songs + NEW))
    store = open_store(str(storage))
    for number in range(songs - REMOVED, songs):
        remove_song(store, number)
    changed = in_a_process("100 changes", storage)
    same = in_a_process("no change", storage)
    write_songs(str(storage), range(0, songs - REMOVED, max(1, songs // REPLACED)), version=2)
    scattered = in_a_process("scattered", storage)
    report = {
        "build_s": built["seconds"],
        "refresh_s": changed["seconds"],
        "scattered_s": scattered["seconds"],
        "delta_grew_mb": changed["delta_mb"],
        "delta_grew_scattered_mb": scattered["delta_mb"],
        "peak_mb": max(each["peak_mb"] for each in (built, changed, same, scattered)),
        "slowest_query_s": max(query(storage, *each) for each in QUERIES),
        "slowest_delta_query_s": max(query_delta(store, table, ask) for table, ask, _ in QUERIES),
    }
    vacuum(store)
    return report


def prepare(storage: Path, songs: int) -> None:
    """Make the store contain exactly these songs, and no catalog."""
    store = open_store(str(storage))
    wanted = {song_id(number): number for number in range(songs)}
    found = {Path(each.key).stem for each in store.list(SONGS.name)}
    for number in range(songs, songs + NEW):
        if song_id(number) in found:
            remove_song(store, number)
    if strangers := found - wanted.keys() - {song_id(number) for number in range(songs, songs + NEW)}:
        raise SystemExit(
            f"{storage} has {len(strangers)} other songs than the first {songs}: give an empty folder"
        )
    started = time.perf_counter()
    write_songs(str(storage), (number for song, number in wanted.items() if song not in found))
    print(f"songs written in {time.perf_counter() - started:.0f} s")
    for folder in (STATES, FOLDER, *(table.name for table in CATALOG_TABLES)):
        for each in list(store.list(folder)):
            store.delete(each.key)


def in_a_process(what: str, storage: Path) -> dict[str, float]:
    """Refresh all catalogs in a new process; returns their total seconds and its peak in MB."""
    store = open_store(str(storage))
    before = delta_mb(store)
    command = [sys.executable, "-m", "benchmarks.catalog", "--process", "--storage", str(storage)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    report: dict[str, Any] = json.loads(answer.splitlines()[-1])
    for catalog in report["catalogs"]:
        print(
            f"{what:16}{catalog['name']:20}{catalog['seconds']:8.2f}{catalog['songs_read']:12,}"
            f"{catalog['rows']:12,}{catalog['mb']:9.1f}"
        )
    seconds = sum(catalog["seconds"] for catalog in report["catalogs"])
    print(f"{what:16}{'all':20}{seconds:8.2f}   peak {report['peak_mb']:.0f} MB", flush=True)
    versions = [newest_version(store, table) for table in CATALOG_TABLES]
    files = [
        f"{len(each.files)} of {sum(file.size for file in each.files) / 1e6:.1f} MB"
        for each in versions
        if each
    ]
    grew = delta_mb(store) - before
    print(f"{what:16}{'Delta tables':20}grew by {grew:.1f} MB; files: {'; '.join(files)}", flush=True)
    return {"seconds": seconds, "peak_mb": report["peak_mb"], "delta_mb": grew}


def delta_mb(store: ObjectStore) -> float:
    """The size of all Delta tables with their earlier versions, in MB."""
    return sum(each.size for each in store.list(FOLDER)) / 1e6


def vacuum(store: ObjectStore) -> None:
    """Delete all versions but the newest, and print how long it took."""
    before, started = delta_mb(store), time.perf_counter()
    for table in CATALOG_TABLES:
        tidy(store, table, 0, vacuum=True)
    seconds = time.perf_counter() - started
    print(f"vacuum: {seconds:.2f} s, {before:.1f} MB before, {delta_mb(store):.1f} MB after", flush=True)


def refresh_all(storage: Path) -> None:
    """Refresh all catalogs, and print the figures as JSON."""
    store = open_store(str(storage))
    rules = present_from(None, AUDIBLE_DB)
    catalogs = (song_catalog(rules, "1"), instrument_catalog(rules, "1"), song_errors("1"))
    done = [
        {"name": Path(each.file.key).stem, "seconds": each.seconds, "songs_read": len(each.changes.to_read)}
        | {"rows": each.file.rows, "mb": each.file.bytes / 1e6}
        for each in refresh(store, catalogs, report_progress=lambda text: print(text, file=sys.stderr))
    ]
    print(json.dumps({"catalogs": done, "peak_mb": peak_mib() * MIB / 1e6}))


def query(storage: Path, table: Table, ask: Query, selective: bool) -> float:
    """The seconds of a query; prints them with the bytes that it fetched."""
    path = storage / catalog_key(table)
    seconds: list[float] = []
    for _ in range(QUERY_ROUNDS):
        started = time.perf_counter()
        answer = ask(pl.scan_parquet(path, glob=False)).collect()
        seconds.append(time.perf_counter() - started)
    with counting_server(storage) as server:
        remote = ask(pl.scan_parquet(server.url(catalog_key(table)), glob=False)).collect()
        share = server.sent / path.stat().st_size
    assert remote.height == answer.height
    print(
        f"{table.name:20}{ask.__name__:26}{min(seconds):8.3f} s{answer.height:9,} rows{server.sent / 1e6:9.2f} MB "
        f"{share:7.1%} of the file{', selective' if selective else ''}",
        flush=True,
    )
    return min(seconds)


def query_delta(store: ObjectStore, table: Table, ask: Query) -> float:
    """The seconds of a query on the Delta table, with the opening of its newest version."""
    seconds: list[float] = []
    for _ in range(QUERY_ROUNDS):
        started = time.perf_counter()
        answer = ask(pl.scan_delta(store.uri(delta_key(table)))).collect()
        seconds.append(time.perf_counter() - started)
    expected = ask(pl.scan_parquet(store.uri(catalog_key(table)), glob=False)).collect()
    assert answer.height == expected.height
    print(
        f"{'Delta ' + table.name:26}{ask.__name__:26}{min(seconds):8.3f} s{answer.height:9,} rows", flush=True
    )
    return min(seconds)


if __name__ == "__main__":
    main()
