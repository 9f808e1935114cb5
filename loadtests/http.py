"""Streams over HTTP: connections and parser of geventhttpclient (FastHttpUser's engine), read by ourselves.

Locust's own `iter_lines` waits for 1,024 bytes before it looks, and its request event ends at the headers. Here the
clock is read right after each `recv` (see `inbox`), and connecting, sending and the headers have marks of their own.
"""

from __future__ import annotations

import socket as sockets
import ssl
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import gevent  # type: ignore[import-untyped]
import gevent.socket  # type: ignore[import-untyped]
import orjson
from geventhttpclient._parser import HTTPParseError
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from geventhttpclient.response import HTTPConnectionClosed, HTTPSocketPoolResponse

from loadtests.exchange import LIMITS, Exchange
from loadtests.inbox import LONG_BYTES, READ_BYTES, Inbox
from webapp.clock import now_ns
from webapp.core import openai
from webapp.core.errors import StreamError
from webapp.core.meter import StreamMeter
from webapp.core.spec import PromptSpec

Socket: TypeAlias = gevent.socket.socket
EDGE_BYTES = 1_024
MOST_CONNECTIONS = 10_000
REST_S = 0.05  # how long the end of a body may come after the end of its stream, before the connection is given up
ERROR_BODY_BYTES = 65_536
KIND_OF_STATUS = {
    400: "bad_request", 401: "auth", 403: "auth", 404: "not_found", 413: "bad_request", 422: "bad_request",
    429: "rate_limited",
}  # fmt: skip


class _Fresh:
    """Mixed into a pool: remembers which sockets nobody has used yet."""

    slow = False

    def after_connect(self, sock: Socket) -> None:
        sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        if self.slow:
            sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        self.unused.add(sock)

    @property
    def unused(self) -> set[Socket]:
        found: set[Socket] = self.__dict__.setdefault("_unused", set())
        return found


class PlainPool(_Fresh, ConnectionPool):
    """Connections to an http:// host."""


class TLSPool(_Fresh, SSLConnectionPool):
    """Connections to an https:// host; certificates are checked."""


class Answer:
    """What arrives on a connection, out of its HTTP frame and into a meter."""

    def __init__(self, response: HTTPSocketPoolResponse, meter: StreamMeter) -> None:
        self._response, self._meter = response, meter

    @property
    def begun(self) -> bool:
        """Whether its first token has come."""
        return self._meter.marks.first_token is not None

    def take(self, data: bytes, at_ns: int) -> bool:
        """Measure a read, b"" for the end of the connection; return whether the answer is over. Raises HTTPParseError
        for what is no HTTP."""
        self._response.feed(data)
        return self.measure(at_ns) or not data

    def measure(self, at_ns: int) -> bool:
        """Measure what has come out of the frame; return whether the answer is over."""
        buffer, meter = self._response._body_buffer, self._meter
        if buffer:
            for part in parts(bytes(buffer)):
                meter.receive(part, at_ns)
            del buffer[:]
        return meter.ended or self._response.message_complete


