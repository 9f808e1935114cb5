"""The reference stream: a server whose every token says when it was written, in a process of its own.

    python -m tests.upstreams.reference --port 0 --rate 50 --tokens 200

prints `reference http://127.0.0.1:PORT/v1` and serves until it is killed. Each token is the text `@NANOSECONDS `, 19
digits of CLOCK_MONOTONIC read right before its write (perf_counter_ns has the same clock on Linux), so that a benchmark
reads lateness instead of guessing it. The model name or the JSON fields of the request choose the stream:

    ref                     the process's own settings
    ref-2000x400            2,000 tokens a second, 400 of them
    ref-2000x400+50ms       the first one 50 ms after the request's arrival
    ref-10x200~             phases spread over one gap, so that 1,000 streams do not all write at once
    ref-maxx100000          as fast as the connection takes them
    {"rate": 2000, "tokens": 400, "start_ms": 50, "spread": true}      the same as fields; rate 0 is "max"

`max_tokens` cuts an answer short. `GET /log` lists the streams that ended: arrival, when the first token was written,
tokens, when the client left, and by how much the worst token was late against the asked pace. A request arrives when
the kernel takes it in, not when this process finds the time to look: that it was busy is its own lateness, not that of
who measures it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import re
import resource
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from tests.upstreams.ticker import Ticker

MODEL = re.compile(r"ref(?:-(?P<rate>[\d.]+|max)x(?P<tokens>\d+))?(?:\+(?P<start_ms>[\d.]+)ms)?(?P<spread>~)?")
GOLDEN = 0.6180339887498949  # successive multiples of it, mod 1, fill an interval evenly at every count
TIMESTAMPNS = 35  # SO_TIMESTAMPNS and SCM_TIMESTAMPNS of socket(7), which Python does not name
READ_BYTES = 65_536
BATCH_TOKENS = 64  # per write and turn of the loop where the rate is "max"

CHUNK = (
    b'data: {"id":"chatcmpl-ref","object":"chat.completion.chunk","created":1767225600,"model":"ref",'
    b'"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n'
)
ROLE = CHUNK % (b'{"role":"assistant","content":""}', b"null")
TOKEN = CHUNK % (b'{"content":"@%019d "}', b"null")
STOP = CHUNK % (b"{}", b'"length"')
USAGE = (
    b'data: {"id":"chatcmpl-ref","object":"chat.completion.chunk","created":1767225600,"model":"ref","choices":[],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)
DONE = b"data: [DONE]\n\n"
TYPE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stream sends: tokens per second (0: no limit), how many, and how long after arrival the first is due."""

    rate: float = 50.0
    tokens: int = 200
    start_ms: float = 0.0
    spread: bool = False

    def asked(self, request: dict[str, Any]) -> Plan | None:
        """Return this plan as changed by a request's model name and fields; None for a name that is not ours."""
        named = MODEL.fullmatch(str(request.get("model", "")))
        if named is None:
            return None
        asked = {name: value for name, value in named.groupdict().items() if value}
        asked |= {name: request[name] for name in ("rate", "tokens", "start_ms", "spread") if name in request}
        rate = asked.get("rate", self.rate)
        tokens = int(asked.get("tokens", self.tokens))
        return Plan(
            rate=0.0 if rate == "max" else float(rate),
            tokens=min(tokens, int(request.get("max_tokens") or tokens)),
            start_ms=float(asked.get("start_ms", self.start_ms)),
            spread=bool(asked.get("spread", self.spread)),
        )


class Server:
    """What the connections share: the ticker, the plan where a request names none, and the log."""

    def __init__(self, ticker: Ticker, plan: Plan) -> None:
        self.ticker = ticker
        self.plan = plan
        self.streams = 0
        self.open = 0
        self.log: deque[dict[str, Any]] = deque(maxlen=20_000)
        self.incoming = bytearray(READ_BYTES)  # one for all: what is read is taken out at once

    def report(self) -> bytes:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return orjson.dumps({"open": self.open, "cpu_s": used.ru_utime + used.ru_stime, "streams": list(self.log)})


