"""The sensor ``alert_on_failure``: reports every failed run through a hook that is easy to replace."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import dagster as dg
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from bandscope_dagster.orchestration.posts import check_url, post
from bandscope_dagster.orchestration.run_tags import WILL_RETRY_TAG
from bandscope_dagster.orchestration.steps import step_failures

INTERVAL_S: Final = 30
SHOWN_SONGS: Final = 20
SHOWN_CHARACTERS: Final = 1000  # of the message, and of each song's cause

# Dagster reports up to 5 runs in a tick, and a tick may take 60 s: each takes at most 3 × 3 s + 1 s + 2 s.
ATTEMPTS: Final = 3
TIMEOUT_S: Final = 3.0
WAIT_S: Final = 1.0
"""Before the second attempt; doubles each time."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A run that failed."""

    run_id: str
    job: str
    message: str  # the cause, for people; at most SHOWN_CHARACTERS
    failed_songs: Mapping[str, str]  # song id → cause; SHOWN_SONGS at most
    failed_songs_total: int  # 0 if the run itself failed, not its songs
    will_retry: bool  # Dagster starts the run again
    link: str  # the run in the UI

    @property
    def text(self) -> str:
        """The alert in a sentence or two, for chats."""
        again = " Dagster starts it again." if self.will_retry else ""
        return f"Bandscope: run {self.run_id[:8]} ({self.job}) failed: {self.message}{again} {self.link}"


Hook = Callable[[Alert], None]
"""Called once for each failed run, in a sensor's tick. An exception fails the tick, and nothing else."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Posts alerts as JSON: the fields of ``Alert``, and its ``text``, which Slack and Mattermost show."""

    url: str  # often a secret
    attempts: int = ATTEMPTS
    timeout_s: float = TIMEOUT_S
    wait_s: float = WAIT_S

    def __post_init__(self) -> None:
        check_url(self.url, "BANDSCOPE_ALERT_WEBHOOK")

    def __call__(self, alert: Alert) -> None:
        """Post the alert, in a few attempts.

        Raises:
            OSError: each time the server could not be reached, or answered with an error.
        """
        body = json.dumps(asdict(alert) | {"text": alert.text}).encode()
        attempt = retry(
            retry=retry_if_exception_type(OSError),  # the base of urllib's and the socket's errors
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.wait_s),
            reraise=True,
        )
        attempt(post)(self.url, body, {}, self.timeout_s)


def failure_sensor(hook: Hook | None, ui_url: str, *, every_s: int = INTERVAL_S) -> dg.SensorDefinition:
    """The sensor that calls ``hook`` for every failed run of any job; without a hook it only logs.

    ``ui_url`` is the address of the UI, which Dagster itself does not know.
    """

    @dg.run_failure_sensor(
        name="alert_on_failure",
        minimum_interval_seconds=every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports every failed run once: to its log, and to the webhook of the settings if there is one.",
    )
    def alert_on_failure(context: dg.RunFailureSensorContext) -> None:
        alert = describe(context, ui_url)
        context.log.error(alert.text)
        if hook is not None:
            hook(alert)

    return alert_on_failure


def describe(context: dg.RunFailureSensorContext, ui_url: str) -> Alert:
    """The alert for a failed run."""
    run = context.dagster_run
    failures = step_failures(context.instance, run.run_id)
    failed = failures.songs
    message = "\n".join(failures.messages) or context.failure_event.message or "no message"
    return Alert(
        run_id=run.run_id,
        job=run.job_name,
        message=message[:SHOWN_CHARACTERS],
        failed_songs={song: failed[song][:SHOWN_CHARACTERS] for song in list(failed)[:SHOWN_SONGS]},
        failed_songs_total=len(failed),
        will_retry=run.tags.get(WILL_RETRY_TAG) == "true",
        link=f"{ui_url.rstrip('/')}/runs/{run.run_id}",
    )
