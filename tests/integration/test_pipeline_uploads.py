"""Uploads: file names in a listing, registration, and reading the bytes once."""

import hashlib
import os
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from time import sleep

import dagster as dg
import pytest
from s3_server import S3Server

from bandscope_dagster.errors import Reason, SongRejected, UploadUnavailable
from bandscope_dagster.orchestration.partitions import register_uploads
from bandscope_dagster.pipeline.uploads import fetch_upload, is_audio_name, list_settled_uploads, list_uploads
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_ID

HOSTILE = [
    "$(reboot).wav",
    "'; DROP TABLE songs; --.mp3",
    "-rf.flac",
    "[red]alarm.ogg",
    "{0.__class__}.wav",
    "%2e%2e%2fpasswd.wav",
    "a,b=c.wav",
    "gnp\u202eevaw.wav",
    "💥" * 30 + ".wav",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of uploads of a store in ``tmp_path``, for files that no store would write."""
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def put(store: ObjectStore, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        with store.create(f"uploads/{name}") as pending:
            pending.write(data)


def test_the_first_folder_is_the_owner(store: ObjectStore) -> None:
    put(store, {"a.wav": b"1", "mia/b.wav": b"2", "mia/live/2024/c.wav": b"3"})
    found = {upload.key: (upload.owner, upload.filename) for upload in list_uploads(store).uploads}
    assert found == {
        "uploads/a.wav": (None, "a.wav"),
        "uploads/mia/b.wav": ("mia", "b.wav"),
        "uploads/mia/live/2024/c.wav": ("mia", "c.wav"),
    }


def test_a_listing_tells_size_and_time_without_reading_audio(store: ObjectStore) -> None:
    put(store, {"a.wav": b"not audio at all"})
    [upload] = list_uploads(store).uploads
    stored = store.head(upload.key)
    assert stored is not None
    assert (upload.size, upload.uploaded_at) == (16, stored.modified)
    assert list_uploads(store).by_song == {upload.song_id: upload}


def test_names_are_in_nfc_however_they_were_typed(store: ObjectStore) -> None:
    typed = unicodedata.normalize("NFD", "Björk/Jóga.mp3")
    put(store, {typed: b"1"})
    [upload] = list_uploads(store).uploads
    assert (upload.owner, upload.filename) == (unicodedata.normalize("NFC", "Björk"), "J\u00f3ga.mp3")
    assert store.read(upload.key) == b"1", "the key stays as the store knows it"


def test_uploads_come_oldest_first_and_those_of_one_moment_by_name(local: ObjectStore, folder: Path) -> None:
    for name, time in {"d.wav": 10, "c.wav": 30, "b.wav": 20, "a.wav": 20}.items():
        (folder / name).write_bytes(b"1")
        os.utime(folder / name, (time, time))
    assert [upload.filename for upload in list_uploads(local).uploads] == ["d.wav", "a.wav", "b.wav", "c.wav"]


def test_files_that_are_not_named_like_audio_are_only_counted(store: ObjectStore) -> None:
    put(store, {"a.WAV": b"1", "cover.jpg": b"2", "mia/notes.txt": b"3", "wav": b"4"})
    listing = list_uploads(store)
    assert ([upload.filename for upload in listing.uploads], listing.ignored) == (["a.WAV"], 3)


@pytest.mark.parametrize("name", ["song.mp3", "song.stem.mp4", "SONG.FLAC", "a.b.Ogg", "x/y.m4a"])
def test_these_names_are_taken_for_songs(name: str) -> None:
    assert is_audio_name(name)


@pytest.mark.parametrize("name", ["mp3", ".mp3", "song.mp3.part", "song.mp3.txt", "song.", "mp3/readme", ""])
def test_these_names_are_not(name: str) -> None:
    assert not is_audio_name(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_data_and_its_song_id_is_harmless(name: str, store: ObjectStore) -> None:
    put(store, {name: b"bytes", f"{name[:3]}/{name}": b"other"})
    listing = list_uploads(store)
    assert {upload.filename for upload in listing.uploads} == {name}
    assert {upload.owner for upload in listing.uploads} == {None, name[:3]}
    assert all(SONG_ID.fullmatch(upload.song_id) for upload in listing.uploads)
    assert len(listing.by_song) == 2
    with fetch_upload(store, f"uploads/{name}", max_bytes=10) as fetched:
        assert fetched.file.read() == b"bytes"


def test_names_that_are_no_keys_are_uploads_that_say_so_and_hide_no_others(
    local: ObjectStore, folder: Path
) -> None:
    for name in (b"new\nline.wav", b"esc\x1b[31m.wav", b"latin-\xe9.wav", b".hidden.wav", b"good.wav"):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(b"1")
    (folder / "linked.wav").symlink_to("/etc/hostname")
    uploads = list_uploads(local).uploads
    assert {upload.filename: upload.fault for upload in uploads} == {
        "new\\nline.wav": "it has a control character",
        "esc\\x1b[31m.wav": "it has a control character",
        "latin-\\xe9.wav": "it is not UTF-8",
        "good.wav": None,
    }
    assert all(SONG_ID.fullmatch(upload.song_id) for upload in uploads)


def test_registering_twice_adds_nothing(local: ObjectStore) -> None:
    instance = dg.DagsterInstance.ephemeral()
    put(local, {"a.wav": b"1", "b.wav": b"2"})
    first = register_uploads(instance, list_uploads(local))
    assert first == [upload.song_id for upload in list_uploads(local).uploads]
    assert register_uploads(instance, list_uploads(local)) == []
    assert instance.get_dynamic_partitions("songs") == first


def test_a_later_upload_and_a_replaced_one_are_new_songs_behind_the_others(local: ObjectStore) -> None:
    instance = dg.DagsterInstance.ephemeral()
    put(local, {"a.wav": b"1"})
    first = register_uploads(instance, list_uploads(local))
    put(local, {"a.wav": b"another", "b.wav": b"2"})
    later = register_uploads(instance, list_uploads(local))
    assert len(later) == 2 and not {*first} & {*later}
    assert instance.get_dynamic_partitions("songs") == [*first, *later]


def test_what_is_fetched_is_the_upload_and_its_digest(store: ObjectStore) -> None:
    data = os.urandom(2_500_000)  # several chunks
    put(store, {"a.wav": data})
    with fetch_upload(store, "uploads/a.wav", max_bytes=len(data)) as fetched:
        assert fetched.file.tell() == 0
        assert fetched.file.read() == data
        assert (fetched.sha256, fetched.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert fetched.file.closed


def test_an_upload_that_is_too_large_is_not_read_to_its_end(local: ObjectStore, folder: Path) -> None:
    with (folder / "huge.wav").open("wb") as file:
        file.truncate(2**40)  # a sparse file of 1 TiB: reading it all would take minutes
    with pytest.raises(SongRejected) as rejected, fetch_upload(local, "uploads/huge.wav", 5_000_000):
        pass
    assert rejected.value.reason is Reason.TOO_LARGE and "5,000,000" in str(rejected.value)


def test_one_byte_more_than_is_allowed_is_too_large(local: ObjectStore) -> None:
    put(local, {"a.wav": b"12345"})
    with pytest.raises(SongRejected), fetch_upload(local, "uploads/a.wav", max_bytes=4):
        pass


def test_an_empty_upload_is_rejected(store: ObjectStore) -> None:
    put(store, {"a.wav": b""})
    with pytest.raises(SongRejected) as rejected, fetch_upload(store, "uploads/a.wav", max_bytes=10):
        pass
    assert rejected.value.reason is Reason.EMPTY


def test_an_upload_that_is_gone_is_unavailable_not_rejected(store: ObjectStore) -> None:
    with (
        pytest.raises(UploadUnavailable, match="upload it again"),
        fetch_upload(store, "uploads/a.wav", max_bytes=10),
    ):
        pass


def test_an_upload_that_storage_withholds_is_unavailable(s3_server: S3Server) -> None:
    place = s3_server.place()
    put(place.open(), {"a.wav": b"1"})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BANDSCOPE_S3_SECRET_ACCESS_KEY", "wrong")
        from bandscope_dagster.settings import Settings

        locked_out = Settings(
            storage=place.url, s3_endpoint=place.endpoint, s3_access_key_id=place.access_key_id
        ).open_store()
    with (
        pytest.raises(UploadUnavailable, match="cannot be read from the store") as unavailable,
        fetch_upload(locked_out, "uploads/a.wav", max_bytes=10),
    ):
        pass
    assert isinstance(unavailable.value.__cause__, PermissionError)


def test_a_file_that_is_still_copied_is_taken_once_it_has_settled(local: ObjectStore, folder: Path) -> None:
    growing = folder / "growing.wav"
    growing.write_bytes(b"half of it")
    listing = list_uploads(local, settle_s=60.0)
    assert (listing.uploads, listing.unsettled) == ([], 1)
    waited: list[int] = []
    assert list_settled_uploads(local, 0.05, waited.append).unsettled in (0, 1)
    assert waited in ([], [1])
    time = growing.stat().st_mtime - 61
    os.utime(growing, (time, time))
    with growing.open("ab") as file:
        file.write(b" and the rest")
    assert list_uploads(local, settle_s=60.0).unsettled == 1, "it was written again"
    os.utime(growing, (time, time))
    assert [upload.size for upload in list_uploads(local, settle_s=60.0).uploads] == [23]


def test_what_ingest_writes_and_what_is_moved_in_is_taken_at_once(store: ObjectStore) -> None:
    put(store, {"a.wav": b"whole"})
    listing = list_uploads(store, settle_s=3600.0)
    assert ([upload.filename for upload in listing.uploads], listing.unsettled) == (["a.wav"], 0)


def test_a_moved_file_is_taken_at_once(local: ObjectStore, folder: Path) -> None:
    (folder / "new.part").write_bytes(b"whole")
    sleep(0.05)  # the clock of files ticks every few milliseconds
    (folder / "new.part").rename(folder / "new.wav")
    assert [upload.filename for upload in list_uploads(local, settle_s=3600.0).uploads] == ["new.wav"]


def test_odd_entries_are_left_out_with_their_reason_and_stop_no_other(tmp_path: Path) -> None:
    """A link to itself, to nothing, and out of the store, and a named pipe."""
    uploads = tmp_path / "store" / "uploads"
    (uploads / "mia").mkdir(parents=True)
    (tmp_path / "private.wav").write_bytes(b"1")
    (uploads / "a.wav").write_bytes(b"1")
    (uploads / "mia" / "loop.wav").symlink_to("loop.wav")
    (uploads / "nothing.wav").symlink_to("gone.wav")
    (uploads / "out.wav").symlink_to(tmp_path / "private.wav")
    (uploads / "inside.wav").symlink_to("a.wav")
    os.mkfifo(uploads / "pipe.wav")
    store = open_store(str(tmp_path / "store"))

    listing = list_uploads(store)

    assert [upload.filename for upload in listing.uploads] == ["a.wav", "inside.wav"]
    found = dict(line.split(": ") for line in listing.left_out)
    assert found == {
        "uploads/mia/loop.wav": "Too many levels of symbolic links",
        "uploads/nothing.wav": "not a file",
        "uploads/out.wav": "a link out of the store",
        "uploads/pipe.wav": "not a file",
    }
    assert set(store.fingerprints(["uploads"])["uploads"]) == {"a.wav", "inside.wav"}


def test_a_hidden_folder_is_left_out_as_one_and_read_up_to_its_first_song(
    local: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "mia/.snapshot/one/a.wav",
        "mia/.snapshot/two/a.wav",
        "...And Justice/Blackened.mp3",
        ".git/.objects/pack",
        "._a.wav",
        ".b.wav",
        "good.wav",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    read: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(os.fspath(path)) or scan(path))

    listing = list_uploads(local)

    assert [upload.filename for upload in listing.uploads] == ["good.wav"]
    assert [line.partition(": hidden")[0] for line in listing.left_out] == [
        "uploads/...And Justice",
        "uploads/.b.wav",
        "uploads/mia/.snapshot",
    ]
    assert len([path for path in read if "/.snapshot/" in path]) == 1


def test_a_folder_without_permission_is_left_out_and_stops_no_other(tmp_path: Path) -> None:
    """As another user than root, whom permissions stop."""
    uploads = tmp_path / "store" / "uploads"
    (uploads / "locked").mkdir(parents=True)
    (uploads / "a.wav").write_bytes(b"1")
    (uploads / "locked").chmod(0)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    program = (
        "import os, sys; os.getuid() or (os.setgid(65534), os.setuid(65534));"
        "from bandscope_dagster.storage.objects.open_store import open_store;"
        "from bandscope_dagster.pipeline.uploads import list_uploads;"
        "found = list_uploads(open_store(sys.argv[1]));"
        "print([upload.filename for upload in found.uploads], *found.left_out, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "store"], capture_output=True, text=True)
    (uploads / "locked").chmod(0o755)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user may not read this checkout or its Python")
    assert done.stdout.splitlines() == ["['a.wav']", "uploads/locked: Permission denied"], done.stderr
