"""The cage: a decoder that crashes, hangs or uses too much rejects its song and affects nothing else."""

import dataclasses
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from audio_files import ENCODERS, LIMITS, encode, encoded
from daemon import wait_for

from bandscope_dagster.audio.blocks import BLOCK_FRAMES
from bandscope_dagster.audio.cage import child as child_side
from bandscope_dagster.audio.cage import fork_server
from bandscope_dagster.audio.cage.caged_song import CagedSong, caged
from bandscope_dagster.audio.cage.fork_server_client import CageFailed, start_decoding
from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.probe import probe
from bandscope_dagster.errors import Reason, SongRejected

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


@contextmanager
def file_of(data: bytes) -> Generator[BinaryIO]:
    """The data in a file without a name, as ``fetch_upload`` yields it."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def read(data: bytes, limits: Limits = LIMITS) -> np.ndarray:
    """The song's audio, decoded in the cage."""
    with file_of(data) as file, caged(file, limits, with_probe=True) as song:
        song.probe()
        return np.concatenate(list(song.blocks()), axis=1)


def rejection(data: bytes, limits: Limits = LIMITS) -> SongRejected:
    with pytest.raises(SongRejected) as caught:
        read(data, limits)
    return caught.value


def silence(seconds: int, kind: str = "flac") -> bytes:
    """A small file of long silence."""
    muxer, encoder, rate = ENCODERS[kind]
    return encode(np.zeros((2, seconds * rate), np.float32), muxer, encoder)


def children_of(process: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def server() -> int:
    """The PID of this process's fork server; decoding a song starts it."""
    read(encoded("wav16"))
    servers = [
        child
        for child in children_of(os.getpid())
        if fork_server.__name__ in Path(f"/proc/{child}/cmdline").read_text()
    ]
    assert len(servers) == 1
    return servers[0]


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_format_decodes_in_the_cage_as_it_does_outside(kind: str) -> None:
    with file_of(encoded(kind)) as file, caged(file, LIMITS, with_probe=True) as song:
        inside, blocks = song.probe(), list(song.blocks())
        assert inside == probe(file, LIMITS)
        expected = list(decode(file, LIMITS))
    assert len(blocks) == len(expected)
    for block, other in zip(blocks, expected, strict=True):
        np.testing.assert_array_equal(block, other)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"no audio at all " * 100, Reason.NOT_AUDIO),
        (encoded("flac")[:60_000], Reason.TRUNCATED),
        (silence(1), None),
    ],
)
def test_a_rejection_in_the_cage_is_the_one_outside(data: bytes, reason: Reason | None) -> None:
    if reason is None:
        assert read(data).shape == (2, 44_100)
    else:
        with pytest.raises(SongRejected) as outside, file_of(data) as file:
            probe(file, LIMITS)
            list(decode(file, LIMITS))
        assert str(rejection(data)) == str(outside.value)
        assert outside.value.reason == reason


def test_a_tiny_file_of_hours_is_stopped_by_the_length_of_its_audio() -> None:
    bomb = silence(1200)
    assert len(bomb) < 200_000
    limits = dataclasses.replace(LIMITS, max_duration_s=60.0)
    # FLAC states its length in 36 bits at a fixed place; all zero means unknown.
    assert bomb[:4] == b"fLaC"
    bomb = bomb[:21] + bytes([bomb[21] & 0xF0, 0, 0, 0, 0]) + bomb[26:]
    assert rejection(bomb, limits).reason is Reason.TOO_LONG


def test_a_file_that_takes_too_much_cpu_is_rejected() -> None:
    error = rejection(silence(3600), dataclasses.replace(LIMITS, max_decode_cpu_s=1))
    assert error.reason is Reason.TOO_COSTLY
    assert "more than 1 s of CPU" in error.message


def test_a_hundred_thousand_tags_are_rejected_with_advice_that_helps() -> None:
    """FFmpeg compares each tag with all others. Another format with the same tags would take as long."""

    def sizes(number: int) -> bytes:
        return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))

    texts = [b"\x03name %06d\0text" % number for number in range(100_000)]
    tag = b"".join(b"TXXX" + sizes(len(text)) + b"\0\0" + text for text in texts)
    data = b"ID3\x04\0\0" + sizes(len(tag)) + tag + encoded("mp3")
    error = rejection(data, dataclasses.replace(LIMITS, max_decode_cpu_s=1))
    assert error.reason is Reason.TOO_COSTLY
    assert "save the file without its tags" in error.message
    assert "convert" not in error.message


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "cp1252", "utf-16", "utf-16-be", "utf-8"])
def test_every_encoding_of_a_tag_is_read_where_no_file_may_be_opened(encoding: str) -> None:
    word = "Кино" if encoding not in ("latin-1", "cp1252") else "Déjà"
    number = {"utf-16": 1, "utf-16-be": 2, "utf-8": 3}.get(encoding, 0)
    text = bytes([number]) + (word + "\0" + word).encode(encoding)
    tag = b"TIT2" + len(text).to_bytes(4, "big") + b"\0\0" + text
    data = b"ID3\x04\0\0" + len(tag).to_bytes(4, "big") + tag + encoded("mp3")
    with file_of(data) as file, caged(file, LIMITS, with_probe=True) as song:
        assert song.probe().title == f"{word};{word}"
        list(song.blocks())


