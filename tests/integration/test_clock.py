"""A clock that jumps by hours and by a year, back and forth, while songs are processed: no song is lost."""

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from command_processes import bandscope, bandscope_alone, finish, platform
from platforms import PER_SONG, WHEN, calm_platform, song_bytes
from polars.testing import assert_frame_equal
from same_tables import assert_same_tables

libfaketime = pytest.importorskip("libfaketime", reason="libfaketime works on Linux")

SONGS, LATER = 3, 1
JUMPS = ("+0", "-3h", "+2h", "-400d", "+400d", "-1m", "+30d")
JUMPS_EVERY_S = 1.0


@contextmanager
def jumping_clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The wall clock of all processes started in the block jumps; file times and the monotonic clock do not."""
    now = folder / "clock"
    now.write_text(JUMPS[0])
    library = Path(libfaketime.__file__).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    variables = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": now,
        "FAKETIME_CACHE_DURATION": 1,  # seconds until the file is read again
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        "FAKETIME_FORCE_MONOTONIC_FIX": 0,  # with it, waits of the monotonic clock become busy loops
        "FAKETIME_DISABLE_SHM": 1,
        "NO_FAKE_STAT": 1,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    ended = threading.Event()

    def jump() -> None:
        drawn = random.Random(7)
        while not ended.wait(JUMPS_EVERY_S):
            new = folder / "clock.new"
            new.write_text(drawn.choice(JUMPS))
            new.rename(now)

    jumps = threading.Thread(target=jump)
    jumps.start()
    try:
        yield
    finally:
        ended.set()
        jumps.join()
        for name in variables:
            monkeypatch.delenv(name)


def upload(store: Path, numbers: range) -> None:
    """Upload songs to the store."""
    (store / "uploads").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (store / "uploads" / f"song {number}.wav").write_bytes(song_bytes(number, seconds=2.0))


def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shaken, home = tmp_path / "shaken", tmp_path / "shaken-home"
    upload(shaken, range(SONGS))
    with jumping_clock(tmp_path, monkeypatch):
        finish(bandscope_alone(shaken, home, "run"))
        upload(shaken, range(SONGS, SONGS + LATER))
        finish(bandscope_alone(shaken, home, "run"))
    assert "are done" in finish(bandscope(shaken, home, "run"))

    calm = tmp_path / "calm"
    shutil.copytree(shaken / "uploads", calm / "uploads")  # keeps the times, and therefore the song ids
    ours = platform(shaken, home)
    assert len(ours.songs) == SONGS + LATER
    for asset in PER_SONG:
        assert set(ours.status(asset).values()) == {"MATERIALIZED"}
    with calm_platform(calm) as theirs:
        assert_same_tables(ours, theirs)
        for catalog in ("song_catalog", "instrument_catalog", "song_errors"):
            mine, other = (place.table(catalog).drop(*WHEN, strict=False) for place in (ours, theirs))
            assert_frame_equal(mine, other, check_exact=False, rel_tol=1e-3, abs_tol=1e-3)
    assert not list((shaken / ".pending").iterdir()), "a half-written file is left"


def test_the_clock_of_this_test_does_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = "import time\nfor _ in range(30): print(time.time(), time.monotonic()); time.sleep(0.2)"
    with jumping_clock(tmp_path, monkeypatch):
        command = [sys.executable, "-c", look]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    times = [tuple(map(float, line.split())) for line in printed.splitlines()]
    jumps = [(day - before, spent - began) for (before, began), (day, spent) in pairwise(times)]
    assert min(jump for jump, _ in jumps) < -60 and max(jump for jump, _ in jumps) > 60
    assert all(0 < spent < 60 for _, spent in jumps), "the monotonic clock jumped"
