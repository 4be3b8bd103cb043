"""Ingest: subfolders are kept, the owner comes first, and unchanged uploads stay the same songs."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from command_line import CommandLine
from rich.console import Console

from bandscope_dagster.cli.ingest import Ingested, IngestError, find_files, ingest, ingest_files
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore

ODD_NAMES = [
    "[red]alarm.wav",
    "a 'quoted' & $(spaced) name.wav",
    "-o.wav",
    "100% *real?.mp3",
    "夜に駆ける.flac",
]


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "Music"
    for name in ("mia/live/b.flac", "mia/a.wav", "c.mp3", "mia/cover.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def bandscope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path / "store"))
    return CommandLine(monkeypatch, capsys)


def keys(paths: list[Path], owner: str | None = None) -> list[str]:
    return [file.key for file in find_files(paths, owner).files]


def ingest_all(store: ObjectStore, paths: list[Path], *, replace: bool = False) -> list[Ingested]:
    return [ingest(store, file, replace=replace) for file in find_files(paths, None).files]


def test_a_folder_keeps_its_shape_below_the_uploads(music: Path) -> None:
    assert keys([music]) == ["uploads/c.mp3", "uploads/mia/a.wav", "uploads/mia/live/b.flac"]


def test_a_file_stands_at_the_top(music: Path) -> None:
    assert keys([music / "mia/live/b.flac"]) == ["uploads/b.flac"]


def test_the_owner_comes_before_the_folders(music: Path) -> None:
    assert keys([music / "mia", music / "c.mp3"], owner="tom") == [
        "uploads/tom/a.wav",
        "uploads/tom/live/b.flac",
        "uploads/tom/c.mp3",
    ]


@pytest.mark.parametrize("owner", ["", " ", "mia/live", "..", ".mia", "mi\na"])
def test_an_owner_that_is_no_name_is_refused(owner: str, music: Path) -> None:
    with pytest.raises(IngestError, match="invalid owner"):
        find_files([music], owner)


@pytest.mark.parametrize(
    ("name", "says"),
    [("nothing", "does not exist"), ("mia/cover.jpg", "unsupported extension; supported: .*.mp3")],
)
def test_a_path_that_is_no_song_is_left_out(name: str, says: str, music: Path) -> None:
    found = find_files([music / name, music / "c.mp3"], None)
    assert [file.key for file in found.files] == ["uploads/c.mp3"]
    assert re.search(f"{name}.*{says}", *found.left_out)


def test_without_a_file_to_upload_no_bar_stays_on_the_screen(store: ObjectStore, tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True)
    assert ingest_files(store, screen, [tmp_path / "nothing"], None, replace=False).keys == []
    assert isinstance(screen.file, io.StringIO)
    assert "does not exist" in screen.file.getvalue() and "uploading" not in screen.file.getvalue()


def test_a_folder_without_audio_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("la la la")
    (line,) = find_files([tmp_path], None).left_out
    assert "has no files with a supported extension" in line


def test_two_files_that_would_become_one_upload_are_left_out(music: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"another")
    found = find_files([tmp_path / "a.wav", music / "mia/a.wav", music / "c.mp3"], None)
    assert [file.key for file in found.files] == ["uploads/c.mp3"]
    assert len(found.left_out) == 2 and all("would become uploads/a.wav" in line for line in found.left_out)


def test_a_file_that_is_given_twice_is_uploaded_once(music: Path) -> None:
    assert keys([music / "c.mp3", music / "c.mp3", music]) == [
        "uploads/c.mp3",
        "uploads/mia/a.wav",
        "uploads/mia/live/b.flac",
    ]


def test_a_file_of_a_folder_and_of_its_subfolder_is_uploaded_once(music: Path) -> None:
    assert keys([music, music / "mia", music / "mia" / "live" / ".." / "a.wav"]) == [
        "uploads/c.mp3",
        "uploads/mia/a.wav",
        "uploads/mia/live/b.flac",
    ]
    (music / "mia/empty.mp3").touch()
    (line,) = find_files([music, music / "mia"], None).left_out
    assert "mia/empty.mp3: the file is empty" in line


def test_earlier_exports_inside_a_given_folder_are_no_songs(music: Path) -> None:
    found = find_files([music], None, exports=music / "mia")
    assert [file.key for file in found.files] == ["uploads/c.mp3"] and not found.left_out
    assert len(find_files([music], None, exports=music).files) == 3, "beside the songs themselves"
    assert len(find_files([music / "mia/a.wav"], None, exports=music / "mia").files) == 1, "it is named"


def test_an_empty_path_is_not_the_current_folder(
    bandscope: CommandLine, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(music)
    done = bandscope("ingest", "", music / "c.mp3")
    assert done.code == 1 and "1 uploaded" in done.out and "an empty path" in done.out


def test_the_store_is_not_ingested_into_itself(bandscope: CommandLine, music: Path, tmp_path: Path) -> None:
    bandscope("ingest", music)
    done = bandscope("ingest", tmp_path)
    assert done.out.count("is in the store already") == 3
    assert "uploads/store" not in str([*(tmp_path / "store").rglob("*")])


def test_two_spellings_of_one_name_are_one_upload(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "Jóga.mp3")).write_bytes(b"1")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system knows only one spelling")
    found = find_files([tmp_path], None)
    assert not found.files and len(found.left_out) == 2


def test_hidden_songs_are_told_and_companions_of_macos_are_not(bandscope: CommandLine, music: Path) -> None:
    (music / "mia/._a.wav").write_bytes(b"of macOS")
    (music / ".38 Special").mkdir()
    (music / ".38 Special/old.wav").write_bytes(b"1")
    (music / ".38 Special/.DS_Store").write_bytes(b"1")
    (music / "...And Justice.mp3").write_bytes(b"1")
    done = bandscope("ingest", music)
    assert done.code == 1 and "3 uploaded" in done.out and "2 left out" in done.out
    for name in (".38 Special/old.wav", "...And Justice.mp3"):
        assert f"{music / name}: hidden, because its name or that of a folder starts with a dot" in done.out
    assert "._a" not in done.out and ".DS_Store" not in done.out
    assert "1 other file, no audio by the extension" in done.out and "1 .jpg: cover.jpg" in done.out


def test_of_a_hundred_files_twelve_are_bad_in_twelve_ways(
    bandscope: CommandLine, music: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(88):
        (folder / f"{number}.wav").write_bytes(bytes([number + 1]))
    (folder / "empty.wav").touch()
    (folder / ".hidden.wav").write_bytes(b"1")
    (folder / ".band").mkdir()
    (folder / ".band/song.wav").write_bytes(b"1")
    (folder / "esc\x1b[31m.wav").write_bytes(b"1")
    Path(os.fsdecode(os.fsencode(folder) + b"/latin-\xe9.wav")).write_bytes(b"1")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "gone.wav").symlink_to("nowhere.wav")
    (folder / "out.wav").symlink_to(music / "c.mp3")
    os.mkfifo(folder / "pipe.wav")
    (folder / "taken.wav").write_bytes(b"1")
    (folder / "7.wav").write_bytes(b"another")
    (folder / "a.wav").write_bytes(b"1")
    store = tmp_path / "store/uploads"
    (store / "a.wav").mkdir(parents=True)  # a folder of the same name
    (store / "taken.wav").write_bytes(b"2")
    (folder / "deep").mkdir()
    deep = folder / "deep"
    for _ in range(4):
        deep = deep / ("d" * 250)
        deep.mkdir()
    (deep / ("n" * 60 + ".wav")).write_bytes(b"1")
    assert sum(path.is_symlink() or not path.is_dir() for path in folder.rglob("*")) == 100
    done = bandscope("ingest", folder)
    assert done.code == 1 and "88 uploaded" in done.out and "12 left out:" in done.out
    assert done.out.count("the file is empty") == done.out.count("No such file") == 1
    assert "latin-\\udce9.wav" in done.out and "esc\\u001b[31m.wav" in done.out and "\x1b" not in done.out


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_ingested_as_it_is(name: str, store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"1")
    assert ingest_all(store, [tmp_path / "in"]) == [Ingested.UPLOADED]
    assert [upload.filename for upload in list_uploads(store).uploads] == [name]


@pytest.mark.parametrize("name", ["tab\there.wav", "\x1b[31mred.wav", "two\nlines.wav", "c1\x9b31m.wav"])
def test_a_name_that_can_be_no_key_is_left_out_and_shown_without_its_control_characters(
    bandscope: CommandLine, music: Path, tmp_path: Path, name: str
) -> None:
    (music / name).write_bytes(b"1")
    done = bandscope("ingest", music)
    assert done.code == 1 and "3 uploaded" in done.out
    (line,) = [line for line in done.out.splitlines() if "rename the file" in line]
    assert json.dumps(name)[1:-1] in line
    assert "\x1b" not in done.out and "\t" not in done.out


def test_odd_entries_are_left_out_and_all_others_are_uploaded(
    bandscope: CommandLine, music: Path, tmp_path: Path
) -> None:
    """A link to itself, a link to a file outside, a link inside, a socket, a named pipe, and a link to a folder."""
    (tmp_path / "private.wav").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/more.wav").write_bytes(b"more")
    (music / "loop.wav").symlink_to("loop.wav")
    (music / "out.wav").symlink_to(tmp_path / "private.wav")
    (music / "inside.wav").symlink_to("mia/a.wav")
    (music / "folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(music / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as bound:
        before = Path.cwd()
        os.chdir(music)  # the path of a socket is short
        try:
            bound.bind("socket.wav")
        finally:
            os.chdir(before)
        done = bandscope("ingest", music)
    assert done.code == 1 and "4 uploaded" in done.out and "4 left out" in done.out
    for name in ("loop.wav: Too many levels", "out.wav: a link that leads out", "pipe.wav: not a file"):
        assert name in done.out
    assert "socket.wav: " in done.out
    names = [upload.filename for upload in list_uploads(open_store(str(tmp_path / "store"))).uploads]
    assert sorted(names) == ["a.wav", "b.flac", "c.mp3", "inside.wav"]


def test_what_may_not_be_read_is_left_out_and_all_others_are_uploaded(music: Path, tmp_path: Path) -> None:
    """As another user than root, whom permissions stop."""
    (music / "locked.wav").write_bytes(b"1")
    (music / "locked.wav").chmod(0)
    (music / "mia/live").chmod(0)
    program = (
        "import os, sys; os.getuid() or (os.setgid(65534), os.setuid(65534));"
        "from pathlib import Path; from bandscope_dagster.cli.ingest import find_files;"
        "found = find_files([Path(sys.argv[1])], None);"
        "print([file.key for file in found.files], *found.left_out, sep='\\n')"
    )
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    try:
        done = subprocess.run([sys.executable, "-c", program, music], capture_output=True, text=True)
    finally:
        (music / "mia/live").chmod(0o755)
    if "ModuleNotFoundError" in done.stderr or "PermissionError" in done.stderr:
        pytest.skip("another user may not read this checkout or its Python")
    first, *left_out = done.stdout.splitlines()
    assert first == "['uploads/c.mp3', 'uploads/mia/a.wav']", done.stderr
    assert sorted(line.removeprefix(str(music)) for line in left_out) == [
        "/locked.wav: Permission denied",
        "/mia/live: Permission denied",
    ]


def test_ingesting_twice_keeps_the_same_songs(store: ObjectStore, music: Path) -> None:
    assert ingest_all(store, [music]) == [Ingested.UPLOADED] * 3
    songs = list_uploads(store)
    assert ingest_all(store, [music]) == [Ingested.UNCHANGED] * 3
    assert list_uploads(store) == songs, "ids, times and sizes"


def test_another_file_of_the_same_name_is_left_out(store: ObjectStore, music: Path) -> None:
    ingest_all(store, [music])
    songs = list_uploads(store)
    (music / "c.mp3").write_bytes(b"C.MP3")  # of the same size
    assert ingest_all(store, [music]) == [Ingested.CONFLICT, Ingested.UNCHANGED, Ingested.UNCHANGED]
    assert list_uploads(store) == songs
    assert store.read("uploads/c.mp3") == b"c.mp3"


def test_a_replaced_file_is_a_new_song(store: ObjectStore, music: Path) -> None:
    ingest_all(store, [music])
    old = {upload.key: upload.song_id for upload in list_uploads(store).uploads}
    (music / "c.mp3").write_bytes(b"C.MP3")
    assert ingest_all(store, [music], replace=True)[0] is Ingested.REPLACED
    new = {upload.key: upload.song_id for upload in list_uploads(store).uploads}
    assert store.read("uploads/c.mp3") == b"C.MP3"
    assert {key for key in old if old[key] != new[key]} == {"uploads/c.mp3"}


def test_the_command_tells_what_it_did(bandscope: CommandLine, music: Path, tmp_path: Path) -> None:
    done = bandscope("ingest", music)
    assert done.code == 0 and "3 uploaded" in done.out and "store/uploads" in done.out
    assert "3 already uploaded" in bandscope("ingest", music).out
    assert len(list_uploads(open_store(str(tmp_path / "store"))).uploads) == 3


def test_the_command_names_a_conflict_and_ends_with_1(bandscope: CommandLine, music: Path) -> None:
    bandscope("ingest", music)
    (music / "c.mp3").write_bytes(b"another")
    done = bandscope("ingest", music)
    assert done.code == 1
    assert f"{music / 'c.mp3'}: a different file" in done.out and "--replace" in done.out
    assert "2 already uploaded" in done.out and "1 left out" in done.out
    assert bandscope("ingest", "--replace", music).code == 0


def test_the_command_says_in_a_sentence_what_is_wrong(
    bandscope: CommandLine, music: Path, tmp_path: Path
) -> None:
    done = bandscope("ingest", music / "nothing")
    assert done.code == 1 and f"{music / 'nothing'}: does not exist" in done.out

    (tmp_path / "store").write_text("a file where the store should be")
    done = bandscope("ingest", music)
    assert done.code == 1 and "Not a directory" in done.err and str(tmp_path / "store") in done.err
    assert done.err.count("\n") == 1, "no traceback"
