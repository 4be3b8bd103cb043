"""What becomes of a song in ``analyze``: its tables are stored, or it failed."""

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
    """A song whose tables are all stored, or were already."""

    plan: SongPlan
    written: Mapping[str, Written]  # of the tables that were computed
    seconds: float  # from the song's first block to its last stored file
    quality: SeparationQuality | None = None  # where the song was separated
    used: CallLimits | None = None  # likewise
    tags: Mapping[str, TagSummary] = field(
        default_factory=dict[str, TagSummary]
    )  # of the tag tables that were computed
    load_seconds: Mapping[str, float] = field(
        default_factory=dict[str, float]
    )  # table → of its model, once a batch
    read_back: Mapping[str, StoredFile | Exception] = field(
        default_factory=dict[str, StoredFile | Exception]
    )  # audio tables that were computed, as the store gave them back; or why it did not
    picture: str | None = None  # SVG: the song's sources and instruments over time


@dataclass(frozen=True, slots=True)
class SongFailed:
    """A song of which nothing more is to be had in this attempt."""

    song_id: str
    error: Exception
