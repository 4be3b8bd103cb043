"""A real browser on a real ``dagster dev``, and an operator's clicks in it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from daemon import Webserver, end_group, wait_for
from playwright.sync_api import Locator, Page, expect, sync_playwright
from s3_server import S3Place

from bandscope_dagster.orchestration.home import DAGSTER_YAML

REPOSITORY = Path(__file__).parents[2]  # the folder of workspace.yaml
WINDOW = {"width": 1600, "height": 1000}
START_TIMEOUT_S = 300.0
PATIENCE_S = 180.0  # an idle machine shows these things at once; a busy one does not

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",  # CI runs as root in a container
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str:
    """The path of a Chromium. Playwright's own build is not used: it is downloaded from another host."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise RuntimeError(
        f"No browser was found (looked for {', '.join(BROWSERS)}). Install Chromium: `apt-get install chromium` on"
        " Debian. scripts/test.sh does this if it runs as root."
    )


def store_variables(place: S3Place) -> dict[str, str]:
    """The settings for a store on the S3 server."""
    return {
        "BANDSCOPE_STORAGE": place.url,
        "BANDSCOPE_S3_ENDPOINT": place.endpoint,
        "BANDSCOPE_S3_REGION": place.region,
        "BANDSCOPE_S3_ACCESS_KEY_ID": place.access_key_id,
        "BANDSCOPE_S3_SECRET_ACCESS_KEY": place.secret_access_key,
        "BANDSCOPE_DEVICE": "cpu",
    }


@dataclass(frozen=True, slots=True)
class Ui:
    """The Dagster UI in a browser."""

    page: Page
    url: str
    printed: Path  # the file with the output of Dagster

    def open(self, path: str, **query: str) -> None:
        """Go to a page by its path."""
        self.page.goto(f"{self.url}/{path}" + (f"?{urlencode(query)}" if query else ""))

    def open_asset(self, asset: str, view: str = "overview", **query: str) -> None:
        """Go to a tab of an asset: overview, partitions, events or checks."""
        self.open(f"assets/{asset}", view=view, **query)

    def sees(self, what: Locator, timeout_s: float = PATIENCE_S) -> None:
        """Wait until something is visible; fail with the visible content and the output of Dagster."""
        try:
            expect(what.filter(visible=True).first).to_be_visible(timeout=timeout_s * 1000)
        except AssertionError as error:
            error.add_note(f"Dagster printed:\n{self.printed.read_text()[-5000:]}")
            raise

    def sees_text(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until an element with exactly this text is visible."""
        self.sees(self.page.get_by_text(text, exact=True), timeout_s)

    def sees_row(self, *texts: str) -> None:
        """Wait until one row of a table contains all of the texts."""
        row = self.page.get_by_role("row")
        for text in texts:
            row = row.filter(has_text=text)
        self.sees(row)

    def open_first(self) -> None:
        """Open the UI of a new home, which asks for no newsletter."""
        self.open("")
        self.sees(self.page.get_by_role("link", name="Automation"))
        expect(self.page.get_by_role("dialog")).to_have_count(0)

    def turn_on(self, sensor: str) -> None:
        """Turn a sensor on at its own page, and stay there."""
        self.page.get_by_role("link", name="Automation").click()
        self.page.get_by_role("link", name=sensor).click()
        switch = self.page.get_by_role("checkbox")
        expect(switch).not_to_be_checked()
        self.page.locator("label", has=switch).click()
        expect(switch).to_be_checked()

    def launch_backfill(self, asset: str) -> None:
        """Materialize an asset for all of its partitions, and open the backfill's page."""
        self.open_asset(asset)
        self.page.get_by_role("button", name="Materialize").first.click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name="All", exact=True).click()
        dialog.get_by_role("button", name="Launch backfill").click()
        expect(dialog).to_have_count(0)
        self.open("runs", view="backfills")
        self.page.get_by_role("link", name="View", exact=True).first.click()

    def show_check(self, asset: str, check: str, tab: str) -> None:
        """Open a tab of an asset's check: Overview, Execution history or Partitions."""
        self.open_asset(asset, "checks", checkDetail=check)
        self.sees_text(check)
        self.page.get_by_role("tab", name=tab).last.click()

    def show_plots(self, asset: str) -> None:
        """Plot an asset's numeric metadata over its partitions."""
        self.open_asset(asset)
        self.page.get_by_role(
            "button", name="Columns"
        ).click()  # close the list of columns, which covers the plots
        self.page.get_by_role("button", name="Plots").click()
        self.sees(self.page.locator("canvas"))

    def show_picture(self, asset: str, song: str) -> Locator:
        """Open a song's picture; return the image."""
        self.open_asset(asset, "partitions", partition=song)
        self.page.get_by_text("[Show Markdown]").click()
        return self.page.get_by_role("dialog").get_by_role("img", name=song)


@contextmanager
def dagster_ui(home: Path, variables: Mapping[str, str]) -> Iterator[Ui]:
    """Start ``dagster dev`` on a fresh home as in the README, and a browser that has not opened a page yet."""
    chromium = find_browser()
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Webserver(f"http://127.0.0.1:{port}")
    dagster = str(Path(sys.executable).with_name("dagster"))
    printed = home / "printed.txt"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [dagster, "dev", "-h", "127.0.0.1", "-p", str(port)],
            env=os.environ | variables | {"DAGSTER_HOME": str(home)},
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for("dagster dev answers", server.is_up, START_TIMEOUT_S)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            page = browser.new_page(viewport=WINDOW)
            page.set_default_timeout(PATIENCE_S * 1000)
            expect.set_options(timeout=PATIENCE_S * 1000)
            yield Ui(page, server.url, printed)
            browser.close()
    except Exception as error:
        error.add_note(f"Dagster printed:\n{printed.read_text()[-5000:]}")
        raise
    finally:
        end_group(process)
