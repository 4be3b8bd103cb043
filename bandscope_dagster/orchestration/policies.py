"""The backfill and retry policies of every op that works song by song."""

from typing import Final

import dagster as dg

from bandscope_dagster.settings import load_settings

_SETTINGS: Final = load_settings()

BACKFILL_POLICY: Final = dg.BackfillPolicy.multi_run(max_partitions_per_run=_SETTINGS.songs_per_run)

PAGES_BACKFILL_POLICY: Final = dg.BackfillPolicy.multi_run(max_partitions_per_run=2 * _SETTINGS.songs_per_run)
"""A different policy, so that backfills give pages their own runs: a failed song then does not stop the other pages."""

RETRY_POLICY: Final = dg.RetryPolicy(
    max_retries=_SETTINGS.step_retries,
    delay=_SETTINGS.step_retry_delay_s,
    backoff=dg.Backoff.EXPONENTIAL,
    jitter=dg.Jitter.PLUS_MINUS,
)
