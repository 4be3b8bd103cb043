"""Asset checks, recorded per song while the song is in hand."""

import warnings
from typing import Final

import dagster as dg

from bandscope_dagster.errors import has_failed
from bandscope_dagster.partitions import SONGS_PARTITIONS
from bandscope_dagster.pipeline.validation import SongChecked
from bandscope_dagster.tagging.summary import TagSummary

RESIDUAL_LIMIT_DB: Final = -20.0
"""A separation that loses or adds more than a hundredth of the mixture's energy is not to be trusted."""

UNMAPPED_LIMIT: Final = 0.1
"""From this share of unknown labels on, the vocabulary should learn them: searches by instrument miss too much."""

TAG_TABLES: Final = ("instrument_tags", "stem_instrument_tags")


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

STEMS_SUM_TO_MIXTURE: Final = _per_song_check(
    "stems_sum_to_mixture",
    "stems",
    f"The stems add up to the mixture: the residual is below {RESIDUAL_LIMIT_DB:g} dB of its energy.",
)

LABELS_ARE_MAPPED: Final = {
    table: _per_song_check(
        "labels_are_mapped",
        table,
        f"The vocabulary knows the model's labels: less than {UNMAPPED_LIMIT:.0%} of the tags are unmapped.",
    )
    for table in TAG_TABLES
}

WINDOWS_HAVE_TAGS: Final = {
    table: _per_song_check(
        "windows_have_tags", table, "Every window that is not silent was tagged; none has an error instead."
    )
    for table in TAG_TABLES
}


def song_is_usable(checked: SongChecked) -> dg.AssetCheckEvaluation:
    """The outcome for one upload: a rejection warns, a failure is an error."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("songs"),
        check_name=SONG_IS_USABLE.name,
        partition=checked.song_id,
        passed=checked.error is None,
        severity=dg.AssetCheckSeverity.ERROR if has_failed(checked.error) else dg.AssetCheckSeverity.WARN,
        description=checked.error,
    )


def stems_sum_to_mixture(song_id: str, residual_db: float) -> dg.AssetCheckEvaluation:
    """The outcome for one separated song."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("stems"),
        check_name=STEMS_SUM_TO_MIXTURE.name,
        partition=song_id,
        passed=residual_db <= RESIDUAL_LIMIT_DB,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"residual_db": residual_db},
    )


def tag_checks(song_id: str, table: str, tags: TagSummary) -> list[dg.AssetCheckEvaluation]:
    """The outcomes for one song's table of tags."""

    def evaluation(
        spec: dg.AssetCheckSpec, passed: bool, metadata: dict[str, float]
    ) -> dg.AssetCheckEvaluation:
        return dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(table),
            check_name=spec.name,
            partition=song_id,
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=metadata,
        )

    share = tags.unmapped_share
    return [
        evaluation(
            LABELS_ARE_MAPPED[table],
            share < UNMAPPED_LIMIT,
            {"unmapped_share": round(share, 4), "unmapped": tags.unmapped, "tags": tags.labels},
        ),
        evaluation(WINDOWS_HAVE_TAGS[table], tags.lost == 0, {"lost": tags.lost, "windows": tags.windows}),
    ]
