"""docs/tables.md and its lock equal what the tables' definitions give; a table cannot change without both."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from song_rows import block_rows, lineage

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.columns import Column
from bandscope_dagster.storage.tables.schemas import SONGS, STEMS, TABLES, Table

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import write_docs
from write_docs import LOCK, PAGE, Unlocked, lock_text, page_text, updated_lock

RUN = "run `python scripts/write_docs.py`, read the difference, and commit it"
MOOD = Column("mood", pa.string(), "The mood of the song", "calm")


def stored_lock() -> write_docs.Lock:
    return json.loads(LOCK.read_text())


def changed(table: Table) -> dict[str, Table]:
    return TABLES | {table.name: table}


def test_the_lock_has_the_columns_of_every_table():
    assert lock_text(updated_lock(stored_lock(), TABLES)) == LOCK.read_text(), RUN


def test_the_page_equals_the_definitions():
    assert PAGE.read_text() == page_text(TABLES), RUN


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ((*SONGS.columns, MOOD), "songs: mood is new"),
        (SONGS.columns[:-1], "songs: true_peak_dbtp was removed"),
        (
            (replace(SONGS.columns[0], name="song"), *SONGS.columns[1:]),
            "songs: song is new, song_id was removed",
        ),
        (
            (*SONGS.columns[:-1], replace(SONGS.columns[-1], type=pa.large_string())),
            "songs: true_peak_dbtp changed from float to large_string",
        ),
        (
            (*SONGS.columns[:-1], replace(SONGS.columns[-1], nullable=False)),
            "songs: true_peak_dbtp changed from float to float not null",
        ),
        ((*SONGS.columns[:-2], *SONGS.columns[:-3:-1]), "songs: the columns changed their order"),
    ],
    ids=["added", "removed", "renamed", "retyped", "required", "reordered"],
)
def test_a_change_of_columns_needs_a_new_version(columns: tuple[Column, ...], says: str):
    with pytest.raises(Unlocked) as refused:
        updated_lock(stored_lock(), changed(replace(SONGS, columns=columns)))
    message = str(refused.value)
    assert message.startswith(says)
    assert message.endswith(
        f"its version is still {SONGS.version}. Set the version to {SONGS.version + 1} in "
        "storage/tables/schemas.py and run "
        "`python scripts/write_docs.py`"
    )


def test_a_new_version_appends_columns_and_the_lock_keeps_the_old_version():
    after = replace(SONGS, version=SONGS.version + 1, columns=(*SONGS.columns, MOOD))
    lock = updated_lock(stored_lock(), changed(after))
    versions = lock["songs"]
    assert versions[str(SONGS.version)] == stored_lock()["songs"][str(SONGS.version)]
    assert list(versions[str(after.version)]) == [*SONGS.names, "mood"]
    assert "| `mood` | `string` |  | The mood of the song | `calm` |" in page_text(changed(after))


@pytest.mark.parametrize("columns", [SONGS.columns[:-1], (MOOD, *SONGS.columns)], ids=["removed", "in front"])
def test_a_new_version_may_only_append_columns(columns: tuple[Column, ...]):
    after = replace(SONGS, version=SONGS.version + 1, columns=columns)
    with pytest.raises(
        Unlocked, match="A change may only append columns, so that files of version 2 stay readable"
    ):
        updated_lock(stored_lock(), changed(after))


@pytest.mark.parametrize("version", [0, SONGS.version + 2])
def test_versions_are_counted_one_by_one(version: int):
    with pytest.raises(
        Unlocked,
        match=f"songs has version {version}, but the last one in tables.lock.json is {SONGS.version}",
    ):
        updated_lock(stored_lock(), changed(replace(SONGS, version=version)))


def test_a_table_cannot_be_removed():
    with pytest.raises(Unlocked, match=r"\['songs'\] were removed: put them back"):
        updated_lock(stored_lock(), {name: table for name, table in TABLES.items() if name != "songs"})


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_table_has_a_section_and_every_column_a_line_in_it(table: Table):
    section = re.search(rf"^## {table.name}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None
    lines = [line for line in section[1].splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == list(table.names)
    assert all(len(re.split(r"(?<!\\)\|", line)) == 7 for line in lines), "a cell is not closed"


def test_the_example_reads_a_stem_at_its_true_level(tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    store = open_store(str(tmp_path))
    with AudioTableWriter(store, STEMS, lineage("song")) as writer:
        for block in range(2):
            rows = block_rows("song", block, ("vocals", "drums"), seconds=0.1)
            writer.add([row | {"gain": 2.0} for row in rows])
        written = writer.commit()
    vocals, drums = (names["read_stem"](written.uri, stem) for stem in ("vocals", "drums"))
    assert vocals.shape == (8820, 2) and vocals.dtype == np.float32
    assert np.abs(vocals).max() == pytest.approx(1.0, abs=0.01)  # 0.5 in the file, at a gain of 2
    assert np.abs(vocals - 2 * drums).max() < 1e-3
