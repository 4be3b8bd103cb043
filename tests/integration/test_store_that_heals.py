"""After anything was deleted, damaged or interrupted in a store, one ``bandscope run`` without options completes it.

Each test damages a copy of one processed store, of three songs and a rejected upload, in many ways at once.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from catalog_songs import with_a_flipped_bit
from command_line import CommandLine
from command_server import Command, start_command
from daemon import end_group, wait_for
from platforms import PER_SONG, song_bytes
from s3_server import S3Server
from small_disks import ROOT_ONLY, small_disk

from bandscope_dagster.orchestration.jobs import CATALOGS
from bandscope_dagster.songs.lacking import find_lacking
from bandscope_dagster.songs.query import query
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import is_whole
from bandscope_dagster.storage.tables.schemas import CATALOG_TABLES, catalog_key
from bandscope_dagster.storage.tables.song_files import list_all_files

NAMES = ("a.wav", "b.wav", "c.wav", "d.wav", "rejected.wav")


@dataclass(frozen=True)
class Place:
    """A store and a Dagster home, and commands on them in processes of their own."""

    store: ObjectStore
    home: Path
    variables: dict[str, str]

    def start(self, *arguments: str) -> Command:
        environment = os.environ | {"BANDSCOPE_STORAGE": self.store.url, "DAGSTER_HOME": str(self.home)}
        environment |= {"BANDSCOPE_DEVICE": "cpu", "COLUMNS": "200", "BANDSCOPE_STEP_RETRIES": "0"}
        return start_command(arguments, environment | self.variables)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """The exit code and the output of a command."""
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=600)
        return process.returncode, printed

    def fill(self) -> None:
        for seed, name in enumerate(NAMES):
            with self.store.create(f"uploads/{name}") as pending:
                pending.write(song_bytes(seed, 1.0) if name != "rejected.wav" else b"RIFF no audio")

    @property
    def songs(self) -> dict[str, str]:
        """The first letter of a song → its id."""
        names = self.store.fingerprints(["songs"])["songs"]
        return {name[0]: name.removesuffix(".parquet") for name in names}

    def fingerprints(self) -> dict[str, str]:
        """Table and song → the fingerprint of the stored file."""
        found = self.store.fingerprints(PER_SONG)
        return {f"{table}/{name}": each for table, names in found.items() for name, each in names.items()}

    def assert_complete(self) -> None:
        """Every table of every song and every catalog is there, and can be read."""
        files = list_all_files(self.store, SOURCES)
        assert len(files) == len(NAMES)
        lacking = find_lacking(files, files.song_ids.to_list(), PER_SONG)
        assert not lacking.songs, lacking
        assert all(is_whole(self.store, catalog_key(table)) for table in CATALOG_TABLES)
        statuses = dict(query(self.store, "SELECT filename, status FROM song_catalog").iter_rows())
        assert statuses == dict.fromkeys(NAMES[:-1], "ok") | {NAMES[-1]: "rejected"}
        assert set(query(self.store, "SELECT reason FROM song_errors")["reason"]) == {"not_audio"}


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a processed store, with pages, and its home."""
    folder = tmp_path_factory.mktemp("processed")
    place = Place(open_store(str(folder / "store")), folder / "home", {})
    place.fill()
    code, printed = place("run")
    assert code == 0, printed
    code, printed = place("report", "--all")
    assert code == 0, printed
    return folder


@pytest.fixture
def local(processed: Path, tmp_path: Path) -> Place:
    """A copy of the processed store and home, with all times."""
    shutil.copytree(processed, tmp_path, dirs_exist_ok=True)
    return Place(open_store(str(tmp_path / "store")), tmp_path / "home", {})


def s3_place(server: S3Server, home: Path, *, key: str | None = None, url: str | None = None) -> Place:
    place = server.place()
    variables = place.environment() | ({} if key is None else {"AWS_ACCESS_KEY_ID": key})
    return Place(place.open() if url is None else _Url(url), home, variables)  # pyright: ignore


@dataclass(frozen=True)
class _Url:
    url: str


def replace(store: ObjectStore, key: str, change: Callable[[bytes], bytes]) -> None:
    content = change(store.read(key))
    with store.create(key) as pending:
        pending.write(content)


