"""Trust: after random storage faults, every view of every song shows exactly the injected faults.

All parts are real: an S3 server behind a proxy that breaks requests, a daemon that runs a backfill, and the webserver
that answers the UI.
"""

import io
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl
import pytest
from audio_files import encoded
from daemon import Home, wait_for
from faulty_proxy import Fault, FaultyProxy, run_faulty_proxy
from long_forms import quick_or_long
from platforms import PER_SONG, Platform, environment, s3_settings, song_bytes
from rich.console import Console
from s3_server import S3Server

from bandscope_dagster.cli.status import print_overview
from bandscope_dagster.orchestration.partitions import register_uploads
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.tables.song_files import list_song_files

SONGS = quick_or_long(18, long=40)
SONGS_PER_RUN = quick_or_long(12, long=25)  # two runs
ATTEMPTS = 3  # of a step

ENDING: dict[str, tuple[str, Fault, str, int]] = {
    "read twice": ("/uploads/{name}", "503", "GET", 2),
    "cut twice": ("/uploads/{name}", "truncated", "GET", 2),
    "described twice": ("/songs/{song}", "reset", "PUT", 2),
    "refused twice": ("/stems/{song}", "403", "PUT", 2),  # the step retries faults that the store does not
    "tagged twice": ("/instrument_tags/{song}", "503", "PUT", 2),
}
"""Fate of a song → a fault that ends: what it breaks (path, kind, method), and how many times."""

LASTING: dict[str, tuple[str, Fault, str, None]] = {
    "withheld": ("/uploads/{name}", "403", "GET", None),
    "not described": ("/songs/{song}", "403", "PUT", None),
    "no waveform": ("/decoded_waveforms/{song}", "403", "PUT", None),
    "no stems": ("/stems/{song}", "403", "PUT", None),
    "no stem tags": ("/stem_instrument_tags/{song}", "403", "PUT", None),
}
"""Fate of a song → a fault that never ends."""

MP3 = encoded("mp3")

