"""The versions of all songs' files, from one listing, and queries over the rows of many songs at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import polars as pl

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.frames import empty_frame, scan_files
from bandscope_dagster.storage.tables.lineage import footer_fault
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, SONG_ID, SONGS, Table, table_key

SUFFIX = ".parquet"
UPLOAD = "upload"  # a column of ``versions`` that callers may add: the state of the song's upload
AUDIO = "audio"  # the column of FLAC bytes
FOOTERS_AT_ONCE = 16  # parallel reads; each waits for the store and not for the CPU

# The errors of polars for a missing, torn or damaged file. PanicException is not a subclass of Exception.
CANNOT_READ = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)

Query = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True, slots=True)
class _Examined:
    """Which files of one listing were looked at, for all objects that are made from it: each file is read once."""

    damaged: dict[str, dict[str, str]] = field(
        default_factory=dict[str, dict[str, str]]
    )  # table → song → message
    done: set[tuple[str, str, int, int]] = field(default_factory=set[tuple[str, str, int, int]])

    def first_time(self, what: str, table: Table, songs: pl.Series) -> bool:
        """True if this was not done for these songs yet; it is done from now on."""
        key = what, table.name, len(songs), int(songs.hash().sum() or 0)
        new = key not in self.done
        self.done.add(key)
        return new


@dataclass(frozen=True, slots=True)
class SongFiles:
    """Some songs and the versions of their files.

    ``versions`` has a row per song, sorted by ``song_id``. Besides ``song_id`` it has one column per table, with the
    fingerprint of the song's file, or null if the song has no file.
    """

    store: ObjectStore
    versions: pl.DataFrame
    _examined: _Examined = field(default_factory=_Examined, compare=False)

    def __len__(self) -> int:
        return self.versions.height

    @property
    def song_ids(self) -> pl.Series:
        """The ids of all songs."""
        return self.versions["song_id"]

    def having(self, table: Table) -> list[str]:
        """The ids of the songs that have a file in ``table``, with or without rows."""
        return self.versions.drop_nulls(table.name)["song_id"].to_list()

    def of(self, song_ids: pl.Series) -> SongFiles:
        """The files of these songs only."""
        versions = self.versions.filter(pl.col("song_id").is_in(song_ids.implode()))
        return SongFiles(self.store, versions, self._examined)

    def batches(self, songs: int) -> Iterator[SongFiles]:
        """All songs in order, in batches of at most ``songs`` songs."""
        for versions in self.versions.iter_slices(songs):
            yield SongFiles(self.store, versions, self._examined)

    def damaged(self, table: Table) -> Mapping[str, str]:
        """Song → message, for the files of ``table`` that earlier calls of ``read`` could not read.

        Also of other songs, if an object that was made from the same listing read them.
        """
        return self._examined.damaged.get(table.name, {})

    def read(self, table: Table, query: Query) -> pl.DataFrame:
        """The result of ``query`` over the rows of all songs. Only the data that it needs is read.

        ``query`` must handle each song separately. A file that was deleted after the listing has no rows. A file that
        cannot be read, or is another song's or another table's, has no rows either, and is then in ``damaged``.
        """
        self._look_at_footers(table)
        song_ids = self._whole(table)
        try:
            return self._answer(table, song_ids, query)
        except CANNOT_READ:
            # Polars does not always name the file. If a file was only replaced during the read, it can be read now.
            return pl.concat(
                [self._answer(table, [], query), *(self._answer_of(table, song, query) for song in song_ids)]
            )

    def check(self, table: Table) -> None:
        """Read every value of the table but the audio; files in which that fails are then in ``damaged``."""
        if not self._examined.first_time("all values", table, self.song_ids):
            return
        values = [name for name in table.names if name != AUDIO]
        each = pl.struct(values).hash().alias("hash")  # polars reads only columns that it needs
        self.read(
            table, lambda rows: rows.select("song_id", each).group_by("song_id").agg(pl.col("hash").sum())
        )

    def _whole(self, table: Table) -> list[str]:
        damaged = self.damaged(table)
        return [song for song in self.having(table) if song not in damaged]

    def _look_at_footers(self, table: Table) -> None:
        """Find damaged files by their footers, at the first read of a table: polars accepts files of other songs."""
        if self._examined.first_time("footers", table, self.song_ids):
            found = footer_faults(self.store, table, self.having(table))
            self._examined.damaged.setdefault(table.name, {}).update(found)

    def _answer_of(self, table: Table, song_id: str, query: Query) -> pl.DataFrame:
        try:
            return self._answer(table, [song_id], query)
        except CANNOT_READ:
            try:
                # A fault of the store raises here. If the bytes can be read, an error below is a fault of the file.
                content = self.store.read(table_key(table, song_id))
            except FileNotFoundError:
                return self._answer(table, [], query)
            try:
                return query(scan_files(table, io.BytesIO(content))).collect()
            except CANNOT_READ as error:
                cause = str(error).partition("\n")[0]
                self._examined.damaged[table.name][song_id] = f"the file cannot be read ({cause})"
                return self._answer(table, [], query)

    def _answer(self, table: Table, song_ids: Sequence[str], query: Query) -> pl.DataFrame:
        if not song_ids:
            return query(empty_frame(table).lazy()).collect()
        files = [self.store.uri(table_key(table, song)) for song in song_ids]
        return query(scan_files(table, files, self.store.polars_access())).collect(engine="streaming")


def footer_faults(store: ObjectStore, table: Table, song_ids: Sequence[str]) -> dict[str, str]:
    """Song → the reason why its file in ``table`` cannot be used, as far as footers tell."""

    def fault_of(song_id: str) -> str | None:
        return footer_fault(store, table, song_id)

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        faults = pool.map(fault_of, song_ids)
        return {song: fault for song, fault in zip(song_ids, faults, strict=True) if fault is not None}


def list_song_files(store: ObjectStore, tables: Sequence[Table]) -> SongFiles:
    """Every song that has a file in ``songs`` or ``song_failures``, and the versions of its files in ``tables``.

    Only listings are read, no files.
    """
    return known_songs(list_all_files(store, [SONGS, SONG_FAILURES, *tables]))


def list_all_files(store: ObjectStore, tables: Sequence[Table]) -> SongFiles:
    """The same for every song that has a file in any of ``tables``."""
    listed = list(dict.fromkeys(table.name for table in tables))
    found = [_versions(table, names) for table, names in store.fingerprints(listed).items()]
    songs = pl.concat([versions.select("song_id") for versions in found]).unique()
    for versions in found:
        songs = songs.join(versions, on="song_id", how="left")
    return SongFiles(store, songs.sort("song_id"))


def known_songs(files: SongFiles) -> SongFiles:
    """Those of ``files`` whose song has a file in ``songs`` or ``song_failures``."""
    known = pl.any_horizontal(pl.col(SONGS.name, SONG_FAILURES.name).is_not_null())
    return SongFiles(files.store, files.versions.filter(known))


def _versions(table: str, names: dict[str, str]) -> pl.DataFrame:
    found = {
        song: fingerprint
        for name, fingerprint in names.items()
        if name.endswith(SUFFIX) and SONG_ID.fullmatch(song := name.removesuffix(SUFFIX))
    }
    return pl.DataFrame(
        {"song_id": list(found), table: list(found.values())},
        schema={"song_id": pl.String, table: pl.String},
    )


def files_of(store: ObjectStore, song_id: str, tables: Sequence[Table]) -> SongFiles:
    """The versions of one song's files, by one request per file."""
    found = {table.name: store.head(table_key(table, song_id)) for table in tables}
    versions = {name: [each.fingerprint if each else None] for name, each in found.items()}
    schema = {"song_id": pl.String} | {name: pl.String() for name in versions}
    return SongFiles(store, pl.DataFrame({"song_id": [song_id]} | versions, schema=schema))
