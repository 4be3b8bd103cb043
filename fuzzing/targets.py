"""The targets of fuzzing: the checked functions, their seeds, and the properties that hold for every input."""

import io
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch
from zlib import crc32

import numpy as np

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE
from bandscope_dagster.audio.cage.caged_song import caged
from bandscope_dagster.audio.completeness import missing_part
from bandscope_dagster.audio.flac_headers import split_frames
from bandscope_dagster.audio.foreign_tags import after_tags, audio_end, audio_start
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.mpeg import states_frame_count
from bandscope_dagster.audio.ogg import read_links
from bandscope_dagster.audio.probe import printable_line
from bandscope_dagster.audio.valid_bits import valid_bits_patch
from bandscope_dagster.errors import SettingsError, SongRejected
from bandscope_dagster.orchestration.sensors.new_uploads import Cursor
from bandscope_dagster.pipeline.uploads import UNPRINTABLE, printable
from bandscope_dagster.settings import PREFIX, Settings, load_settings
from bandscope_dagster.songs.song_ids import song_id
from bandscope_dagster.storage.objects.keys import fault_of_key
from bandscope_dagster.tagging.answers.parse import MAX_LABELS, parse_layers, parse_list
from tests.support.audio_files import ENCODERS, encode, encode_soundfile, excerpt, stempeg_song

