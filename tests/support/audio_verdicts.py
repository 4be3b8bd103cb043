"""Our frames of each file in ``audio_shapes`` against those of Debian's ffmpeg, and the table of docs/formats.md.

python tests/support/audio_verdicts.py        writes the table; it takes a few minutes
"""

import io
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from audio_shapes import FORMATS, SHAPES, frames_of_ffmpeg, makeable
from numpy.typing import NDArray

from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.foreign_tags import without_leading_tags
from bandscope_dagster.audio.frames import read_frames
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.samples import Silence, sample_format, samples_of
from bandscope_dagster.errors import SongRejected

PAGE: Final = Path(__file__).parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- shapes -->", "<!-- end of shapes -->"

SAME, WARNED, REJECTED, INTENDED, NONE = "=", "!", "x", "≠", "-"
DIFFERS = "DIFFERS"

RMS_TOLERANCE: Final = 1e-4
_LIMITS = Limits(max_bytes=10**9)
_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "flt": 1.0, "dbl": 1.0}

# (format, shape) → frames of ours, frames of ffmpeg 5.1, and why.
DIFFERENCES: Final[dict[tuple[str, str], tuple[int, int, str]]] = {
    ("flac", "joined"): (264_600, 252_108, "ffmpeg 5.1 loses the frames at the join"),
    ("ogg Vorbis", "joined"): (
        264_600,
        264_728,
        "ffmpeg overlaps the first block of a link with the link before",
    ),
    ("ogg Opus", "joined"): (288_000, 288_312, "ffmpeg does not skip the delay of the second link"),
    ("mp3", "joined"): (267_311, 266_159, "ffmpeg loses the first frame after the tag of the second file"),
    ("w64", "foreign tags"): (132_300, 0, "ffmpeg does not read W64 after an ID3v2 tag"),
    ("m4a AAC", "foreign tags"): (133_120, 0, "the offsets in the file count from the end of the ID3v2 tag"),
    ("m4a ALAC", "foreign tags"): (132_300, 0, "the offsets in the file count from the end of the ID3v2 tag"),
    ("webm Opus", "22.05 kHz"): (
        144_156,
        144_000,
        "FFmpeg 8 in PyAV keeps a part of the last packet's padding",
    ),
}


def verdict(name: str, shape: str) -> tuple[str, str]:
    """The cell of the table, and what was found, for the message of a failing test."""
    data = makeable(name, shape)
    if data is None:
        return NONE, ""
    reference, errors = frames_of_ffmpeg(data)
    found = Findings()
    try:
        for _ in decode(io.BytesIO(data), _LIMITS, found):
            pass
    except SongRejected as rejected:
        return REJECTED, str(rejected)
    parts = _our_frames(data)
    frames = sum(len(part) for part in parts)
    said = f"{frames} frames, ffmpeg {reference.shape}, {errors.strip()[:200]}; warning: {found.warning}"
    if _same(parts, reference):
        return SAME + (WARNED if found.warning else ""), said
    if found.warning:
        return WARNED, said
    if DIFFERENCES.get((name, shape), (0, 0, ""))[:2] == (frames, len(reference)):
        return INTENDED, said
    return DIFFERS, said


def _our_frames(data: bytes) -> list[NDArray[np.float64]]:
    parts: list[NDArray[np.float64]] = []
    for frame in read_frames(without_leading_tags(io.BytesIO(data)), Findings()):
        if not isinstance(frame, Silence):
            kind = sample_format(frame)
            zero = 128 if kind == "u8" else 0
            parts.append(((samples_of(frame).astype(np.float64) - zero) * _SCALES[kind]).T)
    return parts


def _same(parts: list[NDArray[np.float64]], reference: NDArray[np.float32]) -> bool:
    if not parts or {part.shape[1] for part in parts} != {reference.shape[1]}:
        return False
    ours, theirs = np.concatenate(parts), reference.astype(np.float64)
    if len(ours) != len(theirs):
        return False
    levels = [np.sqrt(np.mean(each**2, axis=0)) for each in (ours, theirs)]
    return bool(np.abs(levels[0] - levels[1]).max() <= RMS_TOLERANCE)


def row(name: str) -> list[tuple[str, str]]:
    """The verdicts of a format over all shapes."""
    return [verdict(name, shape) for shape in SHAPES]


def stored_rows() -> dict[str, list[str]]:
    """Format → cells, of the table in docs/formats.md."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return {cells[0]: cells[1:] for cells in lines[2:] if cells[0] in FORMATS}


def main() -> None:
    """Write the table."""
    with ProcessPoolExecutor(2) as pool:
        rows = dict(zip(FORMATS, pool.map(row, FORMATS), strict=True))
    lines = [f"| | {' | '.join(SHAPES)} |", "|---" * (1 + len(SHAPES)) + "|"]
    for name, cells in rows.items():
        lines.append(f"| {name} | {' | '.join(mark for mark, _ in cells)} |")
        for shape, (mark, said) in zip(SHAPES, cells, strict=True):
            if mark == DIFFERS:
                print(f"{name}, {shape}: {said}", file=sys.stderr)
    reasons = [f"- {name}, {shape}: {why}." for (name, shape), (_, _, why) in DIFFERENCES.items()]
    text = "\n".join([BEGIN, *lines, "", "Differences on purpose (≠):", "", *reasons, END])
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: text, page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
