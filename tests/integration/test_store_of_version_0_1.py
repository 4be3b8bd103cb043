"""A store that version 0.1 wrote: this version reads all of it, finds nothing outdated, and computes equal tables."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_processes import bandscope, finish
from polars.testing import assert_frame_equal

from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.input_digests import CODE_VERSIONS, of_rejection
from bandscope_dagster.songs.query import query
from bandscope_dagster.songs.stored_files import read_stored_file
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.columns import SONG_QUALITY_COLUMNS
from bandscope_dagster.storage.tables.frames import read_frame
from bandscope_dagster.storage.tables.lineage import Maker, read_footer, read_lineage
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    CATALOG_TABLES,
    DECODED_WAVEFORMS,
    SONG_TABLES,
    SONGS,
    TABLES,
    TAG_TABLES,
    Table,
)

ARCHIVE = Path(__file__).parents[1] / "data" / "store-and-home-0.1.tar.xz"
GOOD = ("good-one-72c4106187e3", "good-two-ef072d113ad7")
REJECTED = {"cut-a72fd4ab4547": "truncated", "not-audio-edd812c56558": "not_audio"}
UPLOADED = (*GOOD, *REJECTED)
VANISHED = "vanished-0b927e33370e"  # its upload was deleted before it was analyzed

FILES = [(table, song) for table in SONG_TABLES for song in UPLOADED]
of_every_file = pytest.mark.parametrize(
    ("table", "song"), FILES, ids=lambda value: getattr(value, "name", value)
)

INPUTS = ("song_hash", "input_digest", "code_version", "model", "model_sha256", "params")
"""Fields of the lineage that must not change; the run and its time do."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """The store of version 0.1, which no test changes."""
    folder = tmp_path_factory.mktemp("version-0.1")
    with tarfile.open(ARCHIVE) as archive:
        members = [member for member in archive if member.name.split("/")[0] == "store"]
        archive.extractall(folder, members, filter="data")  # keeps the times, and therefore the song ids
    return open_store(str(folder / "store"))


@pytest.fixture(scope="module")
def copied(old: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ObjectStore]:
    """Copies the old store, runs ``bandscope run`` with some options on the copy, and opens it.

    The tagger is the default of version 0.1.
    """

    def run(*options: str) -> ObjectStore:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(old.url, folder / "store")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BANDSCOPE_TAGGER", "musicnn")
            finish(bandscope(folder / "store", folder / "home", "run", *options))
        return open_store(str(folder / "store"))

    return run


@pytest.fixture(scope="module")
def continued(copied: Callable[..., ObjectStore]) -> ObjectStore:
    """The old store after ``bandscope run``."""
    return copied()


@pytest.fixture(scope="module")
def recomputed(copied: Callable[..., ObjectStore]) -> ObjectStore:
    """The old store after ``bandscope run --recompute``."""
    return copied("--recompute")


@of_every_file
def test_every_file_is_read_and_its_lineage_too(table: Table, song: str, old: ObjectStore) -> None:
    rows = read_frame(old, table, song)
    assert rows.columns == list(table.names) and set(rows["song_id"]) == {song}
    errors = {error and error.removeprefix("upstream: ").partition(":")[0] for error in rows["error"]}
    assert errors == {REJECTED.get(song)}
    if table.kind == "audio":
        assert sum(map(len, read_blocks(old, table, song))) == rows.height
    found = read_stored_file(old, table, song)
    assert found is not None and found.faults == ()
    assert Maker.of(read_footer(old, table, song)).table_version == 1
    assert found.lineage.code_version == CODE_VERSIONS[table.name]


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_table_is_queried(table: Table, old: ObjectStore) -> None:
    found = query(old, f"SELECT * FROM {table.name}")
    assert found.columns == list(table.names) and found.height
    songs = {*UPLOADED, VANISHED}
    assert set(found["song_id"]) <= songs
    if table.name in ("songs", "song_catalog"):
        assert set(found["song_id"]) == songs


def test_a_run_finds_nothing_outdated_and_keeps_every_file(old: ObjectStore, continued: ObjectStore) -> None:
    names = [table.name for table in SONG_TABLES]
    before, after = (
        {name: dict(files) for name, files in store.fingerprints(names).items()} for store in (old, continued)
    )
    assert after == before
    assert (
        sum(map(len, before.values())) == len(FILES) + 1
    )  # the last one is the row of the vanished song in songs


def test_the_catalogs_stay_equal(old: ObjectStore, continued: ObjectStore) -> None:
    for table in CATALOG_TABLES:
        ours, theirs = (query(store, f"SELECT * FROM {table.name}") for store in (continued, old))
        if table.name == "song_catalog":  # version 0.1 named no tagger for a song in which it heard nothing
            named = ours.filter(tagger="musicnn")["song_id"]
            assert set(named) == set(ours.filter(status="ok")["song_id"]) == set(GOOD)
            assert set(theirs.filter(tagger="musicnn")["song_id"]) < set(named)
            assert dict(ours.group_by("upload").len().iter_rows()) == {"present": 4, "gone": 1}
            ours, theirs = ours.drop("tagger"), theirs.drop("tagger")
            names = ours.select(pl.coalesce("title", "filename")).to_series()
            assert ours["name"].to_list() == names.to_list()
        if table.name == "song_errors":  # version 0.1 had a row per song and table
            assert not ours.select("song_id", "reason").is_duplicated().any()
            assert theirs["tables"].is_null().all() and theirs["messages"].is_null().all()
            problems = ours.select("song_id", "tables", "reason", "messages").explode("tables", "messages")
            ours = problems.rename({"tables": "table", "messages": "message"})
            theirs = theirs.select(ours.columns)
        for younger in {"name", "upload"} & set(table.names):
            assert ours[younger].is_not_null().all() and theirs[younger].is_null().all()
            ours, theirs = ours.drop(younger), theirs.drop(younger)
        assert_frame_equal(ours, theirs, check_row_order=False)


@of_every_file
def test_computed_anew_the_data_are_equal(
    table: Table, song: str, old: ObjectStore, recomputed: ObjectStore
) -> None:
    ours, theirs = (data_of(store, table, song) for store in (recomputed, old))
    if table is SONGS:  # these columns are younger; no song of the store was damaged
        quality = [column.name for column in SONG_QUALITY_COLUMNS]
        assert theirs.select(quality).row(0) == (None,) * len(quality)
        if song in GOOD:
            assert ours.select(quality).row(0)[:4] == (0, 0.0, None, 1)
        else:  # version 0.1 wrote the duration in the header of a rejected file, and not what was decoded
            quality.append("duration_s")
        if song in GOOD:  # measured with approximate filters until version 0.2
            assert ours["loudness_lufs"][0] - theirs["loudness_lufs"][0] == pytest.approx(0.045, abs=0.01)
            quality.append("loudness_lufs")
        ours, theirs = (rows.drop(quality) for rows in (ours, theirs))
    if table.kind == "tags":  # this column is younger
        assert theirs["level_dbfs"].is_null().all() and ours["level_dbfs"].is_not_null().all() == (
            song in GOOD
        )
        ours, theirs = ours.drop("level_dbfs"), theirs.drop("level_dbfs")
    assert_frame_equal(ours, theirs, check_exact=False, rel_tol=1e-4, abs_tol=1e-4)
    if table.kind == "audio" and song in GOOD:
        for mine, other in zip(
            read_blocks(recomputed, table, song), read_blocks(old, table, song), strict=True
        ):
            for new, stored in zip(mine, other, strict=True):
                # Samples, and not bytes: a FLAC file names the version of libFLAC that wrote it. On the CPU that made
                # the store, stems are equal too; on others, networks compute other last bits.
                samples = [decode_flac(row["audio"]["bytes"], row["gain"]) for row in (new, stored)]
                tolerance = 0 if table is DECODED_WAVEFORMS else 1.5 / 2**15
                np.testing.assert_allclose(*samples, rtol=0, atol=tolerance)


@of_every_file
def test_computed_anew_the_inputs_and_code_versions_are_equal(
    table: Table, song: str, old: ObjectStore, recomputed: ObjectStore
) -> None:
    ours, theirs = (read_lineage(store, table, song) for store in (recomputed, old))
    assert ours is not None and theirs is not None and ours.run_id != theirs.run_id
    assert [getattr(ours, name) for name in INPUTS if name != "input_digest"] == [
        getattr(theirs, name) for name in INPUTS if name != "input_digest"
    ]
    if table in ANALYSIS_TABLES and song in REJECTED:
        # The digest covers the text of the rejection, which a new version may word better.
        for store, lineage in ((recomputed, ours), (old, theirs)):
            assert lineage.input_digest == of_rejection(song, read_frame(store, SONGS, song)["error"][0])
    else:
        assert ours.input_digest == theirs.input_digest


def test_a_new_home_with_the_new_default_tagger_computes_the_tags_anew_and_nothing_else(
    old: ObjectStore, tmp_path: Path
) -> None:
    shutil.copytree(old.url, tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    names = [table.name for table in SONG_TABLES]
    before = store.fingerprints(names)
    finish(bandscope(tmp_path / "store", tmp_path / "home", "run"))
    after = store.fingerprints(names)
    changed = {
        (name, file)
        for name in names
        for file in before[name].keys() | after[name].keys()
        if before[name].get(file) != after[name].get(file)
    }
    assert changed == {(table.name, f"{song}.parquet") for table in TAG_TABLES for song in GOOD}
    catalog = query(store, "SELECT DISTINCT model FROM instrument_catalog")
    assert catalog["model"].to_list() == ["bandscope-instruments"]


def data_of(store: ObjectStore, table: Table, song: str) -> pl.DataFrame:
    """A song's rows without audio and the time of detection, and with the reason instead of the text of an error."""
    rows = read_frame(store, table, song).drop("audio", "detected_at", strict=False)
    return rows.with_columns(pl.col("error").str.extract(r"^((?:upstream: )?\w+):"))