def with_picture(size: int) -> bytes:
    """An MP3 whose ID3 tag holds a picture of ``size`` bytes."""
    content = b"\x00image/jpeg\x00\x03\x00" + bytes(size)
    frame = b"APIC" + len(content).to_bytes(4, "big") + b"\x00\x00" + content
    seven_bits = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + seven_bits + frame + encoded("mp3")


def test_a_file_that_takes_too_much_memory_is_rejected() -> None:
    limits = dataclasses.replace(LIMITS, max_decode_memory_bytes=2**22)
    error = rejection(silence(30, "wav16"), limits)  # a block is 3.4 MiB, and is joined from its parts
    assert error.reason is Reason.TOO_COSTLY
    assert "more than 4 MiB of memory" in error.message


@contextmanager
def song_in_the_middle(limits: Limits = LIMITS) -> Generator[tuple[CagedSong, int]]:
    """A long song after its first block, and the PID of the process that decodes it."""
    parent = server()
    with file_of(silence(600)) as file, caged(file, limits) as song:
        next(song.blocks())
        (child,) = children_of(parent)
        yield song, child


def rest_of(song: CagedSong) -> None:
    for _ in song.blocks():
        pass


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL])
def test_a_file_that_crashes_its_decoder_is_rejected_with_the_reason(how: signal.Signals) -> None:
    with song_in_the_middle() as (song, child):
        os.kill(child, how)
        with pytest.raises(SongRejected, match=f"crashes the decoder \\({how.name}\\)") as caught:
            rest_of(song)
        assert caught.value.reason is Reason.DECODER_CRASHED
    assert read(encoded("wav16")).shape[0] == 2, "the next song is not affected"


def test_a_decoder_that_the_system_kills_is_a_failure_that_is_retried() -> None:
    with song_in_the_middle() as (song, child):
        os.kill(child, signal.SIGKILL)
        with pytest.raises(CageFailed, match="killed from outside"):
            rest_of(song)


def test_a_decoder_that_hangs_is_stopped() -> None:
    with song_in_the_middle(dataclasses.replace(LIMITS, max_decode_silence_s=0.5)) as (song, child):
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(SongRejected, match=r"returned nothing for 0\.5 s") as caught:
            rest_of(song)
        assert caught.value.reason is Reason.TOO_COSTLY
        wait_for("the process has gone", lambda: not Path(f"/proc/{child}").exists())


def test_a_fork_server_that_exits_fails_its_songs_and_is_replaced() -> None:
    with song_in_the_middle() as (song, child):
        os.kill(server(), signal.SIGKILL)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(CageFailed, match="fork server of the decoding processes has exited"):
            rest_of(song)
    assert read(encoded("wav16")).shape[0] == 2


def test_a_song_that_is_abandoned_leaves_no_process() -> None:
    with song_in_the_middle() as (_, child):
        assert Path(f"/proc/{child}").exists()
    wait_for("the process has gone", lambda: not Path(f"/proc/{child}").exists())


def test_many_songs_at_once_come_out_whole_and_leave_no_descriptor_open() -> None:
    parent = server()
    expected = {kind: read(encoded(kind)) for kind in ENCODERS}
    before = len(os.listdir("/proc/self/fd"))

    def same(number: int) -> bool:
        kind = list(ENCODERS)[number % len(ENCODERS)]
        return np.array_equal(read(encoded(kind)), expected[kind])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(same, range(64)))
    assert len(os.listdir("/proc/self/fd")) == before
    wait_for("the processes have gone", lambda: not children_of(parent))


CONFINED = """
import os, socket, sys
from bandscope_dagster.audio.cage.child import confine, drop_root
from bandscope_dagster.audio.limits import Limits
inherited = open(sys.argv[1], "r+b", buffering=0)
drop_root()
confine(Limits(max_bytes=1, max_decode_memory_bytes=64 * 2**20))
attempts = {
    "read a file": lambda: open("/etc/passwd"),
    "create a file": lambda: open(sys.argv[1] + ".new", "w"),
    "list a folder": lambda: os.listdir("/"),
    "change the upload": lambda: inherited.write(b"x"),
    "connect": lambda: socket.socket(),
    "open a pipe": lambda: os.pipe(),
    "allow itself more": lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_NOFILE, (9, 9)),
    "take memory": lambda: bytearray(128 * 2**20),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, ValueError, MemoryError) as error:
        os.write(1, f"{name}: {type(error).__name__}\\n".encode())
    else:
        os.write(1, f"{name}: done\\n".encode())
"""


