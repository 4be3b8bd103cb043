"""Query results on the screen and in files: the same rows in every format, whole files, bounded memory."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from song_rows import block_rows, lineage, song_row

from bandscope_dagster.cli.new_file import CannotWrite
from bandscope_dagster.cli.sql import SHOWN_ROWS, Format, show
from bandscope_dagster.pages.text import megabytes
from bandscope_dagster.songs.query import QueryError, query
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.schemas import SONG_CATALOG, SONGS, STEMS, catalog_key
from bandscope_dagster.storage.tables.song_tables import write_table

MANY = SHOWN_ROWS + 150
TITLES = "SELECT song_id, title, duration_s, uploaded_at FROM song_catalog ORDER BY song_id"


@pytest.fixture
def filled(store: ObjectStore) -> ObjectStore:
    """A catalog of many songs, with one title that CSV and JSON must quote, and the stems of one song."""
    rows = [
        {
            "song_id": f"song-{number:04}",
            "title": 'Line\n"two", and ünï' if number == 0 else f"Song {number}",
            "duration_s": 20.0 + number,
            "uploaded_at": datetime(2026, 3, 1, tzinfo=UTC),
            "status": "ok",
            "top_instruments": [{"instrument": "guitar", "family": None, "score": 0.5, "seconds": 3.0}],
        }
        for number in range(MANY)
    ]
    with store.create(catalog_key(SONG_CATALOG)) as pending:
        pq.write_table(pa.Table.from_pylist(rows, schema=SONG_CATALOG.schema), pending.file)
    write_table(store, SONGS, [song_row("song-0000")], lineage("song-0000"))
    with AudioTableWriter(store, STEMS, lineage("song-0000")) as writer:
        writer.add(block_rows("song-0000", 0, ("vocals",)))
        writer.commit()
    return store


def said(
    store: ObjectStore, sql: str, answer_format: Format | None = None, to: Path | None = None, **more: bool
) -> str:
    """The printed lines."""
    lines: list[str] = []
    show(store, sql, lines.append, 100, answer_format, to, **more)
    return "\n".join(lines)


def test_the_screen_shows_the_first_rows_and_says_how_many_there_are(filled: ObjectStore) -> None:
    text = said(filled, TITLES)
    assert f"song-{SHOWN_ROWS - 1:04}" in text and f"song-{SHOWN_ROWS:04}" not in text
    assert text.endswith(f"{MANY} rows; the first {SHOWN_ROWS} are shown, --to FILE writes all")
    assert max(map(len, text.splitlines())) <= 100
    assert said(filled, "SELECT 1 AS one").endswith("1 row")


def test_rows_that_do_not_fit_are_records_and_a_table_can_be_described(filled: ObjectStore) -> None:
    level = "CAST(-16.4 AS REAL) AS level"  # as Python's float it is -16.399999618530273
    text = said(filled, f"SELECT *, {level} FROM song_catalog WHERE song_id = 'song-0000'")
    assert text.splitlines()[-2].split() == ["level", "-16.4"]
    assert text.startswith("row 1\n  song_id") and text.endswith("1 row")
    assert max(map(len, text.splitlines())) <= 100
    assert 'Line\\n"two", and ünï' in text
    assert "loudness_lufs" in said(filled, "DESCRIBE song_catalog") and "LUFS" in said(filled, "desc songs;")
    assert "song_catalog" in said(filled, "SHOW TABLES")
    with pytest.raises(QueryError, match="there is no table nope; the tables are: songs"):
        said(filled, "DESCRIBE nope")


@pytest.mark.parametrize(
    ("name", "read"),
    [("a.parquet", pl.read_parquet), ("a.json", pl.read_json), ("a.csv", pl.read_csv)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_holds_every_row_in_order(name: str, read, filled: ObjectStore, tmp_path: Path) -> None:
    told = said(filled, TITLES, to=tmp_path / name)
    assert told.startswith(f"{tmp_path / name}: ")
    answer, found = query(filled, TITLES), read(tmp_path / name)
    assert found.columns == answer.columns
    for column in ("song_id", "title", "duration_s"):
        assert found[column].to_list() == answer[column].to_list()


@pytest.mark.parametrize("name", ["all.csv", "all.json", "all.parquet"])
def test_the_rows_of_a_file_are_said_with_its_size(name: str, filled: ObjectStore, tmp_path: Path) -> None:
    to = tmp_path / name
    assert said(filled, TITLES, to=to) == f"{to}: {MANY} rows, {megabytes(to.stat().st_size)}"
    one = "SELECT title, top_tag FROM (SELECT title, NULL AS top_tag FROM song_catalog) WHERE title LIKE 'Line%'"
    assert said(filled, one, to=to, force=True).startswith(f"{to}: 1 row, ")
    assert said(filled, f"{TITLES} LIMIT 0", to=to, force=True).startswith(f"{to}: 0 rows, ")


def test_csv_has_no_formulas_and_the_other_formats_have_the_text_itself(
    filled: ObjectStore, tmp_path: Path
) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1", "\uff20x"]  # the last two are full-width
    plain = ["a=1", "1-1", " =1", "Söng", "'=1"]
    values = ", ".join("'" + text.replace("'", "''") + "'" for text in [*formulas, *plain])
    sql = f"SELECT UNNEST(ARRAY[{values}]) AS title, -1 AS number"
    said(filled, sql, to=tmp_path / "a.csv")
    said(filled, sql, to=tmp_path / "a.parquet")
    written = pl.read_csv(tmp_path / "a.csv")
    assert written["title"].to_list() == ["'" + text for text in formulas] + plain
    assert set(written["number"]) == {-1}
    assert pl.read_parquet(tmp_path / "a.parquet")["title"].to_list() == formulas + plain


def test_json_is_one_array_with_a_row_on_every_line(
    filled: ObjectStore, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    said(filled, "SELECT song_id, top_instruments FROM song_catalog ORDER BY song_id LIMIT 3", "json")
    text = capfdbinary.readouterr().out.decode()
    assert [row["song_id"] for row in json.loads(text)] == ["song-0000", "song-0001", "song-0002"]
    assert json.loads(text)[0]["top_instruments"][0]["instrument"] == "guitar"
    assert len(text.splitlines()) == 5


@pytest.mark.parametrize(
    ("answer_format", "text"), [("json", "[]\n"), ("csv", "song_id\n")], ids=["json", "csv"]
)
def test_an_answer_without_rows_is_whole(
    answer_format: Format, text: str, filled: ObjectStore, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    said(filled, "SELECT song_id FROM songs WHERE song_id = 'missing'", answer_format)
    assert capfdbinary.readouterr().out.decode() == text


def test_parquet_holds_also_lists_and_bytes(filled: ObjectStore, tmp_path: Path) -> None:
    said(filled, "SELECT stem, audio FROM stems", to=tmp_path / "stems.parquet")
    assert pl.read_parquet(tmp_path / "stems.parquet")["audio"][0]["bytes"].startswith(b"fLaC")


@pytest.mark.parametrize(
    ("sql", "answer_format", "to", "says"),
    [
        (TITLES, "table", "a.csv", "--to cannot write a table; use --format csv, json or parquet"),
        (TITLES, None, "a.txt", "a.txt has no known extension; use --format csv, json or parquet"),
        (TITLES, "parquet", None, "--format parquet needs a file; use --to FILE"),
        (TITLES, "csv", "none/a.csv", "the folder .*none does not exist"),
        (
            "SELECT top_instruments FROM song_catalog",
            "csv",
            None,
            "CSV cannot store the list column top_instruments; .* --format json",
        ),
        (
            "SELECT audio FROM stems",
            "csv",
            None,
            "CSV cannot store the struct column audio; .* --format parquet",
        ),
        ("SELECT audio FROM stems", "json", None, "JSON cannot store the bytes in column audio"),
        ("SELECT nope FROM songs", "csv", "a.csv", "unable to find column"),
        ("SELECT nope FROM songs", "table", None, "unable to find column"),
        ("DELETE FROM songs", "csv", "a.csv", "does not accept DELETE"),
        (
            "SELECT CAST(title AS INT) FROM song_catalog",
            "csv",
            "a.csv",
            "conversion from `str` to `i32` failed",
        ),
    ],
)
def test_what_cannot_be_answered_in_this_way_is_said_and_leaves_no_file(
    sql: str, answer_format: Format | None, to: str | None, says: str, filled: ObjectStore, tmp_path: Path
) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    with pytest.raises((QueryError, CannotWrite), match=says):
        said(filled, sql, answer_format, folder / to if to else None)
    assert list(folder.iterdir()) == []


def test_a_file_that_is_there_is_replaced_only_by_force_and_only_by_a_whole_answer(
    filled: ObjectStore, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("precious")
    with pytest.raises(CannotWrite, match=r"a\.csv already exists; use another name, or --force"):
        said(filled, TITLES, to=file)
    with pytest.raises(QueryError, match="conversion"):
        said(filled, "SELECT CAST(title AS INT) FROM song_catalog", to=file, force=True)
    assert file.read_text() == "precious"
    said(filled, TITLES, to=file, force=True)
    assert file.read_text().startswith("song_id,title,duration_s,uploaded_at\n")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".a.csv")] == []


PROGRAM = """
import resource, sys
from pathlib import Path
from bandscope_dagster.cli.sql import show
from bandscope_dagster.storage.objects.open_store import open_store
to = Path(sys.argv[3]) if sys.argv[3:] else None
show(open_store(sys.argv[1]), "SELECT * FROM stems", print, 100, sys.argv[2], to)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def run(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


def test_a_large_answer_does_not_fill_the_memory(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    rows = block_rows("song", 0, ("vocals", "drums"), seconds=10)

    def peak_mb(blocks: int) -> int:
        with AudioTableWriter(store, STEMS, lineage("song")) as writer:
            for block in range(blocks):
                writer.add([row | {"block": block} for row in rows])
            written = writer.commit()
        assert written.bytes > blocks * 2_000_000
        with run(PROGRAM, store.url, "parquet", str(tmp_path / f"{blocks}.parquet")) as done:
            _, told = done.communicate()
        assert done.returncode == 0, told
        return int(told)

    assert peak_mb(100) < peak_mb(20) + 130  # the file is 260 MB larger


def test_a_reader_that_has_seen_enough_ends_the_answer_quietly(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_table(store, SONGS, [song_row("song")] * 60_000, lineage("song"))
    with run(PROGRAM.replace("stems", "songs"), store.url, "csv") as done:
        assert done.stdout is not None and done.stderr is not None
        assert done.stdout.readline().startswith(b"song_id,")
        done.stdout.close()
        told = done.stderr.read()
    assert done.returncode == 0 and told.strip().isdigit(), told
