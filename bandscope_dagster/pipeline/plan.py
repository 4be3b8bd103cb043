"""The plan for a song: the tables to compute, the tables to keep, and the lineage of each new file."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from bandscope_dagster import input_digests
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import CannotAnalyze, is_failure
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.songs.stored_files import StoredFile, read_usable_file
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables import schemas
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import Lineage
from bandscope_dagster.storage.tables.schemas import SONGS, STEM_INSTRUMENT_TAGS, STEMS, TABLES
from bandscope_dagster.storage.tables.song_tables import read_table

ANALYSIS_TABLES: Final = tuple(table.name for table in schemas.ANALYSIS_TABLES)
"""The names of the analysis tables, in the order in which they depend on each other."""

NO_MODEL: Final = ModelIdentity("", "")


@dataclass(frozen=True, slots=True)
class SongPlan:
    """One song's part of an ``analyze`` batch."""

    song_id: str
    song_hash: str
    upload_key: str
    duration_s: float
    compute: Mapping[str, Lineage]  # table → the lineage of its new file
    keep: Mapping[str, StoredFile]  # table → its stored file, which is current
    normalisation: Normalisation = field(default_factory=Normalisation)  # from the measurements in ``songs``
    rejected: str | None = None  # the song's error in ``songs``, the only content of its rows

    @property
    def tables(self) -> list[str]:
        """All tables of this plan, in the order in which they depend on each other."""
        return [table for table in ANALYSIS_TABLES if table in self.compute or table in self.keep]

    @property
    def needs_upload(self) -> bool:
        """True if the upload must be decoded."""
        return self.rejected is None and bool(self.compute.keys() - {STEM_INSTRUMENT_TAGS.name})

    @property
    def reads_stored_stems(self) -> bool:
        """True if the stems are read from their table and not separated in this run."""
        of_stems = self.compute.keys() & {STEMS.name, STEM_INSTRUMENT_TAGS.name}
        return self.rejected is None and of_stems == {STEM_INSTRUMENT_TAGS.name}

    @property
    def times_read(self) -> int:
        """The number of times that the song's audio is read: as its upload, as its stored stems, or both."""
        return self.needs_upload + self.reads_stored_stems


def read_song(store: ObjectStore, song_id: str) -> Mapping[str, Any]:
    """The song's row in ``songs``.

    Raises:
        CannotAnalyze: there is no row, it cannot be read, or it has a failure of ``songs`` itself.
    """
    try:
        table = read_table(store, SONGS, song_id)
    except DamagedFile as error:
        raise CannotAnalyze(f"{error}; materialize songs again") from error
    if table is None:
        raise CannotAnalyze("songs has no row for it; materialize songs first")
    row: dict[str, Any] = table.to_pylist()[0]
    if is_failure(row["error"]):
        raise CannotAnalyze(f"{row['error']} (fix the cause, then materialize songs again)")
    return row


@dataclass(frozen=True, slots=True)
class SongPlanner:
    """Makes plans with the settings and models of one run."""

    run_id: str
    flac_bits: int = 16
    separator: ModelIdentity = NO_MODEL
    tagger: ModelIdentity = NO_MODEL

    def songs_lineage(self, song_id: str, limits: Limits, song_hash: str = "") -> Lineage:
        """The lineage of a row in ``songs``."""
        params = asdict(limits)
        inputs = input_digests.of_song(song_id, params)
        return self._lineage(SONGS.name, song_id, song_hash, inputs, NO_MODEL, params)

    def plan(
        self,
        store: ObjectStore,
        song: Mapping[str, Any],
        tables: Collection[str],
        *,
        reuse: bool,
        damaged: Collection[str] = (),
    ) -> SongPlan:
        """The plan to bring ``tables`` up to date for ``song``, a row of ``songs``.

        With ``reuse``, a stored table with the same input and code version is kept, unless its file is damaged:
        its footer says so, or it is in ``damaged``.

        Raises:
            CannotAnalyze: ``tables`` contains the tags of stems, and there are no stems.
        """
        song_id: str = song["song_id"]
        song_hash: str = song["song_hash"] or ""
        error: str | None = song["error"]
        stored = {
            table: read_usable_file(store, TABLES[table], song_id)
            for table in ANALYSIS_TABLES
            if reuse and table in tables and table not in damaged
        }
        if error is not None:
            rejection = (input_digests.of_rejection(song_id, error), NO_MODEL, dict[str, Any]())
            inputs = dict.fromkeys(ANALYSIS_TABLES, rejection)
        else:
            stems = None
            if STEM_INSTRUMENT_TAGS.name in tables and STEMS.name not in tables:
                found = None if STEMS.name in damaged else read_usable_file(store, STEMS, song_id)
                if found is None or not found.lineage.model:  # without a model, the file only has a rejection
                    raise CannotAnalyze(
                        "there are no stems of this song; materialize stems with or before its tags"
                    )
                stems = found.lineage
            inputs = self._inputs(song_hash, stems)
        wanted = {
            table: self._lineage(table, song_id, song_hash, *inputs[table])
            for table in ANALYSIS_TABLES
            if table in tables
        }
        keep = {
            table: found
            for table, lineage in wanted.items()
            if (found := stored.get(table)) is not None and input_digests.is_current(found.lineage, lineage)
        }
        return SongPlan(
            song_id=song_id,
            song_hash=song_hash,
            upload_key=song["upload_key"],
            duration_s=song["duration_s"] or 0.0,
            compute={table: lineage for table, lineage in wanted.items() if table not in keep},
            keep=keep,
            normalisation=Normalisation.of_song(song["mono_mean"], song["mono_std"], song["rms_dbfs"]),
            rejected=error,
        )

    def _inputs(
        self, song_hash: str, stored_stems: Lineage | None
    ) -> dict[str, tuple[str, ModelIdentity, dict[str, Any]]]:
        """Table → input digest, model and parameters, for a usable song.

        ``stored_stems`` is given if the stored stems are tagged and no new stems are computed.
        """
        bits, separator, tagger = self.flac_bits, self.separator, self.tagger
        audio = {input_digests.FLAC_BITS: bits}
        separated = input_digests.of_stems(song_hash, bits, separator)
        tagged = separated if stored_stems is None else stored_stems.input_digest
        return {
            "decoded_waveforms": (input_digests.of_waveform(song_hash, bits), NO_MODEL, audio),
            "stems": (separated, separator, audio | separator.params),
            "instrument_tags": (input_digests.of_mixture_tags(song_hash, tagger), tagger, tagger.params),
            "stem_instrument_tags": (input_digests.of_stem_tags(tagged, tagger), tagger, tagger.params),
        }

    def _lineage(
        self,
        table: str,
        song_id: str,
        song_hash: str,
        inputs: str,
        model: ModelIdentity,
        params: dict[str, Any],
    ) -> Lineage:
        return Lineage(
            song_id=song_id,
            song_hash=song_hash,
            input_digest=inputs,
            code_version=input_digests.CODE_VERSIONS[table],
            model=model.name,
            model_sha256=model.sha256,
            params=json.dumps(params, sort_keys=True),
            run_id=self.run_id,
            created_at=datetime.now(UTC),
        )
