"""Asset checks, recorded per song while the song is in hand: errors are broken promises, warnings are data."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import dagster as dg

# Without it the UI takes a check of a song for one of an earlier materialization; Dagster 1.13 has no public name.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.errors import has_failed
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS
from bandscope_dagster.pipeline.outcomes import SongAnalyzed
from bandscope_dagster.pipeline.validate import SongChecked
from bandscope_dagster.separation.quality import RESIDUAL_LIMIT_DB, SeparationQuality
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, TAGS_NOTE
from bandscope_dagster.tagging.summary import UNMAPPED_LIMIT, TagSummary

T = TypeVar("T")

CLIPPED_LIMIT: Final = 0.001
"""From this share of samples at full scale on (44 in a second), what was cut off is missing from levels and stems."""

AUDIO: Final = ("decoded_waveforms", "stems")
TAGS: Final = ("instrument_tags", "stem_instrument_tags")


def _per_song_check(name: str, asset: str, description: str) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        # Checks with partitions are in preview in Dagster 1.13, which pyproject.toml therefore pins.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=asset, description=description, partitions_def=SONGS_PARTITIONS)


SONG_IS_USABLE: Final = _per_song_check(
    "song_is_usable",
    "songs",
    "The upload is a whole piece of audio within the limits. A rejected one is a warning: it is data.",
)

SONG_IS_NOT_CLIPPED: Final = _per_song_check(
    "song_is_not_clipped",
    "songs",
    f"Less than {CLIPPED_LIMIT:.1%} of the samples lie at or beyond full scale.",
)

BLOCKS_ARE_WHOLE: Final = {
    table: _per_song_check(
        "blocks_are_whole",
        table,
        "Read back from the store, the file has the table's columns, and one row group for each block of 10 s:"
        " without gaps, together as long as the song, with finite levels.",
    )
    for table in AUDIO
}

STEMS_SUM_TO_MIXTURE: Final = _per_song_check(
    "stems_sum_to_mixture",
    "stems",
    f"The stems add up to the mixture: the residual is below {RESIDUAL_LIMIT_DB:g} dB of its energy.",
)

TAGS_ARE_COMPLETE: Final = {
    table: _per_song_check(
        "tags_are_complete",
        table,
        "Every window that is not silent was tagged, none has an error instead; and the vocabulary knows the model's"
        f" labels: less than {UNMAPPED_LIMIT:.0%} of the tags are unmapped.",
    )
    for table in TAGS
}

SONG_CHECKS: Final = [SONG_IS_USABLE, SONG_IS_NOT_CLIPPED]

ANALYSIS_CHECKS: Final[Mapping[str, list[dg.AssetCheckSpec]]] = {
    "decoded_waveforms": [BLOCKS_ARE_WHOLE["decoded_waveforms"]],
    "stems": [BLOCKS_ARE_WHOLE["stems"], STEMS_SUM_TO_MIXTURE],
    **{table: [TAGS_ARE_COMPLETE[table]] for table in TAGS},
}
"""Table → the checks of its songs."""


def song_checks(checked: SongChecked, target: dg.EventLogRecord | None) -> Iterator[dg.AssetCheckEvaluation]:
    """The outcomes for one upload, whose materialization is ``target``: a rejection warns, a failure is an error."""
    failed = has_failed(checked.error)
    yield _evaluation(
        SONG_IS_USABLE,
        checked.song_id,
        target,
        passed=checked.error is None,
        severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        description=checked.error,
    )
    if checked.error is not None:
        yield _nothing_to_check(SONG_IS_NOT_CLIPPED, checked.song_id, target, checked.error)
    elif checked.clipped_share is not None:
        share = checked.clipped_share
        yield _evaluation(
            SONG_IS_NOT_CLIPPED,
            checked.song_id,
            target,
            passed=share < CLIPPED_LIMIT,
            metadata={"clipped_share": round(share, 6)},
        )


def analysis_checks(
    outcome: SongAnalyzed, table: str, target: dg.EventLogRecord | None
) -> Iterator[dg.AssetCheckEvaluation]:
    """The outcomes for one table of a song, whose materialization is ``target``, also where the stored file was kept.

    What was not measured when a kept file was written gives none.
    """
    song, rejected = outcome.plan.song_id, outcome.plan.rejected
    if rejected is not None:
        for spec in ANALYSIS_CHECKS[table]:
            yield _nothing_to_check(spec, song, target, rejected)
        return
    if table in AUDIO:
        faults = _faults(outcome, table)
        yield _evaluation(
            BLOCKS_ARE_WHOLE[table],
            song,
            target,
            passed=not faults,
            severity=dg.AssetCheckSeverity.ERROR,
            description="; ".join(faults) or None,
        )
    if table == "stems":
        quality = outcome.quality or _noted(outcome, table, QUALITY_NOTE, SeparationQuality.from_json)
        if quality is not None:
            yield _evaluation(
                STEMS_SUM_TO_MIXTURE,
                song,
                target,
                passed=quality.residual_db <= RESIDUAL_LIMIT_DB,
                metadata={"residual_db": quality.residual_db},
            )
    if table in TAGS:
        tags = outcome.tags.get(table) or _noted(outcome, table, TAGS_NOTE, TagSummary.from_json)
        if tags is not None:
            yield _tags_are_complete(song, table, tags, target)


def _tags_are_complete(
    song: str, table: str, tags: TagSummary, target: dg.EventLogRecord | None
) -> dg.AssetCheckEvaluation:
    share = tags.unmapped_share
    wrong: list[str] = []
    if tags.lost:
        wrong.append(f"{tags.lost} of {tags.windows} windows have an error instead of tags")
    if share >= UNMAPPED_LIMIT:
        wrong.append(f"the vocabulary does not know {tags.unmapped} of {tags.labels} labels")
    return _evaluation(
        TAGS_ARE_COMPLETE[table],
        song,
        target,
        passed=not wrong,
        description="; ".join(wrong) or None,
        metadata={
            "windows": tags.windows,
            "windows_lost": tags.lost,
            "tags": tags.labels,
            "unmapped_share": round(share, 4),
        },
    )


def _faults(outcome: SongAnalyzed, table: str) -> list[str]:
    """The promises that the song's file in an audio table does not keep."""
    found = outcome.read_back[table] if table in outcome.read_back else outcome.plan.keep[table]
    if isinstance(found, Exception):
        return [f"the file could not be read back: {found}"]
    faults = list(found.faults)
    frames = round(outcome.plan.duration_s * SAMPLE_RATE)
    if found.frames != frames:
        faults.append(f"its blocks hold {found.frames:,} frames, and the song {frames:,}")
    return faults


def _noted(outcome: SongAnalyzed, table: str, name: str, read: Callable[[str], T]) -> T | None:
    """What was measured when a kept file was written."""
    kept = outcome.plan.keep.get(table)
    note = kept.notes.get(name) if kept is not None else None
    return None if note is None else read(note)


def _nothing_to_check(
    spec: dg.AssetCheckSpec, song: str, target: dg.EventLogRecord | None, error: str
) -> dg.AssetCheckEvaluation:
    """What ``song_is_usable`` has said is not said again; without an outcome the UI would show the check as failed."""
    return _evaluation(spec, song, target, passed=True, description=f"nothing to check: {error}")


def _evaluation(
    spec: dg.AssetCheckSpec,
    song: str,
    target: dg.EventLogRecord | None,
    *,
    passed: bool,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        partition=song,
        passed=passed,
        severity=severity,
        description=description,
        metadata=metadata,
        target_materialization_data=None
        if target is None
        else Target(storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp),
    )
