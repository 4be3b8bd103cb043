"""Results while processes are killed and storage fails: a webhook and a follower get each one, and none is left out.

The long form has 200 songs and five kills: ``pytest --long -s tests/integration/test_results_over_kills.py``.
"""

import base64
import itertools
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from command_server import Command, run_command, start_command
from daemon import end_group, wait_for
from faulty_proxy import PASSING, FaultyProxy
from long_forms import quick_or_long
from platforms import environment, s3_settings, song_bytes
from recording_server import RecordingServer, Request, recording_server
from s3_server import S3Place, S3Server

from bandscope_dagster import results
from bandscope_dagster.orchestration.result_webhook import signature
from bandscope_dagster.storage.objects.protocol import ObjectStore

SONGS = quick_or_long(4, long=200)
KILLS = quick_or_long(1, long=5)
RUNS = 6  # of the command at the end, each with the retries of its steps
KEY = bytes(range(32))
RUN = ("run", "--select", "songs,instrument_tags")

# A silent server costs the client 30 s, which would be most of the test's time.
FAULTS = [fault for fault in PASSING if fault != "silent"]


@dataclass
class Follower:
    """A consumer of ``bandscope results --follow --json`` that notes the cursor of each line."""

    variables: dict[str, str]
    cursor: str = results.START
    lines: list[dict[str, object]] = field(default_factory=list)
    command: Command | None = None

    def start(self) -> None:
        """Start it after the last line."""
        arguments = ["results", "--follow", "--json", "--after", self.cursor]
        self.command = start_command(arguments, self.variables)
        threading.Thread(target=self._read, args=(self.command,), daemon=True).start()

    def kill(self) -> None:
        """Kill it."""
        assert self.command is not None
        end_group(self.command)

    def _read(self, command: Command) -> None:
        for line in command.stdout:
            if line.startswith("{") and line.endswith("\n"):
                self.lines.append(json.loads(line))
                self.cursor = str(self.lines[-1]["cursor"])

    @property
    def ids(self) -> set[str]:
        """The results that it got."""
        return {f"{line['run_id']}_{line['song_id']}" for line in self.lines}


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """A receiver that fails a tenth of the posts, beginning with the first."""
    numbers = itertools.count()

    def answer(request: Request) -> tuple[int, bytes]:
        sent = request.headers
        expected = signature(KEY, sent["webhook-id"], sent["webhook-timestamp"], request.body)
        genuine = sent["webhook-signature"] == expected
        return (200 if next(numbers) % 10 else 503) if genuine else 401, b""

    with recording_server(answer) as server:
        yield server


def ids(server: RecordingServer) -> set[str]:
    return {request.headers["webhook-id"] for request in server.requests}


def upload(store: ObjectStore, numbers: range) -> None:
    for number in numbers:
        with store.create(f"uploads/song {number:03}.wav") as pending:
            pending.write(song_bytes(number, seconds=0.6))


def test_the_webhook_and_a_follower_get_every_result(
    tmp_path: Path,
    s3_server: S3Server,
    faulty_proxy: FaultyProxy,
    server: RecordingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far: S3Place = s3_server.place(faulty_proxy.endpoint)
    calm = s3_settings(replace(far, endpoint=s3_server.endpoint))
    store = calm.open_store()
    home = {"DAGSTER_HOME": str(tmp_path / "home"), "BANDSCOPE_SONGS_PER_RUN": "16"}
    webhook = {
        "BANDSCOPE_RESULT_WEBHOOK": server.url,
        "BANDSCOPE_RESULT_WEBHOOK_SECRET": "whsec_" + base64.b64encode(KEY).decode(),
    }
    variables = os.environ | environment(s3_settings(far)) | home | webhook
    follower = Follower(variables)
    faulty_proxy.fail_at_random(0.1, 7, FAULTS)
    share = SONGS // (KILLS + 1)
    upload(store, range(share))
    follower.start()
    for number in range(1, KILLS + 1):
        before = len(ids(server))
        run = start_command(RUN, variables)
        later = threading.Thread(target=upload, args=(store, range(number * share, (number + 1) * share)))
        later.start()
        has_posted = lambda: len(ids(server)) > before or run.poll() is not None  # noqa: B023, E731
        wait_for("a result is posted", has_posted, every_s=0.05)
        end_group(run)
        follower.kill()
        follower.start()
        later.join()

    upload(store, range((KILLS + 1) * share, SONGS))
    monkeypatch.setenv("DAGSTER_HOME", home["DAGSTER_HOME"])
    expected: set[str] = set()
    for _ in range(RUNS):
        printed = run_command(RUN, variables).stdout
        found = list(results.stored(settings=calm))
        expected = {f"{song.run_id}_{song.song_id}" for song in found}
        done = {song.song_id for song in found if song.status == "ok"}
        if len(done) == SONGS and expected <= ids(server):
            break
    else:
        pytest.fail(f"{len(done)} of {SONGS} songs are done: {printed}")
    assert ids(server) == expected
    wait_for("the follower has caught up", lambda: follower.ids >= expected)
    follower.kill()
    assert follower.ids == expected
    print(len(expected), "results;", len(server.requests), "posts;", dict(faulty_proxy.broken))