class Stream:
    """One answer being written. `emit` writes the tokens that are due and returns when the next one is, or None."""

    def __init__(self, server: Server, connection: Connection, model: str, plan: Plan, wants_usage: bool) -> None:
        self.server = server
        self.connection = connection
        self.model = model
        self.plan = plan
        self.wants_usage = wants_usage
        self.arrival_ns = connection.arrived_ns
        self.gap_ns = 1e9 / plan.rate if plan.rate else 0.0
        phase = (server.streams * GOLDEN) % 1.0 if plan.spread else 0.0
        self.first_ns = self.arrival_ns + plan.start_ms * 1e6 + phase * self.gap_ns
        self.sent = 0
        self.written_ns = 0  # of the first token
        self.late_ns = 0
        self.paused = False
        self.waiting = False  # paused, and no longer on the ticker
        self.over = False
        server.streams += 1
        server.open += 1
        connection.write(ROLE)
        server.ticker.at(int(self.first_ns), self.emit)

    def emit(self) -> int | None:
        """Write one token, or one batch where there is no rate. A full connection is left alone until `resume`."""
        if self.paused or self.over:
            self.waiting = True
            return None
        if self.sent < self.plan.tokens:
            due_ns = int(self.first_ns + self.sent * self.gap_ns)
            if self.plan.rate:
                now_ns = time.monotonic_ns()
                self.connection.write(TOKEN % now_ns)
                self.written_ns = self.written_ns or now_ns
                self.late_ns = max(self.late_ns, now_ns - due_ns)
                self.sent += 1
                return int(due_ns + self.gap_ns)
            count = min(BATCH_TOKENS, self.plan.tokens - self.sent)
            self.sent += count
            self.connection.write(b"".join([TOKEN % time.monotonic_ns() for _ in range(count)]))
            return time.monotonic_ns()
        usage = USAGE % (self.sent, self.sent + 7) if self.wants_usage else b""
        self.connection.write(STOP + usage + DONE)
        self.connection.end()
        self.finish(None)
        return None

    def resume(self) -> None:
        self.paused = False
        if self.waiting:
            self.waiting = False
            self.server.ticker.at(int(self.first_ns + self.sent * self.gap_ns), self.emit)

    def finish(self, closed_ns: int | None) -> None:
        """Log the stream, once; `closed_ns` is when the client left before the end, None if it did not."""
        if self.over:
            return
        self.over = True
        self.connection.stream = None
        self.server.open -= 1
        entry = {"model": self.model, "arrival_ns": self.arrival_ns, "tokens": self.sent, "closed_ns": closed_ns}
        times = {"written_ns": self.written_ns, "end_ns": time.monotonic_ns(), "late_us": self.late_ns // 1000}
        self.server.log.append({**entry, **times})


def arrival_ns(sock: socket.socket) -> int:
    """Return when what waits to be read arrived at this machine, ns of CLOCK_MONOTONIC: the kernel's own stamp."""
    now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    try:
        _, messages, *_ = sock.recvmsg(READ_BYTES, socket.CMSG_SPACE(16), socket.MSG_PEEK)
    except OSError:
        return now_ns  # the read that follows will find the same
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, TIMESTAMPNS):
            seconds, ns = struct.unpack("qq", data)
            return now_ns - (wall_ns - seconds * 1_000_000_000 - ns)
    return now_ns


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 as far as a benchmark needs it: one request at a time, a Content-Length, chunks in the answer."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.stream: Stream | None = None
        self.chunked = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.sock: socket.socket = transport.get_extra_info("socket")._sock  # asyncio's own wrapper cannot peek

    def write(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end(self) -> None:
        if self.chunked:
            self.transport.write(b"0\r\n\r\n")
        else:
            self.transport.close()

    def get_buffer(self, sizehint: int) -> bytearray:
        self.arrived_ns = arrival_ns(self.sock)
        return self.server.incoming

    def buffer_updated(self, nbytes: int) -> None:
        self.buffer += self.server.incoming[:nbytes]
        head, blank, rest = self.buffer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        wanted = int(length[1]) if length else 0
        if not blank or len(rest) < wanted:
            return
        self.buffer = rest[wanted:]
        line = head.partition(b"\r\n")[0]
        self.chunked = line.endswith(b"HTTP/1.1")
        if line.startswith(b"POST"):
            self.begin(orjson.loads(rest[:wanted]))
        else:
            self.reply(b"200 OK", self.server.report() if b"/log" in line else b'{"data":[{"id":"ref"}]}')

    def begin(self, request: dict[str, Any]) -> None:
        plan = self.server.plan.asked(request)
        if plan is None:
            self.reply(b"404 Not Found", b'{"error":{"message":"models here are ref, ref-RATExTOKENS"}}')
            return
        coding = b"Transfer-Encoding: chunked\r\n\r\n" if self.chunked else b"Connection: close\r\n\r\n"
        self.transport.write(TYPE + coding)
        options = request.get("stream_options") or {}
        self.stream = Stream(self.server, self, str(request["model"]), plan, bool(options.get("include_usage")))

    def reply(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)

    def pause_writing(self) -> None:
        if self.stream:
            self.stream.paused = True

    def resume_writing(self) -> None:
        if self.stream:
            self.stream.resume()

    def eof_received(self) -> None:
        self.left(time.monotonic_ns())

    def connection_lost(self, exc: Exception | None) -> None:
        self.left(time.monotonic_ns())

    def left(self, at_ns: int) -> None:
        if self.stream:
            self.stream.finish(at_ns)


async def serve(host: str, port: int, plan: Plan) -> None:
    loop = asyncio.get_running_loop()
    server = Server(Ticker(loop), plan)
    listening = await loop.create_server(partial(Connection, server), host, port, backlog=4096)
    for sock in listening.sockets:
        sock.setsockopt(socket.SOL_SOCKET, TIMESTAMPNS, 1)  # connections inherit it, before their first byte
    gc.freeze()
    print(f"reference http://{host}:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upstreams.reference", description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one, which is printed")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens per second of each stream; 0: no limit")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--start-ms", type=float, default=0.0, help="from a request's arrival to its first token")
    parser.add_argument("--spread", action="store_true", help="spread the phases of the streams over one gap")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(args.host, args.port, Plan(args.rate, args.tokens, args.start_ms, args.spread)))


if __name__ == "__main__":
    main()
