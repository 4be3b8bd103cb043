"""The outcomes of a song in ``analyze``: all its tables are stored, or it failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bandscope_dagster.pipeline.plan import SongPlan
from bandscope_dagster.separation.out_of_memory import CallLimits
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.songs.stored_files import StoredFile
from bandscope_dagster.storage.tables.song_tables import Written
from bandscope_dagster.tagging.summary import TagSummary


@dataclass(frozen=True, slots=True)
class SongAnalyzed:
    """A song with all its tables stored, in this run or before."""

    plan: SongPlan
    written: Mapping[str, Written]  # tables computed in this run
    seconds: float  # from the first block of the song to its last stored file
    quality: SeparationQuality | None = None  # None if the song was not separated
    used: CallLimits | None = None  # likewise
    tags: Mapping[str, TagSummary] = field(default_factory=dict[str, TagSummary])  # tag tables of this run
    load_seconds: Mapping[str, float] = field(default_factory=dict[str, float])  # table → to load its model
    read_back: Mapping[str, StoredFile | Exception] = field(default_factory=dict[str, StoredFile | Exception])
    """Audio tables of this run as the store returned them, or the error of reading them."""
    picture: str | None = None  # SVG: sources and instruments over time


@dataclass(frozen=True, slots=True)
class SongFailed:
    """A song that failed in this run."""

    song_id: str
    error: Exception
