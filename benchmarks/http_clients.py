"""HTTP clients for a tagger's server: time and memory to import them, CPU time of a request with a window of 30 s.

    python benchmarks/http_clients.py [--requests 256]

Needs httpx2, aiohttp and openai in the environment; one that is absent is left out. Each is measured in a process of
its own, against a server in another one, with 64 requests at once. The last line is JSON.
"""

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))

AT_ONCE: Final = 64
WAV: Final = base64.b64encode(bytes(960_044)).decode()  # 30 s at 16 kHz, 16 bits
ROUNDS: Final = 5
Ask = Callable[[], Awaitable[Any]]


def body() -> dict[str, Any]:
    """A request with a window."""
    audio = {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}
    content = [audio, {"type": "text", "text": "Which instruments and voices can be heard in this excerpt?"}]
    messages = [{"role": "user", "content": content}]
    return {"model": "Qwen/Qwen2.5-Omni-7B", "messages": messages, "temperature": 0, "max_tokens": 256}


async def open_httpx2(url: str, stack: AsyncExitStack) -> Ask:
    """A request by httpx2."""
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=AT_ONCE)
    client = await stack.enter_async_context(httpx2.AsyncClient(limits=limits, timeout=60))

    async def ask() -> Any:
        answer = await client.post(f"{url}/chat/completions", content=json.dumps(body()).encode())
        return answer.json()

    return ask


async def open_aiohttp(url: str, stack: AsyncExitStack) -> Ask:
    """A request by aiohttp."""
    import aiohttp

    client = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

    async def ask() -> Any:
        async with client.post(f"{url}/chat/completions", data=json.dumps(body()).encode()) as answer:
            return await answer.json()

    return ask


async def open_openai(url: str, stack: AsyncExitStack) -> Ask:
    """A request by openai."""
    import openai

    client = await stack.enter_async_context(openai.AsyncOpenAI(base_url=url, api_key="none"))
    return lambda: client.chat.completions.create(**body())


OPENERS: Final = {"httpx2": open_httpx2, "aiohttp": open_aiohttp, "openai": open_openai}


def resident_mib() -> float:
    """The resident memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(library: str, url: str, requests: int) -> dict[str, float]:
    """Import the library and send requests; in a new process."""
    memory, began = resident_mib(), time.process_time()
    __import__(library)
    imported_s, imported_mib = time.process_time() - began, resident_mib() - memory

    async def run() -> float:
        places = asyncio.Semaphore(AT_ONCE)
        async with AsyncExitStack() as stack:
            ask = await OPENERS[library](url, stack)

            async def one() -> None:
                async with places:
                    await ask()

            await one()
            cpu = time.process_time()
            await asyncio.gather(*(one() for _ in range(requests)))
            return time.process_time() - cpu

    cpu_s = asyncio.run(run())
    return {"import_ms": 1000 * imported_s, "import_mib": imported_mib, "request_ms": 1000 * cpu_s / requests}


def main() -> None:
    """Measure every library that is installed, and print the medians."""
    parser = argparse.ArgumentParser(description="Compare HTTP clients.")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--of", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of == "serve":
        from chat_completions import Reply, chat_completions

        with chat_completions(lambda asked: Reply(delay_s=0.05), keeps_bodies=False) as server:
            print(server.url, flush=True)
            sys.stdin.read()
    elif arguments.of:
        print(json.dumps(measure(arguments.of, arguments.url, arguments.requests)))
    else:
        _compare(arguments.requests)


def _compare(requests: int) -> None:
    again = [sys.executable, __file__, "--requests", str(requests), "--of"]
    report: dict[str, dict[str, float]] = {}
    with subprocess.Popen(
        [*again, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        url = server.stdout.readline().strip()
        for library in OPENERS:
            found: list[dict[str, float]] = []
            for _ in range(ROUNDS):
                done = subprocess.run([*again, library, "--url", url], capture_output=True, text=True)
                if done.returncode == 0:
                    found.append(json.loads(done.stdout))
            if found:
                median = {name: sorted(each[name] for each in found)[len(found) // 2] for name in found[0]}
                report[library] = {name: round(value, 1) for name, value in median.items()}
                print(library, report[library], flush=True)
            else:
                print(f"{library}: not installed, or {done.stderr.strip().splitlines()[-1:]}")
        server.stdin.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
