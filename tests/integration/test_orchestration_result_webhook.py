"""The webhook of results: signed, each result at least once, and no receiver stops other results."""

import base64
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path

import dagster as dg
import pytest
from daemon import wait_for
from instances import new_instance
from platforms import Platform, local_settings, song_bytes
from pydantic import SecretStr
from recording_server import RecordingServer, Request, recording_server
from rich.console import Console

from bandscope_dagster.cli import result_posts
from bandscope_dagster.cli.result_posts import results_posted
from bandscope_dagster.errors import SettingsError
from bandscope_dagster.orchestration import result_webhook, song_results
from bandscope_dagster.orchestration.finished_songs import Finished
from bandscope_dagster.orchestration.result_webhook import (
    STATE_KEY,
    WAITING,
    Receiver,
    ResultSender,
    Sent,
    signature,
)
from bandscope_dagster.orchestration.sensors.send_results import results_sensor
from bandscope_dagster.settings import Settings

DOCS = Path(__file__).parents[2] / "docs" / "results.md"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PER_SONG = Counter({"song.done": 3, "song.rejected": 1})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with the results of four songs."""
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path_factory.mktemp("store")), instance)
        songs = {f"song {number}.wav": song_bytes(number, 0.6) for number in range(3)}
        platform.upload(songs | {"letter.wav": b"Dear Ada, " * 99})
        assert platform.materialize(["songs"]).success
        yield platform


@pytest.fixture(autouse=True)
def nothing_is_sent(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins before the first result, and posts failed results again at once."""
    nothing_was_sent(platform)
    monkeypatch.setattr(result_webhook, "FIRST_WAIT_S", 0.0)


def nothing_was_sent(platform: Platform) -> None:
    state = json.dumps({"cursor": song_results.START})
    platform.instance.daemon_cursor_storage.set_cursor_values({STATE_KEY: state})


