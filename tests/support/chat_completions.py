"""A server with OpenAI's chat completions that behaves as vLLM documents it, and as badly as a test wants.

It has /v1/models, /version and /v1/chat/completions, keeps what it was asked, and counts the requests that are under
way at once. It can go away, with all its connections, and come back on the same port.
"""

import asyncio
import base64
import io
import json
import ssl
import threading
import wave
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL = "Qwen/Qwen2.5-Omni-7B"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a completion."""

    number: int  # in the order of arrival, from 0
    body: Mapping[str, Any]
    headers: Mapping[str, str]  # their names are in lower case
    in_flight: int  # requests without an answer, with this one

    @property
    def is_probe(self) -> bool:
        """True for the question before a run, which asks for one token."""
        return self.body["max_tokens"] == 1

    @property
    def questions(self) -> list[str]:
        """The texts of the user's messages."""
        users = [message["content"] for message in self.body["messages"] if message["role"] == "user"]
        return [part["text"] for content in users for part in content if part["type"] == "text"]

    @property
    def window(self) -> NDArray[np.float32]:
        """The audio of the first message, mono in [-1, 1]; it must be a WAV file of 16 kHz and 16 bits."""
        part = self.body["messages"][1]["content"][0]
        assert part["type"] == "input_audio" and part["input_audio"]["format"] == "wav"
        with wave.open(io.BytesIO(base64.b64decode(part["input_audio"]["data"]))) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return (samples / 32768).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request."""

    text: str | None = "[]"  # of the completion
    delay_s: float = 0.0
    until: Callable[[], bool] = lambda: True  # no answer before this is true
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None  # instead of a completion
    cut: bool = False  # the connection breaks in the middle
    endless: bool = False  # the body is repeated until the client has enough


def refusal(status: int, message: str, **headers: str) -> Reply:
    """An error in the words of vLLM."""
    error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, body=json.dumps({"error": error}).encode())


Answer = Callable[[Asked], Reply]


@dataclass
class ChatCompletions:
    """The server; ``answer`` decides what a request gets."""

    answer: Answer = lambda asked: Reply()
    model: str = MODEL
    version: str | None = "0.32.0"  # None: there is no such document
    key: str | None = None
    takes_schemas: bool = True
    slow_answers: bool = False  # True: ``answer`` computes, so it is called in a thread, one at a time
    keeps_bodies: bool = True
    asked: list[Asked] = field(default_factory=list[Asked])
    gets: list[str] = field(default_factory=list[str])  # paths of other requests
    most_in_flight: int = 0
    port: int = 0
    secure: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._in_flight = 0
        self._turn = threading.Lock()
        threading.Thread(target=self._loop.run_forever, name="chat-completions", daemon=True).start()
        self.start()

    @property
    def url(self) -> str:
        """The URL of the interface."""
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}/v1"

    @property
    def in_flight(self) -> int:
        """The requests without an answer now."""
        return self._in_flight

    @property
    def questions(self) -> list[Asked]:
        """The requests so far, without those before a run."""
        return [asked for asked in self.asked if not asked.is_probe]

    def start(self) -> None:
        """Listen, on the port of before."""
        self._run(self._start())

    def stop(self, *, silently: bool = False) -> None:
        """Go away: all connections break. ``silently``: open ones stay, without a word, as when vLLM gets SIGTERM."""
        self._run(self._stop(silently))

    def close(self) -> None:
        """End the server and its thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self.secure, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self, silently: bool) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in [] if silently else list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                pairs = [line.split(": ", 1) for line in head[1:] if line]
                headers = {name.lower(): value for name, value in pairs}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                self._in_flight += path.endswith("/chat/completions")
                try:
                    reply = await self._reply(method, path, headers, content)
                    while not (reply.until() or writer.is_closing()):
                        await asyncio.sleep(0.01)
                    await self._send(writer, reply)
                finally:
                    self._in_flight -= path.endswith("/chat/completions")
                if reply.cut:
                    writer.transport.abort()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _reply(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Reply:
        if path == "/version" and self.version is not None:
            self.gets.append(path)
            return Reply(body=json.dumps({"version": self.version}).encode())
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return Reply(status=401, body=b'{"error": "Unauthorized"}')
        if (method, path) == ("GET", "/v1/models"):
            self.gets.append(path)
            models = [{"id": self.model, "object": "model", "owned_by": "vllm", "max_model_len": 32768}]
            return Reply(body=json.dumps({"object": "list", "data": models}).encode())
        if (method, path) != ("POST", "/v1/chat/completions"):
            return Reply(status=404, body=b'{"detail": "Not Found"}')
        body = json.loads(content)
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        asked = Asked(len(self.asked), body, headers, self._in_flight)
        self.asked.append(
            asked
            if self.keeps_bodies
            else Asked(asked.number, {"max_tokens": body["max_tokens"]}, {}, asked.in_flight)
        )
        if body["model"] != self.model:
            return refusal(404, f"The model `{body['model']}` does not exist.")
        if "response_format" in body and not self.takes_schemas:
            return refusal(400, "response_format is not supported")
        reply = await asyncio.to_thread(self._in_turn, asked) if self.slow_answers else self.answer(asked)
        await asyncio.sleep(reply.delay_s)
        return reply

    def _in_turn(self, asked: Asked) -> Reply:
        with self._turn:
            return self.answer(asked)

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        body = reply.body
        if body is None:
            message = {"role": "assistant", "content": reply.text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
        lines = [f"HTTP/1.1 {reply.status} Status", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        length = 10**9 if reply.endless else len(body)
        writer.write("\r\n".join([*lines, f"content-length: {length}", "", ""]).encode())
        if reply.cut:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            return
        writer.write(body)
        await writer.drain()
        while reply.endless:
            writer.write(body)
            await writer.drain()


@contextmanager
def chat_completions(answer: Answer = lambda asked: Reply(), **more: Any) -> Generator[ChatCompletions]:
    """Run such a server while the block runs."""
    server = ChatCompletions(answer, **more)
    try:
        yield server
    finally:
        server.close()
