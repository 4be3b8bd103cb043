"""A real browser on the pages: its requests, its console messages and its sound."""

import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
from browser import QUIET, find_browser
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

WINDOW = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
OPUS_RATE = 48_000  # Hz, of the pages' Web Audio
PATIENCE_MS = 60_000

# Records each source after its gain, the sum of all sources, and a mark. The mark switches between 0 and 1 at 0.25 s,
# 0.75 s, 1.25 s … of the song, exact to the sample on Web Audio's clock. On a busy machine the recorder loses blocks of
# all channels together, so compare times with the mark only. (A worklet would need a script that the page forbids.)
RECORD = """seconds => new Promise(resolve => {
    const context = player.context;
    const marker = new ConstantSourceNode(context);
    const taps = [...player.gains, player.output, marker];
    const merger = new ChannelMergerNode(context, {numberOfInputs: taps.length});
    const recorder = context.createScriptProcessor(4096, taps.length, 1);
    taps.forEach((tap, index) => tap.connect(merger, 0, index));
    const next = Math.ceil(player.position) + 0.25;
    marker.offset.value = 0;
    for (let k = 0; k < 2 * seconds; k += 1) {
        marker.offset.setValueAtTime((k + 1) % 2, player.anchor + next + k / 2);
    }
    marker.start();
    const blocks = [];
    const text = bytes => btoa(String.fromCharCode(...bytes));
    recorder.onaudioprocess = event => {
        const channels = taps.map((_, channel) => event.inputBuffer.getChannelData(channel).slice());
        blocks.push(channels.map(samples => text(new Uint8Array(samples.buffer))));
        if (blocks.length * 4096 < seconds * context.sampleRate) return;
        recorder.onaudioprocess = null;
        recorder.disconnect();
        taps.forEach(tap => tap.disconnect(merger));
        resolve(blocks);
    };
    merger.connect(recorder);
    recorder.connect(context.destination);
})"""


@dataclass
class Visit:
    """A page in a browser."""

    page: Page
    asked_for: list[str] = field(default_factory=list)  # every requested URL, with the page itself
    refused: list[str] = field(default_factory=list)  # those of them that did not leave the browser
    complaints: list[str] = field(default_factory=list)  # console messages and uncaught errors

    @property
    def position(self) -> float:
        """The player's position in seconds."""
        return self.page.evaluate("player.position")

    def hear(self, complaint: str) -> None:
        """Note a console message, except the warning that our recorder's API is deprecated."""
        if "ScriptProcessorNode is deprecated" not in complaint:
            self.complaints.append(complaint)

    def play(self) -> None:
        """Press play, and wait until the position changes."""
        self.page.get_by_role("button", name="Play", exact=True).click()
        self.moves()

    def moves(self) -> None:
        """Wait until the song plays on from its position."""
        self.until("player.state === 'playing'")
        self.until(f"player.position > {self.position} + 0.1")

    def until(self, condition: str) -> None:
        """Wait until an expression is true. (Playwright's own wait uses eval, which the page forbids.)"""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"timeout: {condition} is not true"
            self.page.wait_for_timeout(20)

    def record(self, seconds: float) -> dict[str, NDArray[np.float32]]:
        """The sound of the next seconds at 48 kHz, mixed to one channel, by source after its gain.

        "output" is the sum of all sources. "mark" changes at 0.25 s, 0.75 s, 1.25 s …
        """
        blocks = self.page.evaluate(RECORD, seconds)  # of 4096 samples; a base64 text per tap
        names = [*self.page.evaluate("player.sound.sources"), "output", "mark"]
        taps = (b"".join(map(b64decode, parts)) for parts in zip(*blocks, strict=True))
        return dict(zip(names, (np.frombuffer(samples, np.float32) for samples in taps), strict=True))


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_browser(), args=QUIET)
        yield running
        running.close()


@contextmanager
def visit(
    running: Browser, url: str, scheme: str = "light", window: dict[str, int] = WINDOW
) -> Iterator[Visit]:
    """Open a page, and record its requests and messages."""
    context = running.new_context(color_scheme=scheme, viewport=window, has_touch=window is PHONE)
    found = Visit(context.new_page())
    found.page.on("request", lambda request: found.asked_for.append(request.url))
    found.page.on("requestfailed", lambda request: found.refused.append(request.url))
    found.page.on("console", lambda message: found.hear(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.set_default_timeout(PATIENCE_MS)
    found.page.goto(url)
    yield found
    context.close()


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP as an object store does, while the block runs; yield the URL."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def in_real_time() -> Retrying:
    """Up to five attempts at a test that listens: ``for attempt in in_real_time(): with attempt, visit(…) as page:``.

    Sound is played in real time, so a busy machine interrupts it. A defect of the page fails in every attempt.
    """
    failed = retry_if_exception_type(AssertionError)
    return Retrying(stop=stop_after_attempt(5), retry=failed, reraise=True)