class Hook:
    """A receiver that answers with the given statuses, then with 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.refused: set[str] = set()  # ids that it never takes
        self.hangs = threading.Event()  # while it is set, there is no answer

    def __call__(self, request: Request) -> tuple[int, bytes]:
        while self.hangs.is_set():
            time.sleep(0.01)
        if request.headers["webhook-id"] in self.refused:
            return 400, b""
        return (self.statuses.pop(0) if self.statuses else 200), b""


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
def server(hook: Hook) -> Iterator[RecordingServer]:
    with recording_server(hook) as server:
        yield server


def settings_for(platform: Platform, url: str, secret: str = SECRET) -> Settings:
    changes = {"result_webhook": SecretStr(url), "result_webhook_secret": SecretStr(secret)}
    return platform.settings.model_copy(update=changes)


def send(platform: Platform, url: str, for_s: float = 60.0) -> Sent:
    settings = settings_for(platform, url)
    receiver = Receiver.of(settings)
    assert receiver is not None
    sent = ResultSender(receiver, platform.instance, platform.store, settings).send(for_s)
    assert sent is not None
    return sent


def ids(server: RecordingServer) -> list[str]:
    return [request.headers["webhook-id"] for request in server.requests]


def expected(platform: Platform) -> list[str]:
    return [f"{s.run_id}_{s.song_id}" for s in song_results.stored(settings=platform.settings)]


def test_the_signature_is_that_of_the_standard() -> None:
    # From the tests of the specification's libraries: github.com/standard-webhooks/standard-webhooks
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_receiver_of_the_docs_takes_each_result_once_and_no_forged_one(
    platform: Platform, tmp_path: Path
) -> None:
    (code,) = re.findall(r"^```python\n(import base64.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = os.environ | {"BANDSCOPE_RESULT_WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen([sys.executable, "-c", code], env=variables, stdout=printed)
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for("the receiver listens", lambda: is_up(port), every_s=0.1)
            assert send(platform, url).delivered == 4
            nothing_was_sent(platform)
            assert send(platform, url).delivered == 4  # it has these already, and says so
            forger = Receiver(url, bytes(32))
            with pytest.raises(
                OSError, match=r"401.*: is BANDSCOPE_RESULT_WEBHOOK_SECRET that of the receiver\?"
            ):
                forger.post("forged", b"{}")
        finally:
            process.kill()
            process.wait()
    lines = (tmp_path / "printed").read_text().splitlines()
    assert Counter(line.split()[0] for line in lines) == PER_SONG
    assert sorted(line.split()[1] for line in lines) == sorted(platform.songs)


def is_up(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_each_result_is_posted_once_as_bandscope_results_prints_it(
    platform: Platform, server: RecordingServer
) -> None:
    assert send(platform, server.url) == Sent(4, 0, True, None, ())
    assert send(platform, server.url).delivered == 0
    bodies = [request.body.decode() for request in server.requests]
    assert bodies == [song.to_json() for song in song_results.stored(settings=platform.settings)]
    assert {request.headers["content-type"] for request in server.requests} == {"application/json"}


def test_a_result_that_the_receiver_never_takes_stops_no_other_and_is_given_up_at_last(
    platform: Platform, server: RecordingServer, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = expected(platform)[1]
    hook.refused = {refused}
    sent = send(platform, server.url)
    assert (sent.delivered, sent.waiting, sent.complete) == (3, 1, True) and "400" in (sent.error or "")
    assert send(platform, server.url).waiting == 1
    monkeypatch.setattr(result_webhook, "GIVE_UP_S", -1.0)
    sent = send(platform, server.url)
    assert sent.waiting == 0 and len(sent.lost) == 1
    assert refused.partition("_")[2] in sent.lost[0] and "given up after 3 posts" in sent.lost[0]
    assert Counter(ids(server)) == Counter(expected(platform)) + Counter({refused: 2})


@pytest.fixture
def failed_songs(tmp_path: Path) -> Iterator[Platform]:
    """A platform with a run that failed for each of its five songs; nothing was posted yet."""
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({f"song {number}.wav": song_bytes(number, 0.6) for number in range(5)})
        for upload in (tmp_path / "uploads").iterdir():
            upload.unlink()
        assert not platform.materialize(["songs"]).success
        state = json.dumps({"cursor": song_results.START})
        instance.daemon_cursor_storage.set_cursor_values({STATE_KEY: state})
        yield platform


def test_the_failed_songs_of_one_run_are_posted_to_the_end_by_rounds_with_time_for_one(
    failed_songs: Platform, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The time of each round is over after its first post, as with a slow receiver.
    post = ResultSender._post  # pyright: ignore[reportPrivateUsage]

    def slow(sender: ResultSender, song: Finished) -> str | None:
        error = post(sender, song)
        patch.setattr(result_webhook.time, "monotonic", lambda: math.inf)
        return error

    monkeypatch.setattr(ResultSender, "_post", slow)
    for _ in range(5):
        with monkeypatch.context() as patch:
            assert send(failed_songs, server.url).delivered == 1
    assert ids(server) == expected(failed_songs) and len(set(ids(server))) == 5
    assert send(failed_songs, server.url) == Sent(0, 0, True, None, ())


def test_failed_songs_of_one_run_that_are_refused_wait_once_each_longer_each_time_and_are_given_up(
    failed_songs: Platform, server: RecordingServer, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs = expected(failed_songs)
    hook.refused = {*songs[:4]}
    monkeypatch.setattr(result_webhook, "FIRST_WAIT_S", 60.0)

    def rounds(after_s: float) -> tuple[list[str], list[Sent]]:
        """The posts of three rounds that begin some seconds from now; a round ends after three failed posts."""
        now, before = time.time() + after_s, len(server.requests)
        with monkeypatch.context() as patch:
            patch.setattr(result_webhook.time, "time", lambda: now)
            sent = [send(failed_songs, server.url) for _ in range(3)]
        return ids(server)[before:], sent

    posted, sent = rounds(0.0)
    assert posted == songs and [each.waiting for each in sent] == [3, 4, 4] and sent[-1].complete
    assert rounds(70.0)[0] == songs[:4]
    assert rounds(150.0)[0] == []  # the second wait takes 120 s
    posted, sent = rounds(200.0)
    assert posted == songs[:4] and sent[-1].waiting == 4
    posted, sent = rounds(result_webhook.GIVE_UP_S + 300.0)
    assert posted == songs[:4] and sent[-1] == Sent(0, 0, True, None, ())
    lost = [line for each in sent for line in each.lost]
    assert len(lost) == 4 and all("is given up after 4 posts" in line for line in lost)


def test_a_receiver_that_is_down_gets_everything_later(
    platform: Platform, server: RecordingServer, hook: Hook
) -> None:
    hook.statuses = [503, 302, 500]
    sent = send(platform, server.url)
    assert (sent.delivered, sent.waiting, sent.complete) == (0, 3, False)  # it is not asked for all
    assert "HTTP Error" in sent.text and server.url not in sent.text
    assert send(platform, server.url).delivered == 4
    assert set(ids(server)) == set(expected(platform)) and len(ids(server)) == 7
    assert {request.method for request in server.requests} == {"POST"}  # no redirect was followed


def test_while_many_results_are_set_aside_new_ones_stay_in_the_event_log(
    platform: Platform, server: RecordingServer, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_webhook, "WAITING", 1)
    monkeypatch.setattr(result_webhook, "FIRST_WAIT_S", 3600.0)
    hook.statuses = [500]
    assert WAITING > 1 and send(platform, server.url).delivered == 0
    assert len(ids(server)) == 1


def test_a_sender_that_is_killed_after_a_post_posts_it_again_and_leaves_none_out(
    platform: Platform, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ResultSender, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            send(platform, server.url)
    assert send(platform, server.url).delivered == 4
    first, *_ = expected(platform)
    assert Counter(ids(server)) == Counter(expected(platform)) + Counter({first: 1})


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_of_two_senders_only_one_posts(platform: Platform, server: RecordingServer) -> None:
    settings = settings_for(platform, server.url)
    receiver = Receiver.of(settings)
    assert receiver is not None
    home = Path(platform.instance.root_directory)
    with result_webhook.only_sender(home) as is_first, result_webhook.only_sender(home) as is_second:
        assert is_first and not is_second
        assert ResultSender(receiver, platform.instance, platform.store, settings).send(1.0) is None
    assert not server.requests


def test_after_runs_were_deleted_the_sender_says_so_and_goes_on(
    platform: Platform, server: RecordingServer
) -> None:
    values = {STATE_KEY: json.dumps({"cursor": "999999.0"})}
    platform.instance.daemon_cursor_storage.set_cursor_values(values)
    (line,) = send(platform, server.url).lost
    assert "runs were deleted" in line and send(platform, server.url).lost == ()


def test_a_new_webhook_begins_with_the_next_result(platform: Platform, server: RecordingServer) -> None:
    with new_instance() as empty:
        fresh = Platform(platform.settings, empty)
        assert send(fresh, server.url).complete
        assert STATE_KEY in empty.daemon_cursor_storage.get_cursor_values({STATE_KEY})


def test_the_sensor_posts_and_its_tick_says_how_many(platform: Platform, server: RecordingServer) -> None:
    settings = settings_for(platform, server.url)
    receiver = Receiver.of(settings)
    assert receiver is not None
    sensor = results_sensor(receiver, settings)
    context = dg.build_sensor_context(platform.instance, resources={"store": platform.store})
    assert sensor.minimum_interval_seconds == 4, "with 5 s it ticks at every second look of the daemon"
    assert sensor.evaluate_tick(context).skip_message == "4 results delivered"
    assert sorted(ids(server)) == sorted(expected(platform))


def test_a_command_posts_while_it_runs_and_says_what_it_could_not_deliver(
    platform: Platform,
    server: RecordingServer,
    hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = settings_for(platform, server.url)
    last = expected(platform)[-1]
    hook.refused = {last}
    monkeypatch.setattr(result_posts, "AT_THE_END_S", 0.0)
    with results_posted(settings, platform.store, Console(width=500)):
        wait_for("all results are posted", lambda: last in ids(server), every_s=0.1)
    (line,) = capsys.readouterr().out.splitlines()
    assert "HTTP Error 400" in line and result_posts.LATER in line and server.url not in line

    with (
        pytest.raises(KeyboardInterrupt),
        results_posted(settings, platform.store, Console(width=500)),
    ):
        raise KeyboardInterrupt
    assert capsys.readouterr().out == ""


def test_a_command_that_stays_says_each_error_and_lost_result_at_once(
    platform: Platform, server: RecordingServer, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = expected(platform)[1]
    hook.refused = {refused}
    monkeypatch.setattr(result_posts, "LOOK_EVERY_S", 0.01)
    printed = StringIO()
    with posted(platform, server.url, printed):
        wait_for("the error is said", lambda: "HTTP Error 400" in printed.getvalue(), every_s=0.05)
        wait_for("it was posted again", lambda: ids(server).count(refused) > 3, every_s=0.05)
        monkeypatch.setattr(result_webhook, "GIVE_UP_S", -1.0)
        wait_for("the loss is said", lambda: "given up" in printed.getvalue(), every_s=0.05)
    error, lost = printed.getvalue().splitlines()
    assert "to deliver: 1" in error and "Failed posts are repeated" in error
    assert refused.partition("_")[2] in lost


def test_an_unexpected_exception_is_said_once_and_results_are_still_posted(
    platform: Platform, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [KeyError("cursor"), KeyError("cursor"), KeyError("cursor")]
    send = ResultSender.send

    def faulty(sender: ResultSender, for_s: float) -> Sent | None:
        if faults:
            raise faults.pop()
        return send(sender, for_s)

    monkeypatch.setattr(ResultSender, "send", faulty)
    monkeypatch.setattr(result_posts, "LOOK_EVERY_S", 0.01)
    printed = StringIO()
    with posted(platform, server.url, printed):
        wait_for("all results are posted", lambda: len(ids(server)) == 4, timeout_s=30.0, every_s=0.05)
    (line,) = printed.getvalue().splitlines()
    assert "KeyError: 'cursor'" in line


def test_a_command_that_is_stopped_posts_what_is_left_but_does_not_wait_for_a_receiver_that_hangs(
    platform: Platform, server: RecordingServer, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.hangs.set()
    with posted(platform, server.url, StringIO()):
        wait_for("a post is under way", lambda: server.requests, every_s=0.01)
        stopped = time.monotonic()
    assert result_posts.ENDING_S <= time.monotonic() - stopped < result_posts.ENDING_S + 2.0
    hook.hangs.clear()
    wait_for("the thread that was left alone ends", lambda: not posting_threads(), every_s=0.05)

    nothing_was_sent(platform)
    server.requests.clear()
    monkeypatch.setattr(result_posts, "LOOK_EVERY_S", 3600.0)
    with posted(platform, server.url, StringIO()):
        pass
    assert ids(server) == expected(platform)


def posting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "post-results"]


def posted(platform: Platform, url: str, printed: StringIO) -> AbstractContextManager[Console]:
    """The block of a command that stays."""
    console = Console(file=printed, width=500)
    return results_posted(settings_for(platform, url), platform.store, console, stays=True)


@pytest.mark.parametrize(
    ("url", "secret", "said"),
    [
        ("ftp://songs.example/hunter2", SECRET, "BANDSCOPE_RESULT_WEBHOOK must be a URL"),
        ("https://songs.example/hunter2", "", "BANDSCOPE_RESULT_WEBHOOK_SECRET must be"),
        ("https://songs.example/hunter2", "whsec_aHVudGVyMg==", "24 to 64 random bytes"),
        ("https://songs.example/hunter2", "hunter2 is no base64 at all, and long enough", "openssl rand"),
    ],
)
def test_a_webhook_that_cannot_be_used_is_refused_without_its_secrets(
    url: str, secret: str, said: str, platform: Platform
) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Receiver.of(settings_for(platform, url, secret))
    assert "hunter2" not in str(refused.value) and "aHVudGVyMg" not in str(refused.value)
    assert Receiver.of(platform.settings) is None
