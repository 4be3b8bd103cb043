"""The songs that a run has to do: those that Dagster's records call unfinished, and those that the store lacks.

The one rule for ``bandscope run``, ``bandscope retry`` and the job ``retry_songs``.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import dagster as dg
import polars as pl

from bandscope_dagster.errors import LASTING
from bandscope_dagster.orchestration.partitions import song_states
from bandscope_dagster.pipeline.uploads import Listing
from bandscope_dagster.songs.lacking import Lacking, find_lacking
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, SONGS, STEM_INSTRUMENT_TAGS
from bandscope_dagster.storage.tables.song_files import SongFiles


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Songs by what is to be done with them."""

    songs: set[str]  # to compute, if no other run does
    recorded: set[str]  # of Dagster's records: not materialized in every asset
    in_progress: set[str]  # likewise: in a queued or running run
    lacking: Lacking  # what the store lacks, of any song
    without_upload: set[str]  # songs that cannot be computed: their upload is gone, and the assets need it
    given_up: set[str]  # songs that the last run rejected in the analysis

    @property
    def cannot_complete(self) -> set[str]:
        """The songs that lack something and cannot be computed."""
        return self.without_upload & self.lacking.songs

    @property
    def never_read(self) -> set[str]:
        """The songs whose upload was removed before the first run."""
        return {song for song in self.cannot_complete if SONGS.name in self.lacking.missing.get(song, ())}

    @property
    def left_out(self) -> set[str]:
        """Songs that a run must not contain, although others between which they are do.

        A song without upload is never passed over: if its results do not fit the settings, the run would replace
        good rows by "unavailable".
        """
        return self.without_upload | self.given_up


def find_unfinished(
    instance: dg.DagsterInstance,
    files: SongFiles,
    listing: Listing,
    songs: Sequence[str],
    assets: Collection[str],
) -> Unfinished:
    """The state of ``songs`` in ``assets``. ``files`` lists the tables, and ``listing`` the uploads."""
    states = song_states(instance, songs, assets)
    lacking = find_lacking(files, songs, assets)
    from_stems = {STEM_INSTRUMENT_TAGS.name}  # the only table that needs no upload
    gone = set(songs).difference(listing.by_song) if set(assets) != from_stems else set[str]()
    without_upload = {song for song in gone if lacking.tables_of(song) != from_stems}
    wanted = (states.unfinished | lacking.songs) - (without_upload & lacking.songs)
    given_up = _rejected_in_analysis(files, wanted, assets)
    return Unfinished(
        wanted - given_up, states.unfinished, states.in_progress, lacking, without_upload, given_up
    )


def _rejected_in_analysis(files: SongFiles, songs: Collection[str], assets: Collection[str]) -> set[str]:
    """The ``songs`` whose last failures in ``assets`` are all permanent: a reason to reject an upload."""
    failed = files.of(pl.Series(sorted(songs), dtype=pl.String))
    rows = failed.read(SONG_FAILURES, lambda rows: rows.select("song_id", "table", "reason"))
    rows = rows.filter(pl.col("table").is_in(list(assets)))
    permanent = pl.col("reason").is_in(list(LASTING))
    return set(rows.group_by("song_id").agg(permanent.all()).filter("reason")["song_id"])
