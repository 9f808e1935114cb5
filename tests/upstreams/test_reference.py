"""The reference stream keeps its promises: times inside the tokens, the asked pace, a log of who left when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest

from tests.upstreams.reference import Plan


@contextlib.asynccontextmanager
async def reference() -> AsyncIterator[int]:
    """Yield the port of a reference server in a process of its own."""
    async with process_of_reference() as (_, port):
        yield port


@contextlib.asynccontextmanager
async def process_of_reference() -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    program = [sys.executable, "-m", "tests.upstreams.reference"]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        yield process, int(line.split(":")[2].split("/")[0])
    finally:
        process.kill()
        await process.communicate()


async def ask(port: int, body: dict[str, object]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    data = json.dumps(body).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
    return reader, writer


def stamps(received: bytes) -> list[int]:
    return [int(digits) for digits in re.findall(rb"@(\d{19}) ", received)]


async def log(port: int) -> list[dict[str, int | None]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /log HTTP/1.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
    writer.close()
    return json.loads(body)["streams"]


@pytest.mark.parametrize(
    ("request_", "plan"),
    [
        ({"model": "ref"}, Plan(50, 200)),
        ({"model": "ref-2000x400"}, Plan(2000, 400)),
        ({"model": "ref-12.5x3+50ms~"}, Plan(12.5, 3, 50, True)),
        ({"model": "ref-maxx9", "max_tokens": 4}, Plan(0, 4)),
        ({"model": "ref", "rate": 0, "tokens": 7, "start_ms": 5}, Plan(0, 7, 5)),
        ({"model": "gpt-5"}, None),
    ],
)
def test_the_request_chooses_the_plan(request_: dict[str, object], plan: Plan | None):
    assert Plan().asked(request_) == plan


async def test_a_request_has_arrived_however_late_it_is_looked_at():
    async with process_of_reference() as (process, port):
        reader, writer = await ask(port, {"model": "ref-1000x1"})
        await reader.readuntil(b"\r\n0\r\n\r\n")
        process.send_signal(signal.SIGSTOP)
        asking_ns = time.monotonic_ns()
        data = b'{"model":"ref-1000x3"}'
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
        await writer.drain()
        await asyncio.sleep(0.1)
        asked_ns = time.monotonic_ns()
        process.send_signal(signal.SIGCONT)
        await reader.readuntil(b"\r\n0\r\n\r\n")
        entry = (await log(port))[-1]
        writer.close()
    assert asking_ns - 1_000_000 < entry["arrival_ns"] < asked_ns < entry["written_ns"]


async def test_tokens_come_at_their_absolute_times_and_say_when_they_were_written():
    async with reference() as port:
        body = {"model": "ref-1000x50+20ms", "stream_options": {"include_usage": True}}
        reader, writer = await ask(port, body)
        received = await reader.readuntil(b"\r\n0\r\n\r\n")
        received_ns = time.perf_counter_ns()
        times_ns = stamps(received)
        (entry,) = await log(port)
        writer.close()
    assert len(times_ns) == entry["tokens"] == 50
    assert times_ns == sorted(times_ns)
    assert times_ns[-1] < received_ns  # one clock in both processes
    first_ns, last_ns = times_ns[0] - entry["arrival_ns"], times_ns[-1] - entry["arrival_ns"]
    assert first_ns >= 20_000_000
    assert last_ns >= 69_000_000  # never early: the 50th is due 20 + 49 ms after arrival
    assert last_ns <= 69_000_000 + (entry["late_us"] + 1) * 1000  # and its lateness is owned up to
    assert b'"completion_tokens":50' in received
    assert entry["closed_ns"] is None


async def test_without_a_rate_every_token_still_has_its_own_time():
    async with reference() as port:
        reader, writer = await ask(port, {"model": "ref-maxx20000"})
        times_ns = stamps(await reader.readuntil(b"\r\n0\r\n\r\n"))
        writer.close()
    assert len(times_ns) == 20_000
    assert times_ns == sorted(times_ns)
    assert len(set(times_ns)) > 19_000


async def test_a_client_that_leaves_is_logged_with_the_moment():
    async with reference() as port:
        reader, writer = await ask(port, {"model": "ref-100x10000"})
        await reader.readuntil(b"@")
        left_ns = time.perf_counter_ns()
        writer.close()
        while not (entries := await log(port)):
            pass
    assert left_ns < entries[0]["closed_ns"] < time.perf_counter_ns()
    assert entries[0]["tokens"] < 10_000
