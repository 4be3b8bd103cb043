"""Uploads with any name, and uploads that are added, removed and replaced: each is a song or a clear rejection.

Names that a store cannot hold are left out. A disk has no names of more than 255 bytes. The S3 server has none either,
has no folder "." or "..", and reads a backslash as a slash.
"""

import csv
import os
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import CommandLine
from command_server import run_command
from daemon import open_instance
from instances import new_instance
from platforms import PER_SONG, Platform, environment, local_settings, s3_settings, song_bytes
from polars.testing import assert_frame_equal
from s3_server import S3Server

from bandscope_dagster.cli.ingest import find_files
from bandscope_dagster.cli.terminal import printable
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.tables.schemas import SONG_ID

SONG = song_bytes(1, 0.6)

SONGS = [
    "a, b, and c.wav",
    'it\'s "quoted" `so`.wav',
    "💥🎸" * 20 + ".wav",
    "مرحبا بالعالم.wav",
    "\u202egnp.wav",  # shown from right to left: "wav.png"
    "夜に駆ける.wav",
    "-rf.wav",
    "--help.wav",
    "100% %2e%2e%2fpasswd %s.wav",
    "a..b.wav",
    "  blanks before and behind  .wav",
    "behind the end.wav ",
    "q?x#y&z=1;+:|<c>.wav",
    "[x]*{0.__class__}~.wav",
    "$(reboot) && '; DROP TABLE songs; --.wav",
    "[red]markup[bold].wav",
    "o" * 120 + "/" + "n" * 120 + "/" + "e" * 251 + ".wav",
    unicodedata.normalize("NFD", "Björk/Jóga.wav"),
    "NUL.wav",
    "LOUD.WAV",
]
"""Names that become songs; a slash separates folders."""

ON_DISK_ONLY = ["back\\slash\\.wav"]

REFUSED = {
    "new\nline.wav": "new\\nline.wav",
    "tab\there.wav": "tab\\there.wav",
    "esc\x1b[31mred.wav": "esc\\x1b[31mred.wav",
}
"""Names that no key can have → the form that tables and terminals show."""

REFUSED_ON_DISK = {os.fsdecode(b"latin-\xe9.wav"): "latin-\\xe9.wav"}

NO_SONGS = [
    "cover.jpg",
    "notes.txt",
    "no suffix",
    "song.wav.part",
    "._song.wav",
    ".trash/old.wav",
    ".hidden.wav",
]


