"""The words of an SQL text, at any position, decide if it only reads."""

import pytest

from bandscope_dagster.songs.read_only import refused_word


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "select title from songs;",
        "SELECT 1 ; ;",
        "FROM songs",
        "VALUES (1, 2)",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "WITH a AS (SELECT 1), b AS (SELECT 2) SELECT * FROM a, b",
        "EXPLAIN SELECT 1",
        "-- delete\nSELECT 1",
        "/* DROP TABLE songs; */ SELECT 1",
        "SELECT 'DELETE FROM songs; it''s gone' AS word",
        "SELECT $$x; DROP TABLE songs$$ AS word",
        'SELECT "delete", "a;b" FROM songs',
        "SELECT 1 AS delete, 2 AS update",
        "SELECT replace(title, 'a', 'b'), insert(1) FROM songs",
        'SELECT "table" FROM song_errors WHERE stage IN (SELECT stage FROM song_errors)',
        "SHOW TABLES",
        "SELECT read_at FROM songs",
        "SELECT EXTRACT(year FROM date(uploaded_at)), TRIM(BOTH 'a' FROM lower(title)) FROM songs",
    ],
)
def test_a_text_that_only_reads_is_accepted(sql: str) -> None:
    assert refused_word(sql) is None


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("DROP TABLE songs", "DROP"),
        ("delete from songs", "DELETE"),
        ("COPY songs TO 'a.csv'", "COPY"),
        ("COPY (SELECT * FROM songs) TO 'a.csv'", "COPY"),
        ("/* SELECT */ INSERT INTO songs VALUES (1)", "INSERT"),
        ("WITH x AS (SELECT 1) DELETE FROM songs", "DELETE"),
        ("WITH x AS (SELECT ')' AS a) UPDATE songs SET a = 1", "UPDATE"),
        ("WITH x AS (DELETE FROM songs RETURNING *) SELECT * FROM x", "DELETE"),
        ("EXPLAIN ANALYZE DROP TABLE songs", "DROP"),
        ("EXPLAIN delete FROM songs", "DELETE"),
        ("( TRUNCATE songs )", "TRUNCATE"),
        ("SET a = 1", "SET"),
        ("ATTACH 'a.db'", "ATTACH"),
        ("PRAGMA x", "PRAGMA"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("SELECT 1; -- ;\n DROP TABLE songs", "more than one statement"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ("SELECT * FROM READ_PARQUET /* here */ ('http://host/a.parquet')", "read_parquet"),
        ("FROM \"read_ipc\"('a')", "read_ipc"),
        ("SELECT * FROM songs JOIN `Read_Json`('a') USING (song_id)", "read_json"),
        ("WITH x AS (SELECT * FROM scan_csv('a')) SELECT * FROM x", "scan_csv"),
        ("SELECT /* /* */ ' */ b.* FROM read_csv('/etc/passwd') AS b -- '", "read_csv"),
        ("SELECT E'\\'' AS a, b.* FROM read_csv('/etc/passwd') AS b --'", "read_csv"),
        ("", "an empty text"),
        (" ; ", "an empty text"),
        ("-- SELECT 1", "an empty text"),
    ],
)
def test_the_word_that_does_more_than_read_is_named(sql: str, word: str) -> None:
    assert refused_word(sql) == word
