"""Reads a stored file to its end, and says what is damaged in it: more than listings and footers show."""

from typing import Any

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.flac import is_intact
from bandscope_dagster.songs.stored_files import read_stored_file
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.schemas import Table
from bandscope_dagster.storage.tables.song_tables import read_table


def damage_inside(store: ObjectStore, table: Table, song_id: str, duration_s: float | None) -> str | None:
    """The reason why the song's file cannot be used, after reading all of it; None if it can, or there is none.

    ``duration_s`` is the song's, if it is known: the blocks of an audio table must be as long.

    Raises:
        OSError: the store did not return the file.
    """
    try:
        found = read_stored_file(store, table, song_id)
        if found is None:
            return None
        if found.faults:
            return "; ".join(found.faults)
        if table.kind != "audio":
            read_table(store, table, song_id)
            return None
        frames = None if duration_s is None else round(duration_s * SAMPLE_RATE)
        if found.frames is not None and frames not in (None, found.frames):
            return f"its blocks have {found.frames:,} frames, and the song has {frames:,}"
    except DamagedFile as error:
        return str(error)
    return _damage_of_audio(store, table, song_id)


def _damage_of_audio(store: ObjectStore, table: Table, song_id: str) -> str | None:
    number = 0
    try:
        for number, rows in enumerate(read_blocks(store, table, song_id)):
            for row in rows:
                audio: dict[str, Any] | None = row["audio"]
                if audio is not None and not is_intact(audio["bytes"]):
                    return f"the audio of its block {number} is damaged"
    except DamagedFile as error:
        return f"its rows cannot be read from block {number} on ({error})"
    return None