def flip(data: bytes, *positions: int) -> bytes:
    damaged = bytearray(data)
    for position in positions:
        damaged[position] ^= 0xFF
    return bytes(damaged)


def damage(place: Place) -> tuple[set[str], set[str]]:
    """Damage a store in every way; return the keys of damaged files and of missing ones."""
    store, songs = place.store, place.songs
    key = lambda table, letter: f"{table}/{songs[letter]}.parquet"  # noqa: E731
    damaged = {
        key("stems", "a"): lambda data: data[: len(data) * 6 // 10],
        key("decoded_waveforms", "a"): lambda data: b"",
        key("instrument_tags", "a"): lambda data: b"not parquet at all",
        key("songs", "a"): lambda data: flip(data, -40, -60, -80),  # its footer
        key("stem_instrument_tags", "b"): lambda _: store.read(
            key("stem_instrument_tags", "d")
        ),  # another song
        key("stems", "b"): lambda _: store.read(key("songs", "b")),  # another schema
        key("instrument_tags", "d"): lambda data: flip(data, *range(40, 80)),  # rows, behind a whole footer
    }
    for name, change in damaged.items():
        replace(store, name, change)
    missing = {key(table, "c") for table in PER_SONG} | {key("stems", "r"), key("instrument_tags", "b")}
    for name in missing:
        store.delete(name)
    return set(damaged), missing


def test_one_run_completes_a_store_whose_files_are_missing_and_damaged(local: Place) -> None:
    before = local.fingerprints()
    damaged, missing = damage(local)
    page = f"song_pages/{local.songs['b']}.html"
    local.store.delete(page)
    local.store.delete("song_catalog/song_catalog.parquet")

    assert query(local.store, "SELECT COUNT(*) FROM stems").item() == 2, (
        "of d alone: SQL leaves out damaged files"
    )

    code, printed = local("run")

    assert code == 0, printed
    local.assert_complete()
    assert local.store.head(page) is not None
    assert printed.count("Damaged:") == len(damaged)
    after = local.fingerprints()
    unchanged = {key for key, fingerprint in before.items() if after[key] == fingerprint}
    assert unchanged == before.keys() - damaged - missing, "only what lacks is made again"
    code, printed = local("run")
    assert code == 0 and "All of these songs are done" in printed


def test_the_same_on_s3_with_a_new_home(s3_server: S3Server, tmp_path: Path) -> None:
    first = s3_place(s3_server, tmp_path / "home")
    first.fill()
    assert first("run")[0] == 0
    damaged, _ = damage(first)
    replace(first.store, "instrument_catalog/instrument_catalog.parquet", lambda data: data[:-1])
    code, printed = Place(first.store, tmp_path / "new home", first.variables)("run")
    assert code == 0, printed
    assert printed.count("Damaged:") == len(damaged)
    first.assert_complete()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_run_that_was_killed_before_its_catalogs_is_completed(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if kind == "local":
        place = Place(open_store(str(tmp_path / "store")), tmp_path / "home", {})
    else:
        place = s3_place(request.getfixturevalue("s3_server"), tmp_path / "home")
    place.fill()
    process = place.start("run")
    last = PER_SONG[-1]
    try:
        wait_for(
            "the last table of the last song is there",
            lambda: len(place.store.fingerprints([last])[last]) == len(NAMES) or process.poll() is not None,
            timeout_s=300,
            every_s=0.01,
        )
    finally:
        end_group(process)
    assert place.store.head("song_catalog/song_catalog.parquet") is None, "killed too late"
    code, printed = place("run")
    assert code == 0, printed
    place.assert_complete()


def test_catalogs_that_no_run_has_made_are_made_although_all_songs_are_done(local: Place) -> None:
    for catalog in CATALOGS:
        local.store.delete(f"{catalog}/{catalog}.parquet")
    code, printed = local("run")
    assert code == 0 and "catalogs are missing" in printed
    local.assert_complete()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 1 MB in memory; the uploads take 0.7 MB."""
    with small_disk(tmp_path / "disk", "800k") as disk:
        yield disk


@ROOT_ONLY
def test_a_full_disk_is_told_before_and_once_it_has_room_a_run_completes_the_store(disk: Path) -> None:
    place = Place(open_store(str(disk)), disk.parent / "home", {})
    place.fill()

    code, printed = place("run")
    assert code == 1 and "MB free" in printed and "--no-space-check" in printed and "Traceback" not in printed
    assert not list(disk.glob("songs/*"))

    code, printed = place("run", "--no-space-check")
    assert code == 1 and "No space left on device" in printed and "Traceback" not in printed

    subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
    code, printed = place("run")
    assert code == 0, printed
    place.assert_complete()


@pytest.fixture
def command(local: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on the copied store, in this process: none of them starts a run."""
    monkeypatch.setenv("BANDSCOPE_STORAGE", local.store.url)
    monkeypatch.setenv("DAGSTER_HOME", str(local.home))
    monkeypatch.setenv("COLUMNS", "200")
    return CommandLine(monkeypatch, capsys)


def test_a_deep_check_finds_every_kind_of_disagreement_and_changes_nothing(
    local: Place, command: CommandLine
) -> None:
    assert command("doctor", "--deep").code == 0
    store, songs = local.store, local.songs
    store.delete(f"stems/{songs['a']}.parquet")
    replace(store, f"songs/{songs['b']}.parquet", lambda data: data[:-4])
    replace(store, f"stems/{songs['c']}.parquet", lambda data: flip(data, len(data) // 3))  # in the audio
    replace(store, f"uploads/{NAMES[3]}", lambda _: song_bytes(9, 1.0))
    for table in ("songs", "stems"):
        with store.create(f"{table}/gone-0123456789ab.parquet") as pending:
            pending.write(store.read(f"{table}/{songs['d']}.parquet"))
    root = Path(store.url)
    (root / ".pending").mkdir(exist_ok=True)
    (root / ".pending" / "killed.part").write_bytes(b"x")
    content = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    done = command("doctor", "--deep")

    assert done.code == 1
    for heading, subject in (
        ("Missing files (1). Fix: `bandscope run`", f"{songs['a']}: stems"),
        ("Damaged files (1). Fix: `bandscope run`", f"{songs['b']}: songs"),
        (f"`bandscope run --recompute --songs {songs['c']}`", "the audio of its block 0 is damaged"),
        (f"rm {store.url}/*/gone-0123456789ab.parquet", "gone-0123456789ab: songs, stems"),
        ("killed writers left over (1)", "killed.part: 1 bytes"),
        ("1 upload waiting for `bandscope run`", ""),
    ):
        assert heading in done.out and subject in done.out, heading
    assert content == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_store_that_has_vanished_is_told_by_every_command_and_not_made_anew(
    local: Place, command: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "home" / "bandscope-stores.txt").write_text(f"{local.store.url}\n")
    assert command("status").code == 0
    store = Path(local.store.url)
    song = tmp_path / "new.wav"
    song.write_bytes(song_bytes(1, 1.0))
    shutil.rmtree(store)
    for leave in (None, "lost+found"):  # a mount point that is gone, or empty but for a folder
        if leave is not None:
            (store / leave).mkdir(parents=True)
        for arguments in (
            ["run"],
            ["retry"],
            ["status"],
            ["sql", "SELECT * FROM songs"],
            ["ingest", song],
            ["report"],
        ):
            done = command(*arguments)
            assert done.code == 1 and done.err.count("has vanished") == 1, arguments
        assert "has vanished" in command("doctor").out
    assert [path.name for path in store.rglob("*")] == ["lost+found"]
    with suppress(FileNotFoundError):
        (tmp_path / "home" / "bandscope-stores.txt").unlink()
    assert command("ingest", song).code == 0, "a new store is as easy as ever"


def test_a_store_that_was_copied_without_its_times_is_told(
    local: Place, command: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(local.store.url, copied, copy_function=shutil.copyfile)
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(copied))
    monkeypatch.setenv("BANDSCOPE_SETTLE_S", "0")
    for home in (local.home, tmp_path / "new home"):
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        deep = command("doctor", "--deep")
        assert deep.code == 1 and "5 of 5 uploads are songs that this store has under other ids" in deep.out
        done = command("run")
        assert done.code == 1 and "5 of 5 uploads are songs that this store has under other ids" in done.err
        assert "`rsync -a`" in done.err and "--as-new-songs" in done.err
    shutil.copytree(Path(local.store.url) / "uploads", copied / "uploads", dirs_exist_ok=True)
    code, printed = Place(open_store(str(copied)), local.home, {})("run")
    assert code == 0 and "0 of them new" in printed and "stems" not in printed, (
        "only the catalogs are made again"
    )


def test_uploads_with_equal_names_and_sizes_but_other_bytes_are_new_songs(
    local: Place, command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(NAMES[:-1]):
        replace(local.store, f"uploads/{name}", lambda _, seed=seed: song_bytes(seed + 20, 1.0))
    monkeypatch.setenv("BANDSCOPE_SEPARATOR", "unknown")  # an error that comes only later
    assert "other ids" not in command("run").err


@ROOT_ONLY
def test_on_a_disk_that_cannot_be_written_each_command_says_so_or_works(local: Place, tmp_path: Path) -> None:
    local.store.delete(f"stems/{local.songs['a']}.parquet")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", "--bind", local.store.url, str(mounted)], capture_output=True).returncode:
        pytest.skip("cannot mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(mounted)], check=True)
        assert_read_only(Place(open_store(str(mounted)), local.home, {}), tmp_path, doctor=1)
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def test_with_a_key_that_may_only_read_each_command_says_so_or_works(
    s3_server: S3Server, tmp_path: Path
) -> None:
    writer = s3_place(s3_server, tmp_path / "home")
    writer.fill()
    assert writer("run", "--select", "songs")[0] == 0
    reader = Place(writer.store, writer.home, writer.variables | {"AWS_ACCESS_KEY_ID": "test-reader"})
    assert_read_only(reader, tmp_path, doctor=0)


def assert_read_only(place: Place, tmp_path: Path, doctor: int) -> None:
    song = tmp_path / "another.wav"
    song.write_bytes(song_bytes(5, 1.0))
    for arguments in (["run"], ["ingest", str(song)], ["report", "--all"]):
        code, printed = place(*arguments)
        assert code == 1 and "Traceback" not in printed, printed
        assert printed.count("cannot be written") == printed.count("Commands that only read") == 1, printed
    for arguments in (
        ["status"],
        ["sql", "SELECT filename FROM songs"],
        ["lineage", "*"],
        ["doctor", "--deep"],
    ):
        code, printed = place(*arguments)
        assert code == (doctor if arguments[0] == "doctor" else 0) and "Traceback" not in printed, printed


def test_a_bucket_that_does_not_exist_is_a_sentence(s3_server: S3Server, tmp_path: Path) -> None:
    place = s3_place(s3_server, tmp_path / "home", url="s3://no-such-bucket/music")
    for arguments in (["run"], ["status"], ["ingest", __file__.replace(".py", ".wav")]):
        code, printed = place(*arguments)
        assert code == 1 and "Traceback" not in printed
    assert "no-such-bucket" in place("run")[1]


def test_a_page_that_cannot_be_written_again_is_named_and_the_others_are_written(
    local: Place, command: CommandLine
) -> None:
    songs = local.songs
    replace(local.store, f"stems/{songs['a']}.parquet", lambda data: flip(data, len(data) // 3))
    assert local("run")[0] == 0, "the catalogs read no audio"
    for letter in "ab":
        local.store.delete(f"song_pages/{songs[letter]}.html")
    done = command("run")
    assert done.code == 1
    assert f"No page: {songs['a']}: the stored audio of" in done.out and "--recompute" in done.out
    assert local.store.head(f"song_pages/{songs['b']}.html") is not None


def test_missing_catalogs_an_empty_page_and_the_missing_index_are_told_and_made_again(
    local: Place, command: CommandLine
) -> None:
    page = f"song_pages/{local.songs['b']}.html"
    replace(local.store, page, lambda _: b"")
    local.store.delete("song_pages/index.html")
    local.store.delete("song_catalog/song_catalog.parquet")
    replace(
        local.store, f"songs/{local.songs['a']}.parquet", lambda data: data
    )  # another time, the same rows

    done = command("doctor", "--deep")

    assert done.code == 1
    for line in (
        "Catalogs that are missing, damaged or out of date (3). Fix: `bandscope run`",
        "song_catalog: missing",
        "instrument_catalog: out of date",
        "song_errors: out of date",
        "Pages that are gone (2). Fix: `bandscope run`",
        "index",
    ):
        assert line in done.out
    assert local("run")[0] == 0
    assert local.songs["b"] in local.store.read("song_pages/index.html").decode()
    assert len(local.store.read(page)) > 1000
    assert command("doctor", "--deep").code == 0


def test_damaged_bytes_in_a_catalog_and_in_a_file_of_a_delta_table_are_told_and_made_again(
    local: Place, command: CommandLine
) -> None:
    (file,) = Path(local.store.url).glob("delta/song_catalog/*.parquet")
    replace(local.store, f"delta/song_catalog/{file.name}", with_a_flipped_bit)
    replace(local.store, "instrument_catalog/instrument_catalog.parquet", with_a_flipped_bit)

    done = command("doctor", "--deep")

    assert done.code == 1
    for line in (
        "Catalogs that are missing, damaged or out of date (2). Fix: `bandscope run`",
        "song_catalog: its Delta table is missing, damaged or out of date",
        "instrument_catalog: damaged",
    ):
        assert line in done.out
    assert local("run")[0] == 0
    assert command("doctor", "--deep").code == 0


def test_an_empty_store_is_lost_also_for_a_home_that_remembers_no_store(
    local: Place, command: CommandLine, tmp_path: Path
) -> None:
    (local.home / "bandscope-stores.txt").unlink()
    store = Path(local.store.url)
    shutil.rmtree(store)
    for exists in (False, True):
        if exists:
            store.mkdir()
        done = command("run")
        assert done.code == 1 and "has neither uploads nor songs" in done.err and "5 songs" in done.err
        done = command("doctor", "--deep")
        assert done.code == 1 and "has neither uploads nor songs" in done.out
        assert store.exists() == exists and not list(tmp_path.glob("store/*"))


def test_a_song_whose_upload_is_gone_is_never_computed_again(local: Place) -> None:
    songs, before = local.songs, local.fingerprints()
    gone = {f"{table}/{songs['b']}.parquet" for table in PER_SONG}
    local.store.delete("uploads/b.wav")

    code, printed = local("run", "--recompute")

    after = local.fingerprints()
    assert code == 0, printed
    assert f"Leaving out 1 song ({songs['b']}) whose upload is gone: the results are kept" in printed
    assert {key for key in before if before[key] == after[key]} == gone

    for letter in "ac":  # the neighbours of b, which is now outdated
        local.store.delete(f"stems/{songs[letter]}.parquet")
    other_bits = Place(local.store, local.home, {"BANDSCOPE_FLAC_BITS": "24"})
    code, printed = other_bits("run", "--select", "stems")
    assert code == 0, printed
    assert all(local.fingerprints()[key] == before[key] for key in gone)
    local.assert_complete()

    code, printed = local("run", "--recompute", "--select", "stem_instrument_tags", "--songs", songs["b"])
    assert code == 0 and "Leaving out" not in printed
    changed = {key for key in gone if local.fingerprints()[key] != before[key]}
    assert changed == {f"stem_instrument_tags/{songs['b']}.parquet"}
    local.assert_complete()


def test_what_is_missing_of_a_song_whose_upload_is_gone_is_told_until_the_upload_is_back(
    local: Place, command: CommandLine, processed: Path
) -> None:
    song = local.songs["a"]
    local.store.delete("uploads/a.wav")
    local.store.delete(f"stems/{song}.parquet")

    done = command("doctor", "--deep")
    assert done.code == 1 and "Missing files" not in done.out
    assert "because the upload is gone (1). Put the upload back under its name" in done.out
    assert f"{song}: stems (missing)" in done.out

    code, printed = local("run")
    assert code == 0 and f"Leaving out 1 song ({song}) with missing or damaged files" in printed
    done = command("run")
    assert done.code == 0 and "All other songs are done" in done.out
    done = command("run", "--songs", song)
    assert done.code == 0 and "are done" not in done.out

    shutil.copy2(processed / "store/uploads/a.wav", Path(local.store.url) / "uploads/a.wav")
    code, printed = local("run")
    assert code == 0, printed
    local.assert_complete()
