"""SQL over the tables: all tables exist even without files, all file versions are read together, nothing is written."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import CommandLine
from song_rows import block_rows, lineage, song_row, tag_row

from bandscope_dagster.songs.query import QueryError, lazy_query, query
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, SONGS, STEMS, TABLES
from bandscope_dagster.storage.tables.song_tables import write_table


def fill(store: ObjectStore) -> None:
    """Two songs; the first has stems and a guitar."""
    for number, song in enumerate(("one", "two")):
        row = song_row(song, title=f"Song {number}", duration_s=20.0 + number)
        write_table(store, SONGS, [row], lineage(song))
    tags = [tag_row("one", "guitar", 0.5, 0.0), tag_row("one", "guitar", 0.3, 3.0)]
    write_table(store, INSTRUMENT_TAGS, tags, lineage("one"))
    with AudioTableWriter(store, STEMS, lineage("one")) as writer:
        writer.add(block_rows("one", 0, ("vocals", "accompaniment")))
        writer.commit()


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_table_without_files_has_its_columns_and_no_rows(table, store: ObjectStore) -> None:
    answer = query(store, f"SELECT * FROM {table.name}")
    assert (answer.height, tuple(answer.columns)) == (0, table.names)


def test_tables_are_joined(store: ObjectStore) -> None:
    fill(store)
    answer = query(
        store,
        """SELECT title, AVG(score) AS score, COUNT(*) AS windows FROM songs
           JOIN instrument_tags USING (song_id) WHERE instrument = 'guitar' GROUP BY title""",
    )
    assert answer.rows() == [("Song 0", pytest.approx(0.4), 2)]


def test_one_table_contains_all_songs(store: ObjectStore) -> None:
    fill(store)
    assert query(store, "SELECT COUNT(*), SUM(duration_s) FROM songs").row(0) == (2, 41.0)
    assert query(store, "FROM stems SELECT stem ORDER BY stem")["stem"].to_list() == [
        "accompaniment",
        "vocals",
    ]


def test_an_empty_table_can_be_joined_to_a_full_one(store: ObjectStore) -> None:
    fill(store)
    missing = "SELECT song_id FROM songs LEFT JOIN stem_instrument_tags USING (song_id) WHERE source IS NULL"
    assert query(store, missing).height == 2


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'stems; DROP TABLE songs' AS word, COUNT(*) AS songs FROM songs",
        "SELECT COUNT(*) AS stems FROM songs",
        'SELECT COUNT(*) AS "song_catalog" FROM songs',
    ],
)
def test_the_name_of_a_table_in_a_string_or_an_alias_is_no_problem(text: str, store: ObjectStore) -> None:
    fill(store)
    assert query(store, text).row(0)[-1] == 2


@pytest.mark.parametrize("statement", ["SHOW TABLES", "show tables"])
def test_the_tables_can_be_listed(statement: str, store: ObjectStore) -> None:
    assert set(query(store, statement)["name"]) == set(TABLES)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE songs",
        "DELETE FROM songs",
        "TRUNCATE songs",
        "CREATE TABLE copy AS SELECT * FROM songs",
        "INSERT INTO songs VALUES (1)",
        "COPY songs TO 'file.csv'",
        "WITH gone AS (SELECT 1) DELETE FROM songs",
        "SELECT 1; DROP TABLE songs",
        "WITH gone AS (DELETE FROM songs) SELECT * FROM gone",
        "EXPLAIN DELETE FROM songs",
        "SELECT * INTO copy FROM songs",
        "UPDATE songs SET title = 'x'",
        "",
        "   ",
    ],
)
def test_a_statement_that_writes_is_refused_and_nothing_changes(statement: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    fill(store)
    before = list(store.list())
    with pytest.raises(QueryError):
        query(store, statement)
    assert list(store.list()) == before


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("SELECT * FROM song", "relation 'song' was not found"),
        ("SELECT nope FROM songs", 'unable to find column "nope"'),
        ("SELECT COUNT( FROM songs", "sql parser error"),
    ],
)
def test_an_error_says_the_cause_and_lists_the_tables(text: str, cause: str, store: ObjectStore) -> None:
    fill(store)
    with pytest.raises(QueryError) as refused:
        query(store, text)
    message = str(refused.value)
    assert cause in message
    assert message.endswith(f"The tables are: {', '.join(TABLES)}")
    assert "PROJECT" not in message, "the query plan of polars does not help the user"


def test_files_with_and_without_an_added_column_are_read_together(store: ObjectStore) -> None:
    fill(store)
    with store.open("songs/one.parquet") as file:
        full = pq.read_table(file)
    older = full.select(full.column_names[:-2])
    newer = full.append_column("mood", full.column("title"))
    for name, data in {"older": older, "newer": newer}.items():
        own = data.set_column(0, data.schema.field("song_id"), [[name] * data.num_rows])
        entries = {**data.schema.metadata, b"bandscope.song_id": name.encode()}
        with store.create(f"songs/{name}.parquet") as pending:
            pq.write_table(own.replace_schema_metadata(entries), pending.file)
    answer = query(store, "SELECT * FROM songs")
    assert (answer.height, tuple(answer.columns)) == (4, SONGS.names)


def test_a_store_whose_path_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "Music [2024] *?"))
    fill(store)
    assert query(store, "SELECT COUNT(*) FROM songs").item() == 2


def test_other_files_in_the_folder_of_a_table_are_not_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    fill(store)
    for name in (".DS_Store", "notes.txt", ".one.parquet.tmp"):
        (tmp_path / "songs" / name).write_bytes(b"not Parquet")
    assert query(store, "SELECT COUNT(*) FROM songs").item() == 2


def test_a_lazy_answer_reads_only_the_collected_columns(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    fill(store)
    answer = lazy_query(store, "SELECT stem, audio FROM stems")
    assert answer.collect_schema().names() == ["stem", "audio"]
    assert answer.select("stem").collect().height == 2


@pytest.fixture
def bandscope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path))
    fill(open_store(str(tmp_path)))
    return CommandLine(monkeypatch, capsys)


def test_the_command_prints_the_answer(bandscope: CommandLine) -> None:
    done = bandscope("sql", "SELECT song_id, title FROM songs ORDER BY song_id")
    assert done.code == 0
    assert "Song 0" in done.out and "Song 1" in done.out and done.out.endswith("2 rows\n")


def test_the_command_prints_an_error_as_a_sentence(bandscope: CommandLine) -> None:
    done = bandscope("sql", "SELECT * FROM nope")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("bandscope: relation 'nope' was not found\nThe tables are: songs, ")
    done = bandscope("sql", "SELECT * FROM read_parquet('nowhere.parquet')")
    assert done.code == 1 and "does not accept read_parquet" in done.err and "Traceback" not in done.err
    done = bandscope("sql", "SELECT 1 AS a\udcff")
    assert (done.code, done.err) == (1, "bandscope: the query is not UTF-8\n")


def test_damaged_files_are_left_out_with_a_hint_to_the_command_that_has_the_fix(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store)
    with store.create("songs/two.parquet") as file:
        file.write(b"damaged")
    assert query(store, "SELECT song_id FROM songs")["song_id"].to_list() == ["one"]
    assert "songs: left out: 1 damaged file; `bandscope doctor --deep`" in caplog.text


def test_a_catalog_that_is_missing_is_told_once_there_are_songs(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert query(store, "SELECT * FROM song_catalog").height == 0 and not caplog.text
    fill(store)
    assert query(store, "SELECT * FROM song_catalog").height == 0
    assert "song_catalog does not exist, so it has no rows; `bandscope run` makes it" in caplog.text


def test_a_damaged_catalog_is_an_error_with_its_own_advice(store: ObjectStore) -> None:
    with store.create("song_catalog/song_catalog.parquet") as file:
        file.write(b"damaged")
    with pytest.raises(QueryError, match="song_catalog is damaged; `bandscope run` makes it again") as caught:
        query(store, "SELECT * FROM song_catalog")
    assert "upload" not in str(caught.value)