def test_a_decoding_process_can_open_nothing_and_use_little_memory(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"as it was")
    ended = subprocess.run([sys.executable, "-c", CONFINED, str(upload)], capture_output=True, text=True)
    results = dict(line.split(": ") for line in ended.stdout.splitlines())
    assert len(results) == 8 and "done" not in results.values(), (results, ended.stderr)
    assert upload.read_bytes() == b"as it was"


def test_the_decoding_processes_do_not_know_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDSCOPE_S3_SECRET_ACCESS_KEY", "a-secret")
    earlier = server()
    os.kill(earlier, signal.SIGKILL)
    wait_for("it is dead", lambda: ") Z " in Path(f"/proc/{earlier}/stat").read_text())
    known = Path(f"/proc/{server()}/environ").read_bytes()
    assert b"a-secret" not in known and b"BANDSCOPE" not in known


def message(kind: bytes, text: bytes = b"") -> bytes:
    return child_side.HEADER.pack(kind, len(text)) + text


def block(frames: int) -> bytes:
    return child_side.HEADER.pack(child_side.BLOCK, frames)


@contextmanager
def taken_over(said: bytes, memory: float = 0.0) -> Generator[tuple[CagedSong, list[bool]]]:
    """A song whose decoder sends ``said`` and exits, with memory full of one number; and a list: its stops."""
    stopped: list[bool] = []
    ours, theirs = socket.socketpair()
    status, status_in = os.pipe()
    shared = mmap.mmap(-1, child_side.MEMORY_BYTES)
    np.frombuffer(shared, np.float32)[:] = memory
    limits = dataclasses.replace(LIMITS, max_duration_s=15.0)
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        yield CagedSong(ours, shared, status, lambda: stopped.append(True), limits), stopped
    os.close(status)
    os.close(status_in)


@pytest.mark.parametrize(
    ("said", "memory"),
    [
        (message(b"?"), 0.0),
        (message(child_side.PROBE, b"{}"), 0.0),
        (block(0), 0.0),
        (block(BLOCK_FRAMES + 1), 0.0),
        (block(16), np.nan),
        (3 * block(BLOCK_FRAMES), 0.0),  # of 10 s each
        (message(child_side.REJECTED, b'["no such reason", "text"]'), 0.0),
        (message(child_side.REJECTED, b'["empty"]'), 0.0),
        (child_side.HEADER.pack(child_side.REJECTED, 2**31), 0.0),
    ],
)
def test_messages_of_a_decoder_that_was_taken_over_are_rejected(said: bytes, memory: float) -> None:
    with taken_over(said, memory) as (song, stopped):
        with pytest.raises(SongRejected) as caught:
            rest_of(song)
        assert caught.value.reason is Reason.DECODER_CRASHED
        assert stopped


@pytest.mark.parametrize(
    "said", [block(16), message(child_side.PROBE, b"[]"), message(child_side.PROBE, b'{"channels": "many"}')]
)
def test_headers_from_a_decoder_that_was_taken_over_are_rejected(said: bytes) -> None:
    with taken_over(said) as (song, stopped):
        with pytest.raises(SongRejected) as caught:
            song.probe()
        assert caught.value.reason is Reason.DECODER_CRASHED
        assert stopped


def test_the_message_of_a_rejection_is_made_printable() -> None:
    hostile = json.dumps(["empty", "\x1b[31mred\n" + 9_000 * "x", {"warning": "\x1b[31mred"}]).encode()
    with (
        taken_over(message(child_side.REJECTED, hostile)) as (song, _),
        pytest.raises(SongRejected) as caught,
    ):
        rest_of(song)
    assert caught.value.message.startswith("[31mred xxx") and len(caught.value.message) <= 500
    assert song.heard.warning == "[31mred"


def test_an_invalid_descriptor_starts_nothing_and_stops_no_other_song() -> None:
    with song_in_the_middle() as (song, _):
        with pytest.raises(CageFailed, match="cannot be started"):
            start_decoding((-1, -1, -1, -1), LIMITS, with_probe=False)
        rest_of(song)


def with_tags(size: int) -> bytes:
    muxer, encoder, _ = ENCODERS["flac"]
    return encode(np.zeros((2, 44_100), np.float32), muxer, encoder, tags={"title": "x" * size})


@pytest.mark.parametrize(
    ("data", "limits", "message"),
    [
        (
            lambda: with_tags(5000),
            {"max_tag_bytes": 4000},
            r"its tags have 5,\d\d\d bytes; the limit is 4,000",
        ),
        (
            lambda: with_picture(2000),
            {"max_picture_bytes": 1000},
            r"a picture in it has [\d,]+ bytes; the limit is 1,000",
        ),
    ],
)
def test_large_tags_and_pictures_are_rejected(
    data: Callable[[], bytes], limits: dict[str, int], message: str
) -> None:
    assert read(data()).shape[0] == 2
    error = rejection(data(), dataclasses.replace(LIMITS, **limits))
    assert error.reason is Reason.TOO_LARGE
    with pytest.raises(SongRejected, match=message):
        raise error