LIMITS: Final = Limits(max_bytes=2**26, max_duration_s=60.0, max_decode_cpu_s=10, max_decode_silence_s=20.0)
SEED_S: Final = 1.5  # seconds of audio in a file; short files have more mutations outside the audio data
BEGINNING_BYTES: Final = 400
SONG_ID: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` returns the outcome for an input, and raises if a required property does not hold."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    check: Callable[[bytes], str]
    limit_s: float  # an input that takes longer is a defect
    parallel: bool = False  # True if several inputs may be checked at once


def songs() -> list[bytes]:
    """A short song in every supported format, with and without tags, and one with five streams and a picture."""
    audio = excerpt()[:, : round(SEED_S * SAMPLE_RATE)]
    tags = {"title": "Ein Stück", "artist": "A\tB", "comment": "x" * 300}
    files = [stempeg_song()[:200_000], stempeg_song()]
    for muxer, encoder, rate in ENCODERS.values():
        if "libsndfile" in encoder:
            files.append(encode_soundfile(audio, SAMPLE_RATE, format="OGG", subtype="VORBIS"))
        else:
            files += [encode(audio, muxer, encoder, rate=rate, tags=given) for given in ({}, tags)]
    return files


def check_song(data: bytes) -> str:
    """Every upload becomes a song within the limits, or is rejected with a reason."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        try:
            with caged(file, LIMITS, with_probe=True) as song:
                probe = song.probe()
                frames = 0
                for block in song.blocks():
                    assert block.dtype == np.float32 and block.shape[0] == 2
                    assert 0 < block.shape[1] <= BLOCK_FRAMES
                    frames += block.shape[1]
        except SongRejected as rejected:
            assert 0 < len(rejected.message) <= 500 and not UNPRINTABLE.search(rejected.message)
            return rejected.reason.value
        assert LIMITS.min_duration_s * SAMPLE_RATE <= frames <= LIMITS.max_duration_s * SAMPLE_RATE
        for text in (probe.title, probe.artist, probe.album, probe.genre):
            assert text is None or text == printable_line(text)
        heard = song.heard
        assert heard.bad_packets >= 0 and 0 <= heard.lost_s < LIMITS.max_duration_s
        assert heard.warning is None or heard.warning == printable_line(heard.warning)
        return "song" if heard.warning is None else "song with a warning"


def beginnings() -> list[bytes]:
    """The first bytes of each of those songs, which have the structure of their containers."""
    return [song[:BEGINNING_BYTES] for song in songs()]


def check_structure(data: bytes) -> str:
    """Every container is found to be whole, or a message says which part is missing."""
    file = io.BytesIO(data)
    assert states_frame_count(file) in (True, False)
    assert 0 <= audio_end(file) <= len(data) and audio_start(file) >= 0
    assert data.endswith(after_tags(data)) and b"".join(split_frames(data)) == data
    assert all(0 <= position <= len(data) for position in valid_bits_patch(file))
    links = read_links(file).links
    assert all(0 <= link.start < link.end <= len(data) for link in links)
    missing = missing_part(file)
    assert missing is None or (0 < len(missing.message) <= 500 and not UNPRINTABLE.search(missing.message))
    assert missing is None or 0 <= missing.share <= 1
    return "whole" if missing is None else "cut"


def check_answer(data: bytes) -> str:
    """Every answer of a language model becomes labels, or an error with the reason."""
    text = data.decode(errors="replace")
    heard = [parse_list(text), parse_layers(text)]
    for one in heard:
        assert len(one.tags) <= MAX_LABELS
        assert all(tag.label == tag.label.strip() != "" for tag in one.tags)
    return "labels" if any(one.tags for one in heard) else "no labels"


def check_name(data: bytes) -> str:
    """Every file name has a partition key of plain characters and a printable form."""
    name = f"uploads/{data.decode(errors='surrogateescape')}.wav"
    assert SONG_ID.fullmatch(song_id(name, "etag"))
    assert not UNPRINTABLE.search(printable(name))
    return "unusable" if fault_of_key(name) else "usable"


def check_tag(data: bytes) -> str:
    """Every text from a file becomes one line of printable characters, or None."""
    line = printable_line(data.decode(errors="replace"))
    if line is None:
        return "none"
    assert 0 < len(line) <= 500 and line == line.strip()
    assert not any(unicodedata.category(character)[0] == "C" for character in line)
    return "a line"


def check_cursor(data: bytes) -> str:
    """Every text that an operator sets as the cursor becomes a valid cursor."""
    return "new" if Cursor.parse(data.decode(errors="replace")) == Cursor() else "read"


def check_setting(data: bytes) -> str:
    """Every value of a variable is accepted, or refused with an error that names the variable.

    Only Python's copy of the environment is replaced. Changing the environment of the process while another library's
    thread reads a variable can crash: ``setenv`` is not thread-safe.
    """
    names = list(Settings.model_fields)
    value = data.replace(b"\0", b"")  # a variable cannot contain it
    variable = PREFIX + names[crc32(data) % len(names)].upper()
    with patch.object(os, "environ", os.environ | {variable: os.fsdecode(value)}):
        try:
            load_settings()
        except SettingsError as error:
            assert variable in str(error)
            return "refused"
    return "accepted"


TARGETS: Final = (
    Target("uploads", songs, check_song, limit_s=60.0, parallel=True),
    Target("structures", beginnings, check_structure, limit_s=1.0),
    Target(
        "answers",
        lambda: [
            b'["piano", "drums", "bass guitar"]',
            b'{"foreground": ["sitar"], "middle_ground": [], "background": ["tabla", "tanpura"]}',
            b'Final answer: [{"instrument": "piano", "confidence": 0.9}, {"name": "flute"}]',
            b"Instruments:\n- acoustic guitar\n- drums (brushes)\n1. bass\n2) voice",
            "```json\n{'乐器': ['小提琴', '鼓']}\n```".encode(),
        ],
        check_answer,
        limit_s=5.0,
    ),
    Target(
        "names",
        lambda: [
            b"My Song (live)",
            "Füße, 春の海 🎵".encode(),
            b"../../etc/passwd",
            b"\xff\xfe",
            b"a" * 300,
        ],
        check_name,
        limit_s=1.0,
    ),
    Target(
        "tags",
        lambda: ["Ein Stück\u202e\u200b".encode(), b"\x1b[31mred\n<script>", "e\u0301".encode() * 90],
        check_tag,
        limit_s=1.0,
    ),
    Target(
        "cursors",
        lambda: [b'{"last_song":"a-0123456789ab","requested":12}', b"{}", b"null", b"12"],
        check_cursor,
        limit_s=1.0,
    ),
    Target(
        "settings",
        lambda: [
            *(str(field.default).encode() for field in Settings.model_fields.values()),
            *(b"s3://bucket/folder", b"/music", b"24", b"0.5", b"1e3", b"true", b"htdemucs", b"-1"),
        ],
        check_setting,
        limit_s=2.0,
    ),
)
