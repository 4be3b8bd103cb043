"""Every failed run causes exactly one alert, also if some alerts cannot be sent."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from instances import new_instance
from platforms import Platform, local_settings, song_bytes

from bandscope_dagster.errors import SettingsError, UploadGone, UploadUnavailable
from bandscope_dagster.orchestration.sensors.alert_on_failure import (
    SHOWN_CHARACTERS,
    SHOWN_SONGS,
    Alert,
    Hook,
    Webhook,
    describe,
    failure_sensor,
)
from bandscope_dagster.orchestration.steps import raise_failures
from bandscope_dagster.pipeline.outcomes import SongFailed

UI = "http://songs.example/"
ALERT = Alert(
    "0123456789abcdef", "process_songs", "out of disk", {"a-1": "no space"}, 1, False, f"{UI}runs/0"
)


class Receiver(HTTPServer):
    """A real web server that keeps the posted data and answers with the given statuses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: list[int] = []  # HTTP status of the next answers; 200 if none is left
        self.posted: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        assert self.headers["Content-Type"] == "application/json"
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Location:
    """Dagster's records of failed runs, and the sensor over them."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self._cursor: str | None = None

    def run(self, failure: Exception, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
        """A run whose one step raises."""

        @dg.op
        def step() -> None:
            raise failure

        @dg.job(tags=tags)
        def work() -> None:
            step()

        return work.execute_in_process(instance=self.instance, raise_on_error=False)

    def tick(self, hook: Hook | None) -> list[Any]:
        """The results of the sensor's next tick for the daemon, one per failed run."""
        context = dg.build_sensor_context(
            self.instance, cursor=self._cursor, repository_def=dg.Definitions().get_repository_def()
        )
        data = failure_sensor(hook, UI).evaluate_tick(context)
        self._cursor = data.cursor
        return list(data.dagster_run_reactions or [])

    def alert(self, result: dg.ExecuteInProcessResult) -> Alert:
        """The alert about a run."""
        event = next(e for e in result.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE)
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        context = dg.build_run_status_sensor_context("alert_on_failure", event, self.instance, run)
        return describe(context.for_run_failure(), UI)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with new_instance() as instance:
        yield instance


@pytest.fixture
def location(instance: dg.DagsterInstance) -> Location:
    return Location(instance)


def test_an_alert_names_the_failed_songs_and_links_to_the_run(location: Location, tmp_path: Path) -> None:
    platform = Platform(local_settings(tmp_path), location.instance)
    ids = platform.upload({"good.wav": song_bytes(1, 0.6), "gone.wav": song_bytes(2, 0.6)})
    (tmp_path / "uploads" / "gone.wav").unlink()
    result = platform.materialize(["songs", "decoded_waveforms"])
    alert = location.alert(result)
    assert list(alert.failed_songs) == [ids["gone.wav"]] and alert.failed_songs_total == 1
    assert "unavailable" in alert.failed_songs[ids["gone.wav"]]
    assert alert.message.startswith("1 of 2 songs failed; the others are done.")
    assert alert.link == f"http://songs.example/runs/{result.run_id}"
    assert alert.link in alert.text and "1 of 2 songs" in alert.text


def test_an_alert_stays_short_if_many_songs_failed(location: Location) -> None:
    failed = [SongFailed(f"song-{number}", RuntimeError("x" * 5000)) for number in range(500)]
    with pytest.raises(dg.Failure) as raised:
        raise_failures(failed, 500)
    alert = location.alert(location.run(raised.value))
    assert alert.failed_songs_total == 500 and len(alert.failed_songs) == SHOWN_SONGS
    assert max(len(text) for text in [alert.message, *alert.failed_songs.values()]) == SHOWN_CHARACTERS


def test_a_step_is_not_retried_for_songs_whose_upload_is_gone() -> None:
    gone = SongFailed("gone", UploadGone("the upload is no longer in the store"))
    with pytest.raises(dg.Failure) as raised:
        raise_failures([gone], 2)
    assert raised.value.allow_retries is False
    assert "gone: unavailable: the upload is no longer" in (raised.value.description or "")
    with pytest.raises(dg.Failure) as raised:
        raise_failures([gone, SongFailed("late", UploadUnavailable("the storage is slow"))], 2)
    assert raised.value.allow_retries is True


def test_an_alert_of_a_run_that_failed_for_another_reason_has_its_message(location: Location) -> None:
    alert = location.alert(location.run(OSError("no space left")))
    assert alert.message == "OSError: no space left"
    assert alert.failed_songs == {} and alert.failed_songs_total == 0 and not alert.will_retry


def test_an_alert_says_that_dagster_starts_the_run_again(location: Location) -> None:
    retried = {"dagster/max_retries": "1", "dagster/retry_on_asset_or_op_failure": "true"}
    alert = location.alert(location.run(OSError("killed"), tags=retried))
    assert alert.will_retry and "starts it again" in alert.text


def test_every_failed_run_is_reported_once_and_no_run_from_before(location: Location) -> None:
    alerts: list[Alert] = []
    location.run(OSError("before"))
    assert location.tick(alerts.append) == [] and alerts == []
    location.run(OSError("one"))
    location.run(OSError("two"))
    assert [reaction.error for reaction in location.tick(alerts.append)] == [None, None]
    assert [alert.message for alert in alerts] == ["OSError: one", "OSError: two"]
    location.tick(alerts.append)
    assert len(alerts) == 2


def test_a_failing_hook_fails_its_tick_and_the_next_run_is_still_reported(location: Location) -> None:
    alerts: list[Alert] = []

    def hook(alert: Alert) -> None:
        alerts.append(alert)
        if len(alerts) == 1:
            raise ConnectionRefusedError("no listener")

    location.tick(hook)
    location.run(OSError("one"))
    location.run(OSError("two"))
    first, second = location.tick(hook)
    assert "no listener" in str(first.error) and second.error is None
    assert len(alerts) == 2
    location.tick(hook)
    assert len(alerts) == 2


def test_without_a_hook_a_failed_run_is_only_logged(location: Location) -> None:
    location.tick(None)
    location.run(OSError("one"))
    assert [reaction.error for reaction in location.tick(None)] == [None]


def test_a_webhook_receives_the_alert_as_json(receiver: Receiver) -> None:
    Webhook(receiver.url)(ALERT)
    (posted,) = receiver.posted
    assert posted == {
        "run_id": "0123456789abcdef",
        "job": "process_songs",
        "message": "out of disk",
        "failed_songs": {"a-1": "no space"},
        "failed_songs_total": 1,
        "will_retry": False,
        "link": "http://songs.example/runs/0",
        "text": "Bandscope: run 01234567 (process_songs) failed: out of disk http://songs.example/runs/0",
    }


def test_a_webhook_is_retried_if_its_server_fails(receiver: Receiver) -> None:
    receiver.answers = [503, 500]
    Webhook(receiver.url, wait_s=0.01)(ALERT)
    assert len(receiver.posted) == 3


def test_a_webhook_that_always_fails_is_an_error_after_its_attempts(receiver: Receiver) -> None:
    receiver.answers = [500] * 10
    with pytest.raises(OSError, match="500"):
        Webhook(receiver.url, attempts=2, wait_s=0.01)(ALERT)
    assert len(receiver.posted) == 2


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example/x", "example.com", ""])
def test_a_webhook_must_be_a_web_address(url: str) -> None:
    with pytest.raises(SettingsError, match="BANDSCOPE_ALERT_WEBHOOK must be a URL"):
        Webhook(url)
