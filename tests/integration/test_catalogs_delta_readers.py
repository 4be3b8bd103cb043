"""Readers of the Delta tables never meet an error or a mix: during refreshes, after kills, beside other refreshes."""

import random
import threading
from collections import Counter

import pytest
from catalog_refresher import REFRESHED, change, songs_of
from catalog_songs import INSTRUMENT_CATALOG, SONG_CATALOG
from delta_tables import READERS, Rows, assert_equal_forms, opened
from long_forms import quick_or_long
from refreshing_process import kill_in_turn, start

from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import Table

TURNS = quick_or_long(6, long=50)
COLUMNS = {"song_catalog": ["song_id", "title"], "instrument_catalog": ["song_id", "score"]}
TABLES = [each.table for each in (SONG_CATALOG, INSTRUMENT_CATALOG)]


def turn_of(rows: Rows) -> int:
    """The turn of the rows; all rows must have the same."""
    (value,) = {value for _, value in rows}
    turn = int(value) if isinstance(value, str) else round(value * 128)
    assert [song for song, _ in rows] == songs_of(turn)
    return turn


def turns(store: ObjectStore, table: Table) -> list[int]:
    """The turn of every version."""
    found: list[int] = []
    for number in range(opened(store, table).version() + 1):
        rows = opened(store, table, number).to_pandas(columns=COLUMNS[table.name])
        found.append(turn_of(sorted(rows.itertuples(index=False, name=None))))
    return found


def test_no_reader_meets_an_error_or_a_mix_during_many_refreshes_of_which_one_is_killed(
    request: pytest.FixtureRequest, store: ObjectStore
):
    change(store, 0)
    [*refresh(store, REFRESHED)]
    seen: dict[str, Counter[int]] = {reader: Counter() for reader in READERS}
    errors: list[BaseException] = []
    stop = threading.Event()

    def read(reader: str) -> None:
        last = dict.fromkeys(COLUMNS, 0)
        try:
            while not stop.is_set():
                for table in TABLES:
                    turn = turn_of(READERS[reader](store, table, COLUMNS[table.name]))
                    assert turn >= last[table.name], "an older catalog after a newer one"
                    last[table.name] = turn
                    seen[reader][turn] += 1
                stop.wait(0.01)  # the refreshes need the cores too
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read, args=(reader,)) for reader in READERS]
    for reader in readers:
        reader.start()
    try:
        turn = random.randrange(2, TURNS // 2 + 1)
        killed = kill_in_turn(start(request, store, 1, TURNS), turn, after_s=random.uniform(0, 0.2))
        after = start(request, store, killed + 1, TURNS)
        assert after.wait(timeout=900) == 0
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert errors == []
    for counted in seen.values():
        assert len(counted) > 1, "it read during the refreshes"
    for table in TABLES:
        of_versions = turns(store, table)
        assert of_versions[-1] == TURNS and of_versions == sorted(of_versions)
    assert_equal_forms(store, *TABLES)


def test_a_kill_at_any_moment_leaves_the_old_version_or_the_new_one(
    request: pytest.FixtureRequest, store: ObjectStore
):
    change(store, 0)
    [*refresh(store, REFRESHED)]
    turn = 0
    for _ in range(quick_or_long(2, long=12)):
        before = {table.name: len(turns(store, table)) for table in TABLES}
        process = start(request, store, turn + 1, turn + 2)
        began = kill_in_turn(process, turn + 1, after_s=random.uniform(0, 0.4))
        for table in TABLES:
            new = turns(store, table)[before[table.name] - 1 :]
            assert new == list(range(turn, turn + len(new))), "each version is that of a whole turn"
            assert new[-1] in range(turn, began + 1)
        turn = began
        change(store, turn)  # a kill in a change of the songs leaves songs of two turns
        [*refresh(store, REFRESHED)]
        assert {turns(store, table)[-1] for table in TABLES} == {turn}
        assert_equal_forms(store, *TABLES)
