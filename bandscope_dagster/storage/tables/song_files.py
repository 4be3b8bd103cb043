"""The versions of all songs' files, from one listing, and queries over the rows of many songs at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.frames import empty_frame, scan_files
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, SONGS, Table, table_key

SUFFIX = ".parquet"
FOOTERS_AT_ONCE = 16  # parallel reads; each waits for the store and not for the CPU

# The errors of polars for a missing, torn or damaged file. PanicException is not a subclass of Exception.
CANNOT_READ = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)

Query = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True, slots=True)
class SongFiles:
    """Some songs and the versions of their files.

    ``versions`` has a row per song, sorted by ``song_id``. Besides ``song_id`` it has one column per table, with the
    fingerprint of the song's file, or null if the song has no file.
    """

    store: ObjectStore
    versions: pl.DataFrame
    # Table → song → message.
    _damaged: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]], compare=False)

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
        return SongFiles(self.store, self.versions.filter(pl.col("song_id").is_in(song_ids.implode())))

    def batches(self, songs: int) -> Iterator[SongFiles]:
        """All songs in order, in batches of at most ``songs`` songs."""
        for versions in self.versions.iter_slices(songs):
            yield SongFiles(self.store, versions)

    def damaged(self, table: Table) -> Mapping[str, str]:
        """Song → message, for the files of ``table`` that earlier calls of ``read`` could not read."""
        return self._damaged.get(table.name, {})

    def read(self, table: Table, query: Query) -> pl.DataFrame:
        """The result of ``query`` over the rows of all songs. Only the data that it needs is read.

        ``query`` must handle each song separately. A file that was deleted after the listing has no rows. A file that
        cannot be read has no rows either, and is then in ``damaged``.
        """
        song_ids = self.having(table)
        try:
            return self._answer(table, song_ids, query)
        except CANNOT_READ:
            # Polars does not always name the file. If a file was only replaced during the read, it can be read now.
            return pl.concat(
                [self._answer(table, [], query), *(self._answer_of(table, song, query) for song in song_ids)]
            )

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
                self._damaged.setdefault(table.name, {})[song_id] = f"the file cannot be read ({cause})"
                return self._answer(table, [], query)

    def _answer(self, table: Table, song_ids: Sequence[str], query: Query) -> pl.DataFrame:
        if not song_ids:
            return query(empty_frame(table).lazy()).collect()
        files = [self.store.uri(table_key(table, song)) for song in song_ids]
        return query(scan_files(table, files, self.store.polars_access())).collect(engine="streaming")


def list_song_files(store: ObjectStore, tables: Sequence[Table]) -> SongFiles:
    """Every song that has a file in ``songs`` or ``song_failures``, and the versions of its files in ``tables``.

    Only listings are read, no files.
    """
    listed = list(dict.fromkeys([SONGS.name, SONG_FAILURES.name, *(table.name for table in tables)]))
    found = [_versions(table, names) for table, names in store.fingerprints(listed).items()]
    songs = pl.concat([found[0].select("song_id"), found[1].select("song_id")]).unique()
    for versions in found:
        songs = songs.join(versions, on="song_id", how="left")
    return SongFiles(store, songs.sort("song_id"))


def _versions(table: str, names: dict[str, str]) -> pl.DataFrame:
    found = {
        name.removesuffix(SUFFIX): fingerprint for name, fingerprint in names.items() if name.endswith(SUFFIX)
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
