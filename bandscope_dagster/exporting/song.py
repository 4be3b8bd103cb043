"""The metadata of a song for an export, read before any audio."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bandscope_dagster.errors import BandscopeError, CannotAnalyze
from bandscope_dagster.exporting.gain import Gain
from bandscope_dagster.exporting.names import plain_text, song_name
from bandscope_dagster.songs.status import SOURCES, Evidence, Status, read_evidence
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, SONGS, STEMS, Table
from bandscope_dagster.storage.tables.song_files import files_of
from bandscope_dagster.storage.tables.song_tables import read_table


class ExportError(BandscopeError):
    """The song cannot be exported; the message says why."""


class RejectedSong(ExportError):
    """The song was rejected: it has no stems, and never will; the message says why."""


@dataclass(frozen=True, slots=True)
class Song:
    """The metadata of one song and its stems."""

    song_id: str
    name: str  # of the folder
    title: str
    artist: str | None
    album: str | None
    frames: int
    peak: float  # the largest absolute sample of the mixture and of all stems
    loudness_lufs: float | None  # of the mixture
    stems: tuple[str, ...]
    separator: str
    stems_lineage: tuple[str, ...]  # differs if the stems do
    mixture_lineage: tuple[str, ...]

    @property
    def stored_bits(self) -> int:
        """Bits per stored sample of the stems."""
        return int(json.loads(self.stems_lineage[-1]).get("flac_bits", 16)) if self.stems_lineage else 16

    def tags(self, source: str, gain: Gain) -> dict[str, str]:
        """The tags for the file of a stem or the mixture, with FFmpeg's names."""
        made = f"{source} of {self.song_id}" + (
            f", separated by {self.separator}" if source in self.stems else ""
        )
        tags = {
            "title": f"{self.title} ({source})",
            "artist": self.artist,
            "album": self.album,
            "stem": source,  # WAV has no such tag
            "comment": f"{made}, gain {gain.db:+.2f} dB",
        }
        return {name: plain_text(text) for name, text in tags.items() if text}


def read_song(store: ObjectStore, song_id: str) -> Song:
    """Read the metadata of a song.

    Raises:
        CannotAnalyze: the song has no stems yet.
        ExportError: the song has no stems because it was rejected or failed; the message gives the reason.
    """
    evidence = read_evidence(files_of(store, song_id, SOURCES))[song_id]
    if STEMS.name in evidence.tables_without_result:
        raise _has_no_stems(song_id, evidence)
    columns = ["filename", "title", "artist", "album", "peak", "loudness_lufs"]
    row, *_ = _rows(store, SONGS, song_id, columns)
    blocks = _rows(store, STEMS, song_id, ["stem", "model", "block", "frames", "peak"])
    stems = sorted({block["stem"] for block in blocks})
    title = row["title"] or PurePosixPath(row["filename"] or "").stem
    return Song(
        song_id=song_id,
        name=song_name(row["artist"], title, song_id),
        title=title or song_id,
        artist=row["artist"],
        album=row["album"],
        frames=sum(block["frames"] for block in blocks if block["stem"] == stems[0]),
        peak=max(row["peak"] or 0.0, *(block["peak"] for block in blocks)),
        loudness_lufs=row["loudness_lufs"],
        stems=tuple(stems),
        separator=blocks[0]["model"],
        stems_lineage=_made_from(store, STEMS, song_id),
        mixture_lineage=_made_from(store, DECODED_WAVEFORMS, song_id),
    )


def _has_no_stems(song_id: str, evidence: Evidence) -> BandscopeError:
    """The error for a song without stems, with the reason of its status."""
    cause = next((each.error for each in evidence.problems if each.table in (SONGS.name, STEMS.name)), None)
    if cause is None:
        return CannotAnalyze(f"{song_id} has no stems: materialize stems for it first")
    kind = RejectedSong if evidence.status is Status.REJECTED else ExportError
    return kind(f"{song_id} has no stems ({evidence.status}): {cause}")


def _rows(store: ObjectStore, table: Table, song_id: str, columns: list[str]) -> list[dict[str, Any]]:
    found = read_table(store, table, song_id, columns)
    if found is None:
        raise CannotAnalyze(f"{song_id} has no {table.name}: materialize {table.name} for it first")
    return found.to_pylist()


def _made_from(store: ObjectStore, table: Table, song_id: str) -> tuple[str, ...]:
    made = read_lineage(store, table, song_id)
    if made is None:
        return ()
    return (made.song_hash, made.input_digest, made.code_version, made.model, made.model_sha256, made.params)