class Endpoint:
    """A chat completions endpoint, with the connections that all users of this process share."""

    def __init__(self, base_url: str, key: str = "", read_bytes_per_s: float = 0.0) -> None:
        parts = urlsplit(base_url)
        host, tls = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        common: dict[str, Any] = {"size": MOST_CONNECTIONS, "connection_timeout": LIMITS.connect_s}
        if tls:
            context = ssl.create_default_context
            self._pool: PlainPool | TLSPool = TLSPool(
                host, port, host, port, ssl_context_factory=context, ssl_options={"server_hostname": host}, **common
            )
        else:
            self._pool = PlainPool(host, port, host, port, **common)
        self._pool.slow = bool(read_bytes_per_s)
        self._slow_bytes_per_s = read_bytes_per_s
        path = parts.path.rstrip("/") + "/chat/completions"
        auth = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{auth}"
            "Accept: text/event-stream\r\nAccept-Encoding: identity\r\nX-Splitsecond-Keep: 0\r\nContent-Length: "
        ).encode("latin-1")

    def ask(self, exchange: Exchange) -> None:
        """Send the exchange's job and read its answer to the end. Raises StreamError."""
        job, marks = exchange.job, exchange.marks
        question = job.question
        prompt = PromptSpec(job.messages(), max_tokens=question.max_tokens, ignore_eos=question.exactly)
        body = openai.request_body(job.target.model, prompt)
        meter = StreamMeter(marks=marks, deltas=exchange.deltas)
        try:
            response, sock = self._send(exchange, body)
            try:
                self._check(response, sock, exchange)
                self._read(response, sock, meter, exchange)
                self._rest(response, sock)
            finally:
                exchange.socket = None
                response.release()
        except StreamError:
            raise
        except (OSError, HTTPParseError) as error:
            raise connection_error(error, exchange) from None
        finally:
            exchange.usage, exchange.received_bytes, exchange.chars = meter.usage, meter.received_bytes, meter.chars
            if meter.server_times:
                exchange.server_ms = dict(meter.server_times)
        meter.finish(now_ns())

    def close(self) -> None:
        self._pool.close()

    def _send(self, exchange: Exchange, body: bytes) -> tuple[HTTPSocketPoolResponse, Socket]:
        marks, pool = exchange.marks, self._pool
        start_ns = now_ns()
        sock = pool.get_socket()
        if sock in pool.unused:
            pool.unused.discard(sock)
            marks.connect, marks.connected = start_ns, now_ns()
        exchange.socket = sock
        sock.settimeout(LIMITS.write_s)
        request = self._head + b"%d\r\n\r\n" % len(body) + body
        try:
            marks.sent = now_ns()  # before: the write wakes the server, and a busy host lets it run instead of us
            sock.sendall(request)
        except BaseException:
            marks.sent = None
            pool.release_socket(sock)
            raise
        sock.settimeout(None)  # from here the sweeper watches; a timer per read would cost as much as the read
        response = HTTPSocketPoolResponse(sock, pool, block_size=READ_BYTES, method="POST")
        marks.headers = now_ns()
        return response, sock

    def _check(self, response: HTTPSocketPoolResponse, sock: Socket, exchange: Exchange) -> None:
        """Raise StreamError for anything but an event stream."""
        exchange.status = status = response.status_code
        kind = str(response.get("content-type", ""))
        if status == 200 and kind.startswith("text/event-stream"):
            if (encoded := openai.unasked_encoding(str(response.get("content-encoding", "")))) is not None:
                raise encoded
            return
        body = _whole(response, sock)
        if status == 200:
            raise StreamError("not_a_stream", f"The answer is {kind[:60] or 'of no type'}, not an event stream.")
        said = openai.error_text(body)
        detail = body.get("error") if isinstance(body, dict) else None
        code = detail.get("code") if isinstance(detail, dict) else None
        # The app names the kind of what went wrong behind it.
        known = detail is not None and isinstance(detail, dict) and detail.get("type") == "upstream_error"
        kind = str(code) if known and code else KIND_OF_STATUS.get(status, "http_status")
        raise StreamError(kind, f"HTTP {status}{': ' + said if said else ''}", status=status)

    def _read(self, response: HTTPSocketPoolResponse, sock: Socket, meter: StreamMeter, exchange: Exchange) -> None:
        answer = Answer(response, meter)
        if answer.measure(meter.marks.headers or 0):
            return
        if self._slow_bytes_per_s or isinstance(self._pool, TLSPool):
            self._read_turn_by_turn(answer, sock)
            return
        inbox = exchange.inbox = Inbox(sock, answer)
        try:
            inbox.read()
        finally:
            exchange.inbox = None

    def _read_turn_by_turn(self, answer: Answer, sock: Socket) -> None:
        """Read as much as there is, take it, read again: slowly, or out of a TLS connection, which holds bytes back
        that no event of the socket tells of."""
        slow = self._slow_bytes_per_s
        size = max(256, round(slow / 4)) if slow else READ_BYTES
        while True:
            data = sock.recv(size)
            at_ns = now_ns()
            if answer.take(data, at_ns):
                return
            if slow:
                gevent.sleep(len(data) / slow)

    def _rest(self, response: HTTPSocketPoolResponse, sock: Socket) -> None:
        """Take the end of the body after the end of the stream, so that the connection can be used again."""
        if response.message_complete:
            return
        sock.settimeout(REST_S)
        try:
            while not response.message_complete:
                data = sock.recv(READ_BYTES)
                response.feed(data)
                if not data:
                    return
        except (OSError, HTTPParseError):
            return  # `release` closes what is not complete


def parts(data: bytes) -> tuple[bytes, ...]:
    """Return a long read in three: its first events, its last, and those between. What is not plain text stands at the
    beginning or the end of an answer; the meter parses a part that holds any such event, and only copies the others.
    """
    if len(data) < LONG_BYTES:
        return (data,)
    head, tail = data.find(b"\n\n", EDGE_BYTES) + 2, data.find(b"\n\n", len(data) - EDGE_BYTES) + 2
    return (data[:head], data[head:tail], data[tail:]) if 2 <= head <= tail else (data,)


def _whole(response: HTTPSocketPoolResponse, sock: Socket) -> Any:
    """Return the body of a refusal as JSON, or as text."""
    sock.settimeout(LIMITS.connect_s)
    buffer = response._body_buffer
    try:
        while not response.message_complete and len(buffer) < ERROR_BODY_BYTES:
            data = sock.recv(READ_BYTES)
            response.feed(data)
            if not data:
                break
    except (OSError, HTTPParseError):
        pass
    data = bytes(buffer)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data[:300].decode("utf-8", "replace")


def connection_error(error: Exception, exchange: Exchange) -> StreamError:
    """Return what a failing connection means, in the words of the product."""
    if exchange.verdict:
        return StreamError(exchange.verdict, f"Nothing more came in time ({exchange.verdict.replace('_', ' ')}).")
    if exchange.marks.sent is None:
        if isinstance(error, ConnectionRefusedError):
            return StreamError("refused", "The connection was refused.")
        if isinstance(error, sockets.gaierror):
            return StreamError("dns", "The host's name has no address.")
        if isinstance(error, ssl.SSLError):
            return StreamError("tls", f"No secure connection: {error.reason or error}")
        if isinstance(error, TimeoutError):
            return StreamError("connect_timeout", "No connection in time.")
        if not isinstance(error, ConnectionResetError | BrokenPipeError):
            return StreamError("unreachable", f"No connection: {error}")
    if isinstance(error, HTTPParseError) and not isinstance(error, HTTPConnectionClosed):
        kind = "truncated" if exchange.marks.headers else "protocol"
        return StreamError(kind, f"The answer is not complete HTTP: {error}")
    return StreamError("reset", f"The connection broke: {error}")
