"""Damaged uploads that we take as whole, against Debian's ffmpeg: it hears no more, and reports no error."""

import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

from audio_shapes import ffmpeg_program
from long_forms import quick_or_long

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.cage.caged_song import caged
from bandscope_dagster.errors import SongRejected
from fuzzing.__main__ import make
from fuzzing.targets import LIMITS, TARGETS

UPLOADS = next(target for target in TARGETS if target.name == "uploads")
INPUTS = quick_or_long(200, long=20_000)
SEED = 7
LONGER_S = 0.05

# FFmpeg 5.1 does not know these codes of WAV. It drops the whole last packet for a part of a sample at its end. When it
# writes, it reports times that do not increase, although it reads the same audio.
OLDER = re.compile(r"codec none|Invalid PCM packet|to muxer in stream")


def defect(number: int, seeds: list[bytes]) -> str | None:
    """A message if ffmpeg hears more in a song that is whole for us, or reports an error; None if all is well."""
    data = make(UPLOADS, seeds, SEED, number)
    with tempfile.NamedTemporaryFile(prefix="bandscope-") as file:
        file.write(data)
        file.flush()
        try:
            with caged(file, LIMITS, with_probe=True) as song:
                container = song.probe().container
                ours_s = sum(block.shape[1] for block in song.blocks()) / SAMPLE_RATE
        except SongRejected:
            return None
        if song.heard.warning is not None:
            return None
        stream = (song.heard.audio_stream or 1) - 1
        command = [ffmpeg_program(), "-v", "error", "-nostdin", "-i", file.name, "-map", f"0:a:{stream}"]
        command += ["-ac", "2", "-ar", str(SAMPLE_RATE), "-f", "s16le", "pipe:1"]
        theirs = subprocess.run(command, capture_output=True)
    theirs_s = len(theirs.stdout) / 4 / SAMPLE_RATE
    errors = theirs.stderr.decode(errors="replace").strip()
    if theirs_s > ours_s + LONGER_S:
        return f"input {number} ({container}): ours {ours_s:.3f} s, ffmpeg {theirs_s:.3f} s"
    if errors and theirs_s and not OLDER.search(errors):
        return f"input {number} ({container}), {ours_s:.3f} and {theirs_s:.3f} s: {errors[:300]}"
    return None


def test_what_is_whole_for_us_is_whole_for_ffmpeg() -> None:
    seeds = list(UPLOADS.seeds())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = [each for each in threads.map(lambda number: defect(number, seeds), range(INPUTS)) if each]
    assert not found, "\n".join(found)
