"""One connection and the requests on it, recorded: what came, what went when, and when the client left.

Raw on purpose. A framework would repair the very faults that the scenarios are about, and would not say at
which nanosecond a client closed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import orjson

from tests.upstreams import wire

READ_LIMIT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Emission:
    """One write: the clock right before it, the bytes before chunked framing, the answer text inside."""

    at_ns: int
    data: bytes
    text: str


@dataclass(slots=True)
class Request:
    """One request as it came in and how it went. Times are `perf_counter_ns`; None: it did not happen.

    `closed_ns` and `closed_by` ("fin" or "reset") are the first sign of the client leaving while this was the
    connection's latest request; `lost_ns` is when nothing was left of the connection, whoever ended it.
    """

    arrival_ns: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    emitted: list[Emission] = field(default_factory=list)
    closed_ns: int | None = None
    closed_by: str | None = None
    lost_ns: int | None = None
    finished_ns: int | None = None

    @property
    def json(self) -> dict[str, Any]:
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def model(self) -> str:
        return str(self.json.get("model", ""))

    @property
    def texts(self) -> list[Emission]:
        """The emissions that carried answer text."""
        return [emission for emission in self.emitted if emission.text]


class Connection(asyncio.StreamReaderProtocol):
    """A stream protocol that notes the clock in the very callback that tells of the client's end."""

    def __init__(self, number: int, opened: Callable[[Connection], None]) -> None:
        self.reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES)
        super().__init__(self.reader)
        self.number = number
        self.left = asyncio.Event()
        self.lost = asyncio.Event()
        self.request: Request | None = None
        self.closed_here = False
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        self.writer = asyncio.StreamWriter(transport, self, self.reader, asyncio.get_running_loop())
        self._opened(self)

    def eof_received(self) -> bool | None:
        self._note("fin", perf_counter_ns())
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        at_ns = perf_counter_ns()
        self._note("reset" if exc else "fin", at_ns)
        if self.request is not None:
            self.request.lost_ns = at_ns
        self.lost.set()
        super().connection_lost(exc)

    def _note(self, how: str, at_ns: int) -> None:
        if not self.left.is_set() and self.request is not None and not self.closed_here:
            self.request.closed_ns, self.request.closed_by = at_ns, how
        self.left.set()

    def close(self) -> None:
        """Close in good order: everything written is delivered, then FIN."""
        self.closed_here = True
        self.transport.close()

    def cut(self) -> None:
        """Close with RST."""
        self.closed_here = True
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Exchange:
    """What a scenario may do with one request. Every write is recorded. `chunked`: `send` frames its data."""

    def __init__(self, connection: Connection, request: Request, gap_s: float) -> None:
        self.connection = connection
        self.request = request
        self.gap_s = gap_s
        self.chunked = False

    async def raw(self, data: bytes, text: str = "", recorded: bytes | None = None) -> None:
        """Write exactly these bytes, as one write."""
        self.request.emitted.append(Emission(perf_counter_ns(), data if recorded is None else recorded, text))
        self.connection.writer.write(data)
        await self.connection.writer.drain()

    async def send(self, data: bytes, text: str = "") -> None:
        """Write body bytes, framed as one chunk where the head said so."""
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data
        await self.raw(framed, text, recorded=data)

    async def reply(self, status: str, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        """Write a whole answer with a Content-Length. Header names are given with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.raw(
            wire.head(status, {"Content-Type": content_type, "Content-Length": str(len(body)), **named}) + body
        )

    async def begin(self, content_type: str = "text/event-stream; charset=utf-8", **headers: str) -> None:
        """Write the head of a chunked event stream."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fixed = {"Content-Type": content_type, "Cache-Control": "no-cache", "Transfer-Encoding": "chunked"}
        await self.raw(wire.head("200 OK", {**fixed, **named}))
        self.chunked = True

    async def tokens(self, tokens: tuple[str, ...], key: str = "content") -> None:
        """Send one token per event, `gap_s` apart."""
        for token in tokens:
            await self.send(wire.event(wire.chunk({key: token})), token)
            await self.pause()

    async def finish(self, completion_tokens: int, reason: str = "stop", **extra: Any) -> None:
        """Send the finish chunk, the usage chunk if one was asked for and the end marker; end the body."""
        await self.send(wire.event(wire.chunk({}, finish=reason, **extra)))
        if self.wants_usage:
            await self.send(wire.event(wire.chunk(None, usage=wire.usage(completion_tokens))))
        await self.send(wire.DONE)
        await self.end()

    async def end(self) -> None:
        """Write the last chunk of a chunked body."""
        await self.raw(b"0\r\n\r\n", recorded=b"")

    async def pause(self, gaps: float = 1) -> None:
        await asyncio.sleep(self.gap_s * gaps)

    async def hang(self) -> None:
        """Do nothing until the client leaves."""
        await self.connection.left.wait()

    def close(self) -> None:
        """End the connection in good order."""
        self.connection.close()

    async def reset(self) -> None:
        """End the connection with RST. A receiver drops what it has not read by then, hence the pause."""
        await self.pause(8)
        self.connection.cut()

    @property
    def wants_usage(self) -> bool:
        options = self.request.json.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))
