"""A scripted OpenAI-compatible server on a raw socket. The request's `model` chooses the scenario."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from time import perf_counter_ns

import orjson

from tests.upstreams import wire
from tests.upstreams.exchange import Connection, Exchange, Request
from tests.upstreams.faults import HTTP_FAULTS
from tests.upstreams.good import GOOD, Scenario
from tests.upstreams.replay import REPLAYS
from tests.upstreams.streams import STREAM_FAULTS
from tests.upstreams.tls import Authority

SCENARIOS: dict[str, Scenario] = {**GOOD, **HTTP_FAULTS, **STREAM_FAULTS, **REPLAYS}
GAP_S = 0.005


class Upstream:
    """A running server: its address, and every request in order of arrival."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s = gap_s
        self.url = ""
        self.requests: list[Request] = []
        self.connections = 0
        self.authority: Authority | None = None
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    async def request(self, number: int = 0) -> Request:
        """Wait until request `number` (from 0) has arrived, and return it."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def closed(self, number: int = 0) -> Request:
        """Wait until the client of request `number` has left, and return the request."""
        request = await self.request(number)
        for connection in [each for each in self._open if each.request is request]:
            await connection.left.wait()
        return request

    async def lost(self, number: int = 0) -> Request:
        """Wait until nothing is left of the connection of request `number`, and return the request."""
        request = await self.request(number)
        for connection in [each for each in self._open if each.request is request]:
            await connection.lost.wait()
        return request

    def opened(self, connection: Connection) -> None:
        self.connections += 1
        self._open.add(connection)
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._open:
            connection.closed_here = True
            connection.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while (request := await read_request(connection)) is not None:
                connection.request = request
                async with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                await self._answer(Exchange(connection, request, self.gap_s))
                request.finished_ns = perf_counter_ns()
                if connection.closed_here:
                    return
            connection.close()

    async def _answer(self, x: Exchange) -> None:
        request = x.request
        if request.method == "GET" and request.path.endswith("/models"):
            models = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in SCENARIOS]
            await x.reply("200 OK", orjson.dumps({"object": "list", "data": models}))
        elif request.model not in SCENARIOS:
            body = wire.error(f"No scenario {request.model!r}", "invalid_request_error", "model_not_found")
            await x.reply("404 Not Found", orjson.dumps(body))
        elif request.model.startswith("ok") and not request.json.get("stream"):
            await GOOD["ok-nonstream"](x)
        else:
            await SCENARIOS[request.model](x)


async def read_request(connection: Connection) -> Request | None:
    """Read one request with a Content-Length, stamped after its last byte; None where the client closed."""
    try:
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        fields = (line.split(":", 1) for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, value in fields}
        body = await connection.reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return Request(perf_counter_ns(), method, path, headers, body, connection.number)


@contextlib.asynccontextmanager
async def scripted_upstream(gap_s: float = GAP_S, certificate: str = "") -> AsyncIterator[Upstream]:
    """Serve every scenario on a free port of 127.0.0.1; `up.url` is the base URL, with /v1.

    `gap_s` is the pause between tokens. With a `certificate` ("good", "self-signed", "expired", "wrong-host")
    the server speaks TLS; `up.authority.trust()` is a client context in which only "good" passes.
    """
    up = Upstream(gap_s)
    context = None
    if certificate:
        up.authority = Authority()
        context = up.authority.server(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(up.connections, up.opened), "127.0.0.1", 0, ssl=context)
    up.url = address(server.sockets[0], "https" if certificate else "http")
    try:
        yield up
    finally:
        server.close()
        await up.end()


def address(sock: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{sock.getsockname()[1]}/v1"


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """U1: yield the base URL of a port that refuses: bound, so nobody can take it, but not listening."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield address(sock)


@contextlib.contextmanager
def silent_port(scheme: str = "https", receive_buffer_bytes: int = 4096) -> Iterator[str]:
    """Yield the base URL of a port that takes connections and never reads or writes a byte.

    With https it is U3's handshake stall; with http U33, where a prompt of several MB fills the buffers (the
    sender's hold up to the maximum of net.ipv4.tcp_wmem, usually 4 MB) and the client is left writing.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.bind(("127.0.0.1", 0))
        sock.listen(16)
        yield address(sock, scheme)


@contextlib.contextmanager
def full_port() -> Iterator[str]:
    """Yield the base URL of a port whose queue is full, so that a connection is neither taken nor refused."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        yield address(sock)