@dataclass
class Place:
    """A store after ``bandscope ingest`` and ``bandscope run``, each in its own process."""

    platform: Platform
    variables: dict[str, str]
    names: list[str]
    refused: dict[str, str]
    printed: str

    def bandscope(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command with the settings of this store."""
        return bandscope(self.variables, *arguments)


def bandscope(variables: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command(arguments, os.environ | variables)


def write(folder: Path, name: str, data: bytes = SONG) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def drop(settings: Settings, s3_server: S3Server, name: str, data: bytes = SONG) -> None:
    """Put a file into uploads/ as another program might, with a name that ``ingest`` refuses."""
    if settings.storage.startswith("s3://"):
        folder = settings.storage.removeprefix(f"s3://{s3_server.bucket}/")
        s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{folder}/uploads/{name}", Body=data)
    else:
        write(Path(settings.storage) / "uploads", name, data)


def settings_of(kind: str, folder: Path, s3_server: S3Server) -> Settings:
    if kind == "local":
        return local_settings(folder / "store")
    place = s3_server.place()
    return s3_settings(place)


@pytest.fixture(scope="module", params=["local", "s3"])
def place(
    request: pytest.FixtureRequest, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A store with all names, after one run; names that ``ingest`` refuses are written to uploads/ directly."""
    folder = tmp_path_factory.mktemp("names")
    on_disk = request.param == "local"
    settings = settings_of(request.param, folder, s3_server)
    names = SONGS + (ON_DISK_ONLY if on_disk else [])
    refused = REFUSED | (REFUSED_ON_DISK if on_disk else {})
    for name in names:
        write(folder / "music", name)
    for name in [*refused, *NO_SONGS]:
        drop(settings, s3_server, name)
    (folder / "home").mkdir()
    variables = environment(settings) | {"DAGSTER_HOME": str(folder / "home"), "COLUMNS": "300"}
    ingested = bandscope(variables, "ingest", folder / "music")
    assert ingested.returncode == 0, ingested.stderr
    assert f"{len(names)} uploaded" in ingested.stdout
    run = bandscope(variables, "run")
    assert run.returncode == 0, run.stdout + run.stderr
    with open_instance(folder / "home") as instance:
        yield Place(Platform(settings, instance), variables, names, refused, run.stdout)


def shown(name: str) -> str:
    return unicodedata.normalize("NFC", name.rpartition("/")[2])


def test_every_name_is_a_song_or_a_rejection_in_every_table(place: Place) -> None:
    rows = {row["filename"]: row for row in place.platform.table("songs").iter_rows(named=True)}
    assert rows.keys() == {*map(shown, place.names), *place.refused.values()}
    for name in place.names:
        assert rows[shown(name)]["error"] is None, name
    for name in place.refused.values():
        error = rows[name]["error"]
        assert error.startswith("unusable_name: ") and name in error and "rename" in error
    for table in PER_SONG:
        assert set(place.platform.table(table)["song_id"]) == {row["song_id"] for row in rows.values()}, table
        assert set(place.platform.status(table).values()) == {"MATERIALIZED"}, table
    catalog = dict(place.platform.table("song_catalog").select("filename", "status").iter_rows())
    assert {name for name, status in catalog.items() if status == "ok"} == set(map(shown, place.names))
    assert {name for name, status in catalog.items() if status == "rejected"} == set(place.refused.values())


def test_song_ids_are_harmless_as_partition_keys_and_file_names(place: Place) -> None:
    assert (
        len(place.platform.songs) == len(set(place.platform.songs)) == len(place.names) + len(place.refused)
    )
    for song in place.platform.songs:
        assert SONG_ID.fullmatch(song), (
            "no comma, dot, blank or slash: neither the UI nor a path takes it apart"
        )


def test_other_extensions_are_counted_and_hidden_files_are_not(place: Place) -> None:
    uploads = len(place.names) + len(place.refused)
    # Temporary and hidden files are not counted.
    assert f"{uploads} uploads, {uploads} of them new, 3 other files ignored" in place.printed


def test_owners_are_the_first_folders_as_they_are_named(place: Place) -> None:
    owners = set(place.platform.table("songs")["owner"].drop_nulls())
    assert owners == {"o" * 120, unicodedata.normalize("NFC", "Björk")}


def test_the_status_names_every_song_and_takes_every_name(place: Place) -> None:
    overview = place.bandscope("status")
    assert overview.returncode == 0
    for song in place.platform.songs:
        assert f"{song} " in overview.stdout
    assert overview.stdout.count(" ok") == len(place.names)
    assert overview.stdout.count("rejected: unusable_name") == len(place.refused)


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    for name, value in place.variables.items():
        monkeypatch.setenv(name, value)
    return CommandLine(monkeypatch, capsys)


def test_any_song_is_found_by_its_name(place: Place, here: CommandLine) -> None:
    for name in [*map(shown, place.names), *place.refused.values()]:
        told = here("status", "--", name)
        assert told.code == 0, told.err
        assert "\x1b" not in told.out and f"/{printable(name)}," in told.out.replace("\n", ""), name


def test_every_song_can_be_exported_by_its_name_and_no_rejected_one(
    place: Place, here: CommandLine, tmp_path: Path
) -> None:
    for number, name in enumerate(map(shown, place.names)):
        done = here("export", "--lists", "--to", tmp_path / str(number), "--", name)
        assert done.code == 0, done.err
        (vocals,) = (tmp_path / str(number)).glob("*/vocals.wav")
        folder = vocals.parent
        files = {path.name for path in folder.iterdir()}
        assert files >= {"accompaniment.wav", "instruments.csv", "vocals.wav"}
        with (folder / "instruments.csv").open(newline="") as file:
            assert list(csv.DictReader(file))
    for name in place.refused.values():
        done = here("export", "--to", tmp_path / "refused", "--", name)
        assert done.code == 0 and "1 rejected" in done.out and "unusable_name" in done.out
    assert not list((tmp_path / "refused").glob("*/*.wav"))


def test_sql_finds_a_song_by_a_name_with_quotes(place: Place, here: CommandLine) -> None:
    done = here("sql", "SELECT song_id FROM songs WHERE filename LIKE 'it''s \"quoted\"%'")
    assert done.code == 0 and "1 row" in done.out and "it-s-quoted" in done.out


@pytest.mark.parametrize("name", REFUSED)
def test_ingest_refuses_a_name_that_no_key_can_have(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    found = find_files([tmp_path], None)
    assert not found.files
    assert re.search(r"cannot be the key of an object.*rename the file", *found.left_out)


@pytest.fixture(params=["local", "s3"])
def moving(request: pytest.FixtureRequest, s3_server: S3Server, tmp_path: Path) -> Iterator[Platform]:
    """A platform with three songs in ``songs``, whose uploads the tests change."""
    with new_instance() as instance:
        platform = Platform(settings_of(request.param, tmp_path, s3_server), instance)
        names = ("a.wav", "b.wav", "c.wav")
        platform.upload({name: song_bytes(seed, 0.6) for seed, name in enumerate(names, start=1)})
        assert platform.materialize(["songs"]).success
        yield platform


def errors(platform: Platform) -> dict[str, str | None]:
    """Song → the reason code of its last failure, or in its row."""
    rows = platform.table("songs").select("song_id", "error").iter_rows()
    found = {song: error and error.partition(":")[0] for song, error in rows}
    if list(platform.store.list("song_failures")):
        found |= dict(platform.table("song_failures").select("song_id", "reason").iter_rows())
    return found


def by_name(platform: Platform) -> dict[str, str]:
    return {upload.filename: upload.song_id for upload in list_uploads(platform.store).uploads}


def test_the_song_of_a_deleted_upload_keeps_its_row(moving: Platform) -> None:
    ids = by_name(moving)
    before = moving.table("songs")
    moving.store.delete("uploads/a.wav")

    assert moving.materialize(["songs"]).success

    assert errors(moving) == dict.fromkeys(ids.values(), None)
    assert_frame_equal(moving.table("songs"), before)  # also the row of the song that is gone


def test_an_upload_that_is_deleted_and_restored_is_a_song_again(moving: Platform) -> None:
    old = by_name(moving)["a.wav"]
    moving.store.delete("uploads/a.wav")
    assert moving.materialize(["songs"]).success

    new = moving.upload({"a.wav": song_bytes(1, 0.6)})["a.wav"]
    assert moving.materialize(["songs"], reuse=True).success

    # The ETag of S3 shows that the bytes are the same; on a disk, the modification time differs.
    assert (new == old) == moving.settings.storage.startswith("s3://")
    assert set(errors(moving).values()) == {None}, "the old song keeps its results"


def test_a_renamed_upload_is_a_new_song_and_the_old_one_keeps_its_row(moving: Platform) -> None:
    old = by_name(moving)["b.wav"]
    moving.store.delete("uploads/b.wav")
    new = moving.upload({"renamed.wav": song_bytes(2, 0.6)})["renamed.wav"]

    assert moving.materialize(["songs"]).success

    assert errors(moving)[old] is None and errors(moving)[new] is None
    hashes = moving.table("songs").filter(filename="renamed.wav")["song_hash"]
    assert hashes.null_count() == 0, "by which the catalog knows that it is the song of before"


def test_a_replaced_upload_is_a_new_song(moving: Platform) -> None:
    old = by_name(moving)["c.wav"]
    new = moving.upload({"c.wav": song_bytes(4, 0.7)})["c.wav"]
    assert new != old

    assert moving.materialize(["songs"], reuse=True).success

    assert errors(moving)[new] is None
    durations = dict(moving.table("songs").select("song_id", "duration_s").iter_rows())
    assert durations[new] == pytest.approx(0.7, abs=1e-3), "what was read is what is there now"
    assert durations[old] == pytest.approx(0.6, abs=1e-3), "what was described before stays as it was"


def test_an_upload_that_is_replaced_by_an_unusable_file_is_rejected(moving: Platform) -> None:
    new = moving.upload({"c.wav": b""})["c.wav"]
    assert moving.materialize(["songs"], reuse=True).success
    assert errors(moving)[new] == "empty"
