"""Every container and codec in fifteen shapes: our frames are those of Debian's ffmpeg, or we say what is missing."""

import pytest
from audio_shapes import FORMATS, SHAPES, ffmpeg_program
from audio_verdicts import DIFFERS, row, stored_rows

QUICK = ("wav s16", "flac", "ogg Vorbis", "mp3", "adts", "m4a AAC", "wma 2", "webm Opus", "wv")

LONG = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.long, id=name.replace(" ", "-"))
    for name in FORMATS
]


def test_ffmpeg_is_installed() -> None:
    assert ffmpeg_program()


def test_the_table_has_every_format_and_shape() -> None:
    rows = stored_rows()
    assert set(rows) == set(FORMATS)
    assert {len(cells) for cells in rows.values()} == {len(SHAPES)}
    assert not any(DIFFERS in cells for cells in rows.values())


@pytest.mark.parametrize("name", LONG)
def test_the_frames_are_those_of_ffmpeg_or_the_difference_is_told(name: str) -> None:
    found = row(name)
    silent = [(shape, said) for shape, (mark, said) in zip(SHAPES, found, strict=True) if mark == DIFFERS]
    assert not silent, "a difference without a warning, a rejection or a reason"
    cells = [mark for mark, _ in found]
    assert cells == stored_rows()[name], (
        "run `python tests/support/audio_verdicts.py` and read the difference"
    )
