"""Asset checks of each processed song, by the rules of ``songs.checks``."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import dagster as dg

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS
from bandscope_dagster.orchestration.private_api import AssetCheckEvaluationTargetMaterializationData
from bandscope_dagster.pipeline.outcomes import SongAnalyzed
from bandscope_dagster.separation.quality import RESIDUAL_LIMIT_DB, SeparationQuality
from bandscope_dagster.songs import checks
from bandscope_dagster.songs.checks import CLIPPED_LIMIT
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, TAGS_NOTE
from bandscope_dagster.storage.tables.schemas import ANALYSIS_TABLES, STEMS
from bandscope_dagster.tagging.summary import UNMAPPED_LIMIT, TagSummary

if TYPE_CHECKING:  # it loads decoders, which no definition needs
    from bandscope_dagster.pipeline.validate import SongChecked

T = TypeVar("T")

AUDIO: Final = tuple(table.name for table in ANALYSIS_TABLES if table.kind == "audio")
TAGS: Final = tuple(table.name for table in ANALYSIS_TABLES if table.kind == "tags")


def _per_song_check(name: str, asset: str, description: str) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        # Checks with partitions are in preview in Dagster 1.13; pyproject.toml pins that version for this reason.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=asset, description=description, partitions_def=SONGS_PARTITIONS)


SONG_IS_USABLE: Final = _per_song_check(
    "song_is_usable",
    "songs",
    "The upload is complete audio within the limits. A rejected upload is a warning, not a failure.",
)

SONG_IS_UNDAMAGED: Final = _per_song_check(
    "song_is_undamaged",
    "songs",
    "The song is all the audio of its upload: no damaged packet, no doubtful end, no guessed channels.",
)

SONG_IS_NOT_CLIPPED: Final = _per_song_check(
    "song_is_not_clipped",
    "songs",
    f"Less than {CLIPPED_LIMIT:.1%} of the samples are at or beyond full scale.",
)

BLOCKS_ARE_WHOLE: Final = {
    table: _per_song_check(
        "blocks_are_whole",
        table,
        "The file, read back from the store, has the table's columns and one row group for each block of 10 s."
        " The blocks have no gaps and finite levels, and together are as long as the song.",
    )
    for table in AUDIO
}

STEMS_SUM_TO_MIXTURE: Final = _per_song_check(
    "stems_sum_to_mixture",
    "stems",
    f"The stems add up to the mixture: the residual is at most {RESIDUAL_LIMIT_DB:g} dB of its energy.",
)

TAGS_ARE_COMPLETE: Final = {
    table: _per_song_check(
        "tags_are_complete",
        table,
        "Every window that is not silent has tags, and the vocabulary knows the model's labels: less than"
        f" {UNMAPPED_LIMIT:.0%} of the tags are unmapped.",
    )
    for table in TAGS
}

SONG_CHECKS: Final = [SONG_IS_USABLE, SONG_IS_UNDAMAGED, SONG_IS_NOT_CLIPPED]

ANALYSIS_CHECKS: Final[Mapping[str, list[dg.AssetCheckSpec]]] = {
    table.name: [
        *([BLOCKS_ARE_WHOLE[table.name]] if table.name in AUDIO else []),
        *([STEMS_SUM_TO_MIXTURE] if table is STEMS else []),
        *([TAGS_ARE_COMPLETE[table.name]] if table.name in TAGS else []),
    ]
    for table in ANALYSIS_TABLES
}
"""Table → the checks of its songs."""


def song_checks(
    checked: "SongChecked", target: dg.EventLogRecord | None
) -> Iterator[dg.AssetCheckEvaluation]:
    """The results for one upload, whose materialization is ``target``."""
    yield _evaluation(SONG_IS_USABLE, checked.song_id, target, checks.song_is_usable(checked.error))
    if checked.error is not None:
        for spec in (SONG_IS_UNDAMAGED, SONG_IS_NOT_CLIPPED):
            yield _evaluation(spec, checked.song_id, target, _nothing_to_check(checked.error))
        return
    if checked.row["bad_packets"] is not None:  # null if it was checked before damage was looked for
        check = checks.song_is_undamaged(checked.row["warning"])
        metadata = {"bad_packets": checked.row["bad_packets"], "lost_s": checked.row["lost_s"]}
        yield _evaluation(SONG_IS_UNDAMAGED, checked.song_id, target, check, metadata)
    if checked.clipped_share is not None:
        share = checked.clipped_share
        check = checks.song_is_not_clipped(share)
        metadata = {"clipped_share": round(share, 6)}
        yield _evaluation(SONG_IS_NOT_CLIPPED, checked.song_id, target, check, metadata)


def analysis_checks(
    outcome: SongAnalyzed, table: str, target: dg.EventLogRecord | None
) -> Iterator[dg.AssetCheckEvaluation]:
    """The results for one table of a song, whose materialization is ``target``, also if the stored file was kept.

    A check of a kept file has no result if its number was not measured when the file was written.
    """
    song, rejected = outcome.plan.song_id, outcome.plan.rejected
    if rejected is not None:
        for spec in ANALYSIS_CHECKS[table]:
            yield _evaluation(spec, song, target, _nothing_to_check(rejected))
        return
    if table in BLOCKS_ARE_WHOLE:
        check = checks.blocks_are_whole(_faults(outcome, table))
        yield _evaluation(BLOCKS_ARE_WHOLE[table], song, target, check)
    if table == STEMS.name:
        quality = outcome.quality or _noted(outcome, table, QUALITY_NOTE, SeparationQuality.from_json)
        if quality is not None:
            check, residual_db = checks.stems_sum_to_mixture(quality), quality.residual_db
            metadata = {} if residual_db is None else {"residual_db": residual_db}
            yield _evaluation(STEMS_SUM_TO_MIXTURE, song, target, check, metadata)
    if table in TAGS_ARE_COMPLETE:
        tags = outcome.tags.get(table) or _noted(outcome, table, TAGS_NOTE, TagSummary.from_json)
        if tags is not None:
            check = checks.tags_are_complete(tags.windows, tags.lost, tags.labels, tags.unmapped)
            metadata = {
                "windows": tags.windows,
                "windows_lost": tags.lost,
                "tags": tags.labels,
                "unmapped_share": round(tags.unmapped_share, 4),
            }
            yield _evaluation(TAGS_ARE_COMPLETE[table], song, target, check, metadata)


def _faults(outcome: SongAnalyzed, table: str) -> list[str]:
    """The faults of the song's file in an audio table; empty for a correct file."""
    found = outcome.read_back[table] if table in outcome.read_back else outcome.plan.keep[table]
    if isinstance(found, Exception):
        return [f"the file could not be read back: {found}"]
    faults = list(found.faults)
    frames = round(outcome.plan.duration_s * SAMPLE_RATE)
    if found.frames != frames:
        faults.append(f"its blocks hold {found.frames:,} frames, and the song {frames:,}")
    return faults


def _noted(outcome: SongAnalyzed, table: str, name: str, read: Callable[[str], T]) -> T | None:
    """The measurement in a note of a kept file; None if the file has no such note."""
    kept = outcome.plan.keep.get(table)
    note = kept.notes.get(name) if kept is not None else None
    return None if note is None else read(note)


def _nothing_to_check(error: str) -> checks.Check:
    """A passed result: the UI would show a check without a result as failed, and ``song_is_usable`` has the error."""
    return checks.Check(checks.Outcome.PASSED, (f"nothing to check: {error}",))


def _evaluation(
    spec: dg.AssetCheckSpec,
    song: str,
    target: dg.EventLogRecord | None,
    check: checks.Check,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckEvaluation:
    failed = check.outcome is checks.Outcome.FAILED
    made = target and AssetCheckEvaluationTargetMaterializationData(
        storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp
    )
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        partition=song,
        passed=check.passed,
        severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        description=check.description,
        metadata=metadata,
        target_materialization_data=made,
    )
