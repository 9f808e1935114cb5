"""Readers: they note when each token of the reference stream came out of a relay, and do as little else as they can.

Both wires carry a token's text `@NANOSECONDS ` unchanged, so it is found by its shape; no JSON is parsed while a window
is being measured.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

STAMP = re.compile(rb"@(\d{19}) ")
STAMP_BYTES = 21
OPEN_S = 30.0
AT_ONCE = 40  # streams that are being opened at the same time

PING, PONG, CLOSE = 9, 10, 8


class Reader(asyncio.Protocol):
    """A connection that keeps `(arrival ns, stamps)` of each read. `begun` is set by the first token."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, list[bytes]]] = []
        self.begun = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def note(self, at_ns: int, stamps: list[bytes]) -> None:
        self.reads.append((at_ns, stamps))
        if not self.begun.is_set():
            self.begun.set()

    def stall(self) -> None:
        """Read nothing any more."""
        self.transport.pause_reading()

    def close(self) -> None:
        self.transport.abort()


class SSE(Reader):
    """One streaming chat request; the answer's framing is looked through, not parsed."""

    def __init__(self, port: int, fields: dict[str, Any]) -> None:
        super().__init__()
        self._request = chat_request(port, fields)
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        at_ns = time.monotonic_ns()
        if self._rest:
            data = self._rest + data
        if stamps := STAMP.findall(data):
            self.note(at_ns, stamps)
        cut = data.rfind(b"@")
        self._rest = data[cut:] if cut >= 0 and len(data) - cut < STAMP_BYTES else b""


class Page(Reader):
    """A page's socket: attaches, runs one comparison over `backends`, answers pings.

    `html` True takes the fragments that a browser would take too. `keep` True keeps the text frames for afterwards.
    """

    def __init__(self, port: int, backends: Sequence[str], *, html: bool = False, keep: bool = False) -> None:
        super().__init__()
        self._port, self._html, self._keep = port, html, keep
        self._run = {"action": "run", "key": base64.b64encode(os.urandom(9)).decode(), "prompt": "Tell the time."}
        self._backends = list(backends)
        self._rest = b""
        self._open = False
        self.frames: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET /ws/arena/ HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
        head += f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        self.transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        at_ns = time.monotonic_ns()
        data = self._rest + data
        if not self._open:
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank:
                self._rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(f"no WebSocket: {head.splitlines()[0]!r}")
            self._open = True
            attach: dict[str, Any] = {"action": "attach", "lanes": self._backends}
            self.send(attach | ({"html": True} if self._html else {}))
            self.send({**self._run, "backend": self._backends})
        self._rest = self._frames(at_ns, data)

    def leave(self) -> None:
        """Close as a browser does whose tab is closed: a close frame, then the end of the connection."""
        self._write(CLOSE, struct.pack("!H", 1001))
        self.transport.close()

    def send(self, message: dict[str, Any]) -> None:
        self._write(1, orjson.dumps(message))

    def _frames(self, at_ns: int, data: bytes) -> bytes:
        """Take the whole frames in `data` (RFC 6455 5.2) and return the rest."""
        at, end = 0, len(data)
        while end - at >= 2:
            opcode, size, start = data[at] & 0x0F, data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                (size,), start = struct.unpack_from("!H", data, at + 2), at + 4
            elif size == 127:
                if end - at < 10:
                    break
                (size,), start = struct.unpack_from("!Q", data, at + 2), at + 10
            if end - start < size:
                break
            self._frame(at_ns, opcode, data[start : start + size])
            at = start + size
        return data[at:]

    def _frame(self, at_ns: int, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._write(PONG, payload)
        elif payload.startswith(b'{"type":"deltas"'):
            self.note(at_ns, STAMP.findall(payload))
            if self._keep:
                self.frames.append(payload)
        elif payload.startswith(b'{"type":"error"'):
            raise RuntimeError(payload.decode())

    def _write(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
        self.transport.write(bytes([0x80 | opcode]) + length + bytes(4) + payload)


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen between two instants: tokens, seconds, each token's delay in ns (sorted), CPU seconds."""

    tokens: int
    wall_s: float
    delays_ns: list[int]
    cpu_s: float

    @property
    def us_per_token(self) -> float:
        return self.cpu_s / self.tokens * 1e6 if self.tokens else float("nan")

    @property
    def p50_us(self) -> float:
        return quantile(self.delays_ns, 0.5) / 1000

    @property
    def p99_us(self) -> float:
        return quantile(self.delays_ns, 0.99) / 1000


async def open_port(reader: Reader, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: reader, "127.0.0.1", port)


async def open_all(port: int, readers: Sequence[Reader]) -> None:
    """Open the streams, some at a time, and return when each has had its first token."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def open_one(reader: Reader) -> None:
        async with gate, asyncio.timeout(OPEN_S):
            await open_port(reader, port)
            await reader.begun.wait()

    await asyncio.gather(*(open_one(reader) for reader in readers))


async def watch(readers: Sequence[Reader], cpu_s: Callable[[], float], seconds: float) -> Window:
    """Measure for `seconds` from now."""
    before_s, from_ns = cpu_s(), time.monotonic_ns()
    await asyncio.sleep(seconds)
    used_s, to_ns = cpu_s() - before_s, time.monotonic_ns()
    delays = sorted(
        at_ns - int(stamp)
        for reader in readers
        for at_ns, stamps in reader.reads
        if from_ns <= at_ns < to_ns
        for stamp in stamps
    )
    for reader in readers:
        reader.reads.clear()
    return Window(len(delays), (to_ns - from_ns) / 1e9, delays, used_s)


async def close_all(readers: Sequence[Reader]) -> None:
    for reader in readers:
        reader.close()
    await asyncio.gather(*(reader.lost.wait() for reader in readers))


def chat_request(port: int, fields: dict[str, Any]) -> bytes:
    """Return a streaming chat request; `fields` choose the reference stream's plan through every relay alike."""
    body = orjson.dumps({"model": "ref", "stream": True, "messages": [{"role": "user", "content": "time?"}], **fields})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def plan(rate: float, *, tokens: int = 100_000, spread: bool = True) -> dict[str, Any]:
    return {"rate": rate, "tokens": tokens, "spread": spread}


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the sorted values lie (nearest rank); NaN for none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def get_json(port: int, path: str) -> Any:
    """Return the JSON of a small answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        assert length is not None, head
        return orjson.loads(await reader.readexactly(int(length[1])))
    finally:
        writer.close()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Return whether `condition` came true within `seconds`; it is asked every 50 ms."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if await condition():
            return True
        await asyncio.sleep(0.05)
    return False
