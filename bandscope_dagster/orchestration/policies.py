"""The backfill and retry policies of every op that works song by song."""

from typing import Final

import dagster as dg

from bandscope_dagster.settings import load_settings

_SETTINGS: Final = load_settings()

BACKFILL_POLICY: Final = dg.BackfillPolicy.multi_run(max_partitions_per_run=_SETTINGS.songs_per_run)

PAGES_BACKFILL_POLICY: Final = dg.BackfillPolicy.multi_run(max_partitions_per_run=2 * _SETTINGS.songs_per_run)
"""A different policy, so that Dagster gives pages their own runs, after those that compute their tables.

In one run with them, pages would be skipped: to Dagster a step that reports its songs one by one has no outputs.
"""

RETRY_POLICY: Final = dg.RetryPolicy(
    max_retries=_SETTINGS.step_retries,
    delay=_SETTINGS.step_retry_delay_s,
    backoff=dg.Backoff.EXPONENTIAL,
    jitter=dg.Jitter.PLUS_MINUS,
)