REJECTED = {
    "empty": ("empty.mp3", b""),
    "not_audio": ("letter.mp3", b"Dear sir or madam,\n" * 40),
    "truncated": ("half.mp3", MP3[: len(MP3) // 2]),
    "too_short": ("short.wav", song_bytes(1, 0.2)),
    "unusable_name": ("two\nlines.wav", song_bytes(2, 0.6)),
}
"""Reason of a rejection → an upload that has it."""

CHECKS = {
    "songs": {"song_is_usable", "song_is_undamaged", "song_is_not_clipped"},
    "decoded_waveforms": {"blocks_are_whole"},
    "stems": {"blocks_are_whole", "stems_sum_to_mixture"},
    "instrument_tags": {"tags_are_complete"},
    "stem_instrument_tags": {"tags_are_complete"},
}

UI = """{ assetNodes { assetKey { path }
  partitionStats { numPartitions numMaterialized numFailed numMaterializing }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
  assetChecksOrError { ... on AssetChecks { checks { name partitionStatuses {
    ... on AssetCheckDefaultPartitionStatuses {
      succeededPartitions failedPartitions inProgressPartitions skippedPartitions executionFailedPartitions } } } } }
} }"""


@dataclass
class Library:
    """A platform whose uploads have known fates, and the answers of each view about them."""

    platform: Platform
    fates: dict[str, str]  # song id → a key of ENDING, LASTING or REJECTED, or "fine"
    backfill: dict[str, dict[str, int]] = field(default_factory=dict)  # asset → the counts of its page
    backfill_status: str = ""
    ui: dict[str, dict] = field(default_factory=dict)  # asset → the answer to its page's query

    def songs(self, *kinds: dict | str) -> set[str]:
        """The songs of these fates."""
        names = {name for kind in kinds for name in ([kind] if isinstance(kind, str) else kind)}
        return {song for song, fate in self.fates.items() if fate in names}

    @property
    def failed(self) -> set[str]:
        """The songs with a fault that never ends."""
        return self.songs(LASTING)

    @property
    def unread(self) -> set[str]:
        """Those of them that failed in ``songs``."""
        return self.songs("withheld", "not described")


def settings_at(s3_server: S3Server, endpoint: str) -> Settings:
    """Settings for an empty prefix on the server, reached through ``endpoint``."""
    place = s3_server.place(endpoint)
    return s3_settings(place)


def put(s3_server: S3Server, platform: Platform, name: str, data: bytes) -> None:
    """Upload a file with any name, as another S3 client does."""
    folder = platform.settings.storage.removeprefix(f"s3://{s3_server.bucket}/")
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{folder}/uploads/{name}", Body=data)


def with_fates(platform: Platform, proxy: FaultyProxy) -> Library:
    """Give each kind of fault to one song, chosen at random, and add it to the proxy: over 5 % of all songs."""
    reasons = {name.replace("\n", "\\n"): reason for reason, (name, _) in REJECTED.items()}
    uploads = list_uploads(platform.store).uploads
    good = [upload for upload in uploads if upload.filename not in reasons]
    fates = {upload.song_id: reasons.get(upload.filename, "fine") for upload in uploads}
    unlucky = random.Random(5).sample(good, len(ENDING) + len(LASTING))
    for upload, (fate, (path, fault, method, times)) in zip(unlucky, (ENDING | LASTING).items(), strict=True):
        pattern = re.escape(path.format(name=upload.filename, song=upload.song_id)) + r"(\.parquet)?(\?|$)"
        proxy.fail(pattern, fault, method=method, times=times)
        fates[upload.song_id] = fate
    return Library(platform, fates)


@pytest.fixture(scope="module")
def library(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Songs after a backfill that was launched as in the UI, with faults that lasted until its end."""
    with run_faulty_proxy(s3_server.endpoint) as proxy:
        settings = settings_at(s3_server, proxy.endpoint)
        home = Home.make(
            tmp_path_factory.mktemp("trust") / "home",
            tmp_path_factory.mktemp("unused"),
            variables=environment(settings) | {"BANDSCOPE_STEP_RETRY_DELAY_S": "0"},
            songs_per_run=SONGS_PER_RUN,
            step_retries=ATTEMPTS - 1,
        )
        with home.instance() as instance, home.webserver() as webserver, home.daemon():
            platform = Platform(settings, instance)
            for name, data in REJECTED.values():
                put(s3_server, platform, name, data)
            for number in range(SONGS):
                put(s3_server, platform, f"song {number:02}.wav", song_bytes(number, 0.6))
            register_uploads(instance, list_uploads(platform.store))
            found = with_fates(platform, proxy)
            backfill_id = webserver.launch_backfill(PER_SONG, platform.songs)

            def ended() -> bool:
                backfill = instance.get_backfill(backfill_id)
                return backfill is not None and backfill.status.value.startswith(("COMPLETED", "FAILED"))

            wait_for("the backfill ends", ended, 2400)
            found.backfill_status = instance.get_backfill(backfill_id).status.value
            found.backfill = webserver.backfill_counts(backfill_id)
            found.ui = {node["assetKey"]["path"][0]: node for node in webserver.ask(UI)["assetNodes"]}
            assert platform.materialize_catalogs().success
            yield found


def listed_errors(library: Library) -> dict[str, dict[str, str]]:
    """``song_errors``: song → table → reason."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    rows = pl.read_parquet(io.BytesIO(library.platform.store.read("song_errors/song_errors.parquet")))
    assert not rows.select("song_id", "reason").is_duplicated().any(), "one row per song and reason"
    for row in rows.explode("tables", "messages").iter_rows(named=True):
        assert row["tables"] not in found[row["song_id"]], "one reason per song and table"
        assert row["since"] is not None and row["message"] and row["messages"]
        found[row["song_id"]][row["tables"]] = row["reason"]
    return dict(found)


def states(library: Library) -> dict[str, str]:
    """``bandscope status``: song → state."""
    text = io.StringIO()
    store = library.platform.store
    files, uploads = list_song_files(store, SOURCES), list_uploads(store)
    print_overview(files, uploads, Console(file=text, width=200))
    lines = [line.split() for line in text.getvalue().splitlines()]
    return {words[0]: " ".join(words[1:]) for words in lines if words and words[0] in library.fates}


def test_the_backfill_counts_the_songs_that_failed_and_no_other(library: Library) -> None:
    songs, failed = len(library.fates), len(library.failed)
    assert library.backfill_status == "COMPLETED_FAILED"
    for asset in PER_SONG:
        red = len(library.unread) if asset == "songs" else failed
        counts = {"Targeted": songs, "Materialized": songs - red, "Failed": red, "InProgress": 0}
        assert library.backfill[asset] == counts, asset


@pytest.mark.parametrize("asset", PER_SONG)
def test_the_assets_page_shows_each_song_as_it_is(library: Library, asset: str) -> None:
    red = library.unread if asset == "songs" else library.failed
    shown = library.ui[asset]["assetPartitionStatuses"]
    assert set(shown["failedPartitions"]) == red
    assert set(shown["materializedPartitions"]) == library.fates.keys() - red
    assert set(shown["unmaterializedPartitions"]) == red and not shown["materializingPartitions"]
    stats = library.ui[asset]["partitionStats"]
    assert (stats["numPartitions"], stats["numMaterialized"]) == (
        len(library.fates),
        len(library.fates) - len(red),
    )
    assert (stats["numFailed"], stats["numMaterializing"]) == (len(red), 0)
    of_dagster = library.platform.status(asset)
    assert {song for song, status in of_dagster.items() if status == "FAILED"} == red
    assert {
        song for song, status in of_dagster.items() if status == "MATERIALIZED"
    } == library.fates.keys() - red


@pytest.mark.parametrize("asset", PER_SONG)
def test_every_check_shows_each_song_as_it_is(library: Library, asset: str) -> None:
    found = {
        check["name"]: check["partitionStatuses"]
        for check in library.ui[asset]["assetChecksOrError"]["checks"]
    }
    assert found.keys() == CHECKS[asset]
    for name, shown in found.items():
        unfinished = set() if asset == "songs" else library.failed
        refused = library.songs(REJECTED) | library.unread if name == "song_is_usable" else set()
        assert set(shown["executionFailedPartitions"]) == unfinished, name
        assert set(shown["failedPartitions"]) == refused, name
        assert set(shown["succeededPartitions"]) == library.fates.keys() - unfinished - refused, name
        assert not shown["skippedPartitions"] and not shown["inProgressPartitions"], name


def test_a_rejection_is_a_warning_and_a_failure_an_error(library: Library) -> None:
    severities: dict[str, str] = {}
    for run in library.platform.instance.get_runs():
        for song, (passed, severity) in library.platform.checks(run.run_id, "song_is_usable").items():
            if not passed:
                severities[song] = severity
    expected = dict.fromkeys(library.songs(REJECTED), "WARN")
    assert severities == expected | dict.fromkeys(library.unread, "ERROR")


def test_song_errors_lists_every_song_without_a_result_with_its_reason(library: Library) -> None:
    expected: dict[str, dict[str, str]] = {}
    for song, fate in library.fates.items():
        if fate in REJECTED:
            expected[song] = dict.fromkeys(PER_SONG, fate)
        elif fate in LASTING:
            reason = "unavailable" if fate == "withheld" else "failed"
            expected[song] = dict.fromkeys(ANALYSIS_TABLES, reason)
            if fate in ("withheld", "not described"):
                expected[song]["songs"] = reason
    assert listed_errors(library) == expected


def test_the_status_of_the_command_line_is_the_same(library: Library) -> None:
    found = states(library)
    assert found.keys() == library.fates.keys()
    for song, fate in library.fates.items():
        if fate in REJECTED:
            assert found[song] == f"rejected: {fate}"
        elif fate == "withheld":
            assert found[song] == "failed: unavailable"
        elif fate in LASTING:
            assert "failed" in found[song], (fate, found[song])
        else:
            assert found[song].endswith(" ok"), (fate, found[song])


def test_faults_that_ended_leave_nothing_but_their_trace_in_the_log(library: Library) -> None:
    catalog = pl.read_parquet(io.BytesIO(library.platform.store.read("song_catalog/song_catalog.parquet")))
    ok = catalog.filter(status="ok")["song_id"]
    assert set(ok) == library.songs(ENDING, "fine")
    assert set(catalog.filter(status="rejected")["song_id"]) == library.songs(REJECTED)


def test_after_the_faults_one_more_run_makes_all_views_agree_that_all_is_well(
    library: Library, request: pytest.FixtureRequest
) -> None:
    # Directly, not through the proxy, whose faults never end.
    endpoint = request.getfixturevalue("s3_server").endpoint
    settings = library.platform.settings.model_copy(update={"s3_endpoint": endpoint})
    mended = Platform(settings, library.platform.instance)

    run = mended.materialize(reuse=True)

    assert run.success and mended.materialize_catalogs().success
    for asset in PER_SONG:
        assert set(mended.status(asset).values()) == {"MATERIALIZED"}
    after = Library(mended, library.fates)
    rejected = library.songs(REJECTED)
    assert listed_errors(after) == {song: dict.fromkeys(PER_SONG, library.fates[song]) for song in rejected}
    well = {song for song, state in states(after).items() if state.endswith(" ok")}
    assert well == library.fates.keys() - rejected
    for names in CHECKS.values():
        for name in names:
            verdicts = mended.checks(run.run_id, name)
            assert verdicts.keys() == library.fates.keys(), f"{name}: also for reused songs"
            refused = {song for song, (passed, _) in verdicts.items() if not passed}
            assert refused == (rejected if name == "song_is_usable" else set()), name
