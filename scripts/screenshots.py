"""Take the documentation's screenshots of the Dagster UI, from a temporary installation with demo songs.

    python scripts/screenshots.py            # a few minutes; needs Chromium, and the packages of the extra "test"

They show the view of a new operator: a fresh home, an S3 server, and uploads that a sensor finds, two of them bad.
"""

import argparse
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import demo_songs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from browser import REPOSITORY, Ui, dagster_ui, store_variables
from playwright.sync_api import expect
from s3_server import run_s3_server

from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.song_page import write_page
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from

SONGS = 9
HALF_WAY = re.compile(r"Materialized \([5-8]\)")
DONE_S = 1200.0  # timeout until all songs are done
WINDOW = {"width": 1440, "height": 1000}  # pixels
NAVIGATION = 240  # pixels; width of the navigation on the left
SHOWN = "Night Bus.flac"  # the song in the screenshots
SHOWN_PAGE = "The Bandscope Demo Band - Night Bus.mp3"  # the song of page.png: what scripts/demo.sh shows too
GROUPS = ("songs", "analysis", "catalog", "pages")


def upload_songs(store: ObjectStore, folder: Path) -> dict[str, str]:
    """Upload the songs of two owners, one of scripts/demo_audio, a truncated file and an empty one: name → song id."""
    folder.mkdir()
    for number in range(SONGS):
        title, stems = demo_songs.render(number)
        path = folder / f"{title}.flac"
        demo_songs.write(path, sum(stems.values()), title)
        _upload(store, f"{('mia', 'leo')[number % 2]}/{path.name}", path.read_bytes())
    _upload(store, SHOWN_PAGE, (Path(__file__).parent / "demo_audio" / SHOWN_PAGE).read_bytes())
    _upload(store, "leo/Half a Song.flac", path.read_bytes()[:150_000])
    _upload(store, "mia/Untitled.wav", b"")
    return {upload.key.rpartition("/")[2]: upload.song_id for upload in list_uploads(store).uploads}


def _upload(store: ObjectStore, name: str, data: bytes) -> None:
    with store.create(f"uploads/{name}") as pending:
        pending.write(data)


class Camera:
    """Takes screenshots of the UI, without its navigation."""

    def __init__(self, ui: Ui, folder: Path) -> None:
        self.ui = ui
        self.folder = folder

    def partitions(self, song: str) -> None:
        """The partitions of ``stems``, some materialized, and the details of one."""
        self.ui.open_asset("stems", "partitions", partition=song)
        self.ui.sees_text("residual_db")
        self._take("partitions", height=860)

    def checks(self) -> None:
        """The check of every upload, with the reasons why two were rejected."""
        self.ui.show_check("songs", "song_is_usable", "Execution history")
        self.ui.sees_row("Failed")
        self._take("checks", height=560)

    def plots(self) -> None:
        """Plots of the metadata of ``stems`` over songs."""
        self.ui.show_plots("stems")
        first = self.ui.page.get_by_text("loudness_accompaniment", exact=True)
        first.evaluate("plot => plot.scrollIntoView({block: 'start'})")
        self._take("plots", height=860, right=360)  # without the sidebar on the right

    def picture(self, song: str) -> None:
        """A song's picture in its dialog."""
        self.ui.sees(self.ui.show_picture("stems", song))
        dialog = self.ui.page.get_by_role("dialog")
        dialog.screenshot(path=self.folder / "picture.png")

    def page(self, song: str, store: ObjectStore) -> None:
        """The song's page, which does not need Dagster."""
        pages = PageFolder(open_store(str(self.folder / "pages")), folder="")
        written = write_page(store, pages, song, present_from(None, AUDIBLE_DB))
        self.ui.page.set_viewport_size({"width": 1280, "height": 1140})
        self.ui.page.goto(Path(written.uri).as_uri())
        self.ui.page.wait_for_timeout(3000)
        self.ui.page.screenshot(path=self.folder / "page.png")
        shutil.rmtree(self.folder / "pages")

    def graph(self) -> None:
        """The asset graph with all groups open, at full zoom."""
        self.ui.page.set_viewport_size({"width": 2400, "height": 1300})
        self.ui.open("asset-groups", expanded=",".join(f"global@global:{group}" for group in GROUPS))
        self.ui.sees_text("100% filled")
        for passing in ("Loading", "Materializing..."):
            expect(self.ui.page.get_by_text(passing)).to_have_count(0, timeout=1000 * DONE_S)
        self._take("graph", height=1270, left=600, top=130, right=60)

    def _take(self, name: str, height: int, left: int = NAVIGATION, top: int = 0, right: int = 0) -> None:
        """Save the window down to ``height`` pixels, cropped on its other sides, after all animations have ended."""
        page = self.ui.page
        page.mouse.move(0, 0)
        page.wait_for_timeout(3000)  # for animations and late data
        assert page.viewport_size is not None
        width = page.viewport_size["width"] - left - right
        area = {"x": left, "y": top, "width": width, "height": height - top}
        page.screenshot(path=self.folder / f"{name}.png", clip=area)


def main() -> None:
    """Start a server and the UI, wait until the songs are done, and take the screenshots."""
    parser = argparse.ArgumentParser(description="Take the documentation's screenshots of the Dagster UI.")
    parser.add_argument("--to", type=Path, default=REPOSITORY / "docs" / "images", metavar="DIR")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, run_s3_server(Path(folder)) as server:
        place = replace(server.place(), url=f"s3://{server.bucket}/library")
        songs = upload_songs(place.open(), Path(folder) / "songs")
        with dagster_ui(Path(folder) / "home", store_variables(place)) as ui:
            ui.page.set_viewport_size(WINDOW)
            ui.open_first()
            ui.turn_on("new_uploads")
            camera = Camera(ui, arguments.to)
            ui.open_asset("stems", "partitions")
            ui.sees(ui.page.get_by_text(HALF_WAY), DONE_S)
            camera.partitions(songs[SHOWN])
            ui.open_asset("stem_instrument_tags", "partitions")
            ui.sees_text(f"Materialized ({len(songs)})", DONE_S)
            camera.picture(songs[SHOWN])
            camera.checks()
            camera.plots()
            camera.page(songs[SHOWN_PAGE], place.open())
            ui.open_asset("song_catalog")
            ui.sees_text("Latest materialization", DONE_S)
            camera.graph()


if __name__ == "__main__":
    main()
