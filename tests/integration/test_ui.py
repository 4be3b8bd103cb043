"""An operator's first day in the Dagster UI, in a real browser with the real UI."""

import re
from collections.abc import Iterator
from functools import partial

import pytest
from browser import Ui, dagster_ui, store_variables
from daemon import wait_for
from platforms import PER_SONG, song_bytes
from playwright.sync_api import Dialog, expect
from s3_server import S3Place, S3Server

from bandscope_dagster.pipeline.uploads import list_uploads

GOOD = 10
HOSTILE = "<img src=x onerror=alert(1)> [song](javascript:alert(2)) `$(id)` \u202egnp.wav"
BAD = {"empty.wav": (b"", "empty"), "notes.mp3": (b"mix the second verse again\n" * 100, "not_audio")}
UPLOADS = GOOD + len(BAD)
DONE_S = 600.0  # for a tick of the sensor, the start of a run, the loading of models, and all songs

# True if the plot has a line: only lines are blue.
HAS_LINE = """canvas => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at + 3] > 200 && pixels[at + 2] - pixels[at] > 80) return true;
    return false;
}"""


@pytest.fixture(scope="module")
def place(s3_server: S3Server) -> S3Place:
    """An empty store on the S3 server."""
    return s3_server.place()


@pytest.fixture(scope="module")
def ui(place: S3Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The UI of a fresh home over that store, with its sensor turned on."""
    variables = store_variables(place) | {"BANDSCOPE_STEP_RETRIES": "0"}
    with dagster_ui(tmp_path_factory.mktemp("ui") / "home", variables) as ui:
        ui.open_first()
        ui.turn_on("new_uploads")
        yield ui


@pytest.fixture(scope="module")
def songs(ui: Ui, place: S3Place) -> dict[str, str]:
    """Name → song id of uploads during the operator's session, after all of them are processed."""
    uploads = {f"song {number}.wav": song_bytes(number, seconds=2.0) for number in range(GOOD)}
    uploads[HOSTILE] = uploads.pop("song 0.wav")
    uploads |= {name: data for name, (data, _) in BAD.items()}
    store = place.open()
    for name, data in uploads.items():
        with store.create(f"uploads/mia/{name}") as pending:
            pending.write(data)
    # Two runs if the sensor ran during the uploads.
    ui.sees(ui.page.get_by_text(re.compile("runs? requested")), DONE_S)
    ui.open_asset("stem_instrument_tags", "partitions")
    ui.sees_text(f"Materialized ({UPLOADS})", DONE_S)
    return {upload.key.rpartition("/")[2]: upload.song_id for upload in list_uploads(store).uploads}


@pytest.mark.parametrize("asset", PER_SONG)
def test_every_upload_is_a_green_partition_also_the_rejected_ones(
    ui: Ui, songs: dict[str, str], asset: str
) -> None:
    ui.open_asset(asset, "partitions")
    for count in ("Failed (0)", f"Materialized ({UPLOADS})", "Materializing (0)", "Missing (0)"):
        ui.sees_text(count)
    for name, song in songs.items():
        if name != HOSTILE:  # the UI shortens its long id
            ui.sees_text(song)


def test_a_run_can_be_found_by_its_songs_and_their_owner(ui: Ui, songs: dict[str, str]) -> None:
    ui.open("runs")
    for text in ("process_songs", "new_uploads", "bandscope/owners: mia"):
        ui.sees_text(text)
    ui.sees(ui.page.get_by_text("bandscope/songs: "))


def test_a_rejected_upload_says_why_in_its_row_and_warns_on_its_check(ui: Ui, songs: dict[str, str]) -> None:
    for name, (_, reason) in BAD.items():
        ui.open_asset("songs", "partitions", partition=songs[name])
        ui.sees_row("error", f"{reason}: ")
    ui.show_check("songs", "song_is_usable", "Execution history")
    for name, (_, reason) in BAD.items():
        ui.sees_row("Failed", songs[name], f"{reason}: ")
    rows = ui.page.get_by_role("row")
    expect(rows.filter(has_text="Passed")).to_have_count(GOOD)
    expect(rows.filter(has_text="Failed")).to_have_count(len(BAD))
    expect(rows.filter(has_text="Failed").get_by_role("img", name="warning")).to_have_count(len(BAD))


def test_the_numbers_of_songs_are_plotted_over_partitions(ui: Ui, songs: dict[str, str]) -> None:
    ui.show_plots("stems")
    for number in ("duration_s", "realtime_factor", "residual_db", "loudness_vocals", "load_seconds"):
        ui.sees_text(number)
    for canvas in ui.page.locator("canvas").all():
        canvas.scroll_into_view_if_needed()
        wait_for("the plot has a line", partial(canvas.evaluate, HAS_LINE))


def test_a_song_has_a_picture_behind_one_click(ui: Ui, songs: dict[str, str]) -> None:
    picture = ui.show_picture("stems", songs["song 1.wav"])
    ui.sees(picture)
    assert picture.evaluate("image => image.naturalWidth") > 0
    assert picture.evaluate("image => image.width") > 500, (
        "the picture has the size of a picture, not of an icon"
    )


def test_a_hostile_file_name_is_only_a_text(ui: Ui, songs: dict[str, str]) -> None:
    dialogs: list[str] = []

    def noted(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    ui.page.on("dialog", noted)
    ui.open_asset("songs", "partitions", partition=songs[HOSTILE])
    ui.sees_row("filename", HOSTILE)
    picture = ui.show_picture("stems", songs[HOSTILE])
    ui.sees(picture)
    assert picture.evaluate("image => image.naturalWidth") > 0
    expect(ui.page.locator("img[src='x'], a[href^='javascript:']")).to_have_count(0)
    ui.page.remove_listener("dialog", noted)
    assert not dialogs


def test_a_backfill_that_is_launched_by_clicking_shows_each_song_as_it_ended(
    ui: Ui, songs: dict[str, str], place: S3Place
) -> None:
    place.open().delete("uploads/mia/song 7.wav")  # so this test is the last
    ui.launch_backfill("instrument_tags")
    targeted, in_progress, succeeded, failed = UPLOADS, 0, UPLOADS - 1, 1
    counts = f"100% completed {targeted} {in_progress} {succeeded} {failed}"
    expect(ui.page.locator("body")).to_contain_text(counts, use_inner_text=True, timeout=DONE_S * 1000)
    ui.open_asset("instrument_tags", "partitions", partition=songs["song 7.wav"])
    for count in (f"Failed ({failed})", f"Materialized ({succeeded})", "Missing (0)"):
        ui.sees_text(count)
    ui.sees(ui.page.get_by_text("failed, and did not materialize this asset"))
