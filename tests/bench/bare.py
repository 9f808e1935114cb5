"""A bare asyncio relay: what is left when everything but the job is taken away. A Protocol on each side, no framework.

    python -m tests.bench.bare --upstream PORT

prints `bare http://127.0.0.1:PORT`. For each token it does what ours must do: take the time, find the event, parse its
JSON, write an event of its own. It checks nothing and survives nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import time
from functools import partial

import orjson

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Reads the backend's chunked event stream and writes each token to the viewer with its arrival time."""

    def __init__(self, viewer: Viewer, request: bytes) -> None:
        self.viewer = viewer
        self.request = request
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]
        self.viewer.transport.write(HEAD)

    def data_received(self, data: bytes) -> None:
        at_ns = time.monotonic_ns()
        *events, self.rest = (self.rest + data).split(b"\n\n")
        for event in events:
            start = event.find(b"data: {")
            if start < 0:
                continue
            choices = orjson.loads(event[start + 6 :])["choices"]
            text = choices[0]["delta"].get("content") if choices else None
            if text:
                body = b"data: " + orjson.dumps({"at_ns": at_ns, "text": text}) + b"\n\n"
                self.viewer.transport.write(b"%x\r\n%b\r\n" % (len(body), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.viewer.transport.close()


class Viewer(asyncio.Protocol):
    """Takes one request and hands it on as it came."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.upstream: Upstream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.upstream = Upstream(self, data)
        loop = asyncio.get_running_loop()
        upstream = self.upstream
        self.opening = loop.create_task(loop.create_connection(lambda: upstream, "127.0.0.1", self.upstream_port))

    def pause_writing(self) -> None:
        if self.upstream:
            self.upstream.transport.pause_reading()  # type: ignore[attr-defined]

    def resume_writing(self) -> None:
        if self.upstream:
            self.upstream.transport.resume_reading()  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        if self.upstream:
            self.upstream.transport.close()


async def serve(upstream_port: int) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(partial(Viewer, upstream_port), "127.0.0.1", 0, backlog=4096)
    gc.freeze()
    print(f"bare http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bare")
    parser.add_argument("--upstream", type=int, required=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().upstream))


if __name__ == "__main__":
    main()
