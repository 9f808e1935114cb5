"""The page's end of its socket, as a synthetic user has it: wsproto on a gevent socket, JSON frames only.

Times are read here, at this end, from this clock: from sending the question to the arrival of a frame. The server's
own times ride inside the frames and are kept beside ours, never subtracted from them.
"""

from __future__ import annotations

import secrets
import socket as sockets
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import gevent.socket  # type: ignore[import-untyped]
import gevent.ssl  # type: ignore[import-untyped]
import orjson
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, RejectConnection, Request, TextMessage
from wsproto.utilities import ProtocolError

from loadtests.exchange import LIMITS, Exchange
from loadtests.http import connection_error
from webapp.clock import now_ns
from webapp.core.errors import StreamError
from webapp.core.openai import Usage

READ_BYTES = 65_536
STORM = "storm"
KINDS = {"c": "content", "r": "reasoning", "t": "tool"}
KIND_OF_OUTCOME = {"timeout": "gap_timeout", "truncated": "truncated", "interrupted": "interrupted"}


class Page:
    """One socket with one lane. Connects when first asked, and again after it was closed."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._sock: gevent.socket.socket | None = None
        self._frames: deque[tuple[int, dict[str, Any]]] = deque()
        self._partial: list[str] = []
        self._arena, self._lane, self._run_id = "", "", ""

    def ask(self, exchange: Exchange) -> None:
        """Send the exchange's job like a script of the page and read to its end. Raises StreamError."""
        try:
            if self._sock is None:
                exchange.marks.connect = now_ns()
                self._connect()
                self._attach(exchange)
                exchange.marks.connected = now_ns()
            exchange.socket = self
            self._run(exchange)
            while not self._followed(exchange):
                self._return(exchange)
        except StreamError:
            self.close()
            raise
        except (OSError, ProtocolError) as error:
            self.close()
            raise connection_error(error, exchange) from None
        finally:
            exchange.socket = None

    def close(self) -> None:
        """Leave as a closed tab does. The server stops what runs."""
        sock, self._sock = self._sock, None
        self._frames.clear()
        if sock is None:
            return
        try:
            sock.settimeout(1)
            sock.sendall(self._ws.send(CloseConnection(code=1000)))
        except (OSError, ProtocolError):
            pass
        sock.close()

    def drop(self) -> None:
        """Vanish as a lost network does: no farewell."""
        sock, self._sock = self._sock, None
        self._frames.clear()
        if sock is not None:
            sock.close()

    # -- the socket

    def _connect(self) -> None:
        parts = self._url
        tls = parts.scheme == "wss"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        sock = gevent.socket.create_connection((host, port), timeout=LIMITS.connect_s)
        sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        if tls:
            sock = gevent.ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        self._partial.clear()
        self._sock, self._ws = sock, WSConnection(ConnectionType.CLIENT)
        sock.sendall(self._ws.send(Request(host=parts.netloc, target=parts.path or "/")))
        while True:
            data = sock.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("closed during the handshake")
            self._ws.receive_data(data)
            for event in self._ws.events():
                if isinstance(event, AcceptConnection):
                    return
                if isinstance(event, RejectConnection):
                    raise StreamError("http_status", f"The socket was refused: HTTP {event.status_code}.")

    def _return(self, exchange: Exchange) -> None:
        """Come back to a running answer after a reconnect storm, with what is held of it."""
        exchange.verdict = ""
        exchange.marks.connect = now_ns()
        self._connect()
        held = {"arena": self._arena, "run": self._run_id, "have": {self._lane: len(exchange.deltas)}}
        self._attach(exchange, **held)
        exchange.marks.connected = now_ns()

    def _attach(self, exchange: Exchange, **held: Any) -> None:
        self._send({"action": "attach", "lanes": [exchange.job.target.model], **held})
        while True:
            _, frame = self._next()
            if frame.get("type") == "attached":
                break
            if frame.get("type") == "error":
                raise StreamError("bad_request", str(frame.get("message", ""))[:300])
        if not frame["lanes"]:
            raise StreamError("not_found", "The server knows no such backend.")
        self._arena, self._lane = frame["arena"], frame["lanes"][0]["lane"]
        if self._sock is not None:
            self._sock.settimeout(None)  # from here the sweeper watches

    def _send(self, message: dict[str, Any]) -> None:
        if self._sock is None:
            raise ConnectionResetError("closed")
        self._sock.sendall(self._ws.send(TextMessage(data=orjson.dumps(message).decode())))

    def _next(self) -> tuple[int, dict[str, Any]]:
        """Return the next JSON frame and when it arrived."""
        while not self._frames:
            if self._sock is None:
                raise ConnectionResetError("closed")
            data = self._sock.recv(READ_BYTES)
            at_ns = now_ns()
            if not data:
                raise ConnectionResetError("the server closed the socket")
            self._ws.receive_data(data)
            for event in self._ws.events():
                if isinstance(event, TextMessage):
                    self._partial.append(event.data)
                    if event.message_finished:
                        whole = "".join(self._partial)
                        self._partial.clear()
                        if whole.startswith("{"):
                            self._frames.append((at_ns, orjson.loads(whole)))
                elif isinstance(event, Ping):
                    self._sock.sendall(self._ws.send(event.response()))
                elif isinstance(event, CloseConnection):
                    raise ConnectionResetError(f"the server closed the socket ({event.code})")
        return self._frames.popleft()

    # -- one question

    def _run(self, exchange: Exchange) -> None:
        question = exchange.job.question
        if question.opens:
            self._send({"action": "new"})
        message = {
            "action": "run",
            "key": secrets.token_hex(8),
            "prompt": exchange.job.prompt,
            "system": question.system,
            "max_tokens": str(question.max_tokens),
            "keep": "0",
        }
        if question.exactly:
            message["full_length"] = "on"
        self._frames.clear()
        self._run_id = ""
        exchange.marks.sent = now_ns()  # before: the write wakes the server, and a busy host lets it run instead of us
        self._send(message)

    def _followed(self, exchange: Exchange) -> bool:
        """Read to the end of the answer; False where a storm took the connection away before it."""
        try:
            self._follow(exchange)
        except OSError:
            if exchange.verdict == STORM:
                return False
            raise
        return True

    def _follow(self, exchange: Exchange) -> None:
        marks = exchange.marks
        ending: dict[str, Any] = {}
        while True:
            at_ns, frame = self._next()
            kind = frame.get("type")
            if kind in ("error", "reset"):
                raise StreamError("bad_request", str(frame.get("message", ""))[:300])
            if kind == "run":
                self._run_id = frame["run"]
                marks.headers = marks.headers or at_ns
            elif not self._run_id or frame.get("run") != self._run_id:
                continue
            elif kind == "deltas":
                self._take(exchange, at_ns, frame["lanes"])
            elif kind == "end":
                ending = frame
            elif kind == "done":
                break
            if marks.first_event is None and kind in ("deltas", "end"):
                marks.first_event = at_ns
        marks.end = now_ns()
        _end(exchange, ending)

    def _take(self, exchange: Exchange, at_ns: int, lanes: dict[str, Any]) -> None:
        marks, add = exchange.marks, exchange.deltas.add
        for entry in lanes.values():
            for _, letter, text, *_ in entry["d"]:
                kind = KINDS.get(letter, "content")
                if marks.first_token is None:
                    marks.first_token = at_ns
                if kind != "reasoning" and marks.first_output is None:
                    marks.first_output = at_ns
                marks.last_token = at_ns
                add(at_ns, kind, text)


def _end(exchange: Exchange, frame: dict[str, Any]) -> None:
    """Take over how the lane ended; raise StreamError where that is a failure."""
    figures = frame.get("figures") or {}
    tokens = figures.get("output_tokens")
    if isinstance(tokens, int) and figures.get("tokens_source", "usage") == "usage":
        exchange.usage = Usage(figures.get("prompt_tokens"), tokens)
    exchange.server_ms = {"app": figures}
    outcome = str(frame.get("outcome", "truncated"))
    if outcome != "done":
        kind = str(frame.get("error_kind") or KIND_OF_OUTCOME.get(outcome, "upstream_error"))
        raise StreamError(kind, str(frame.get("error") or outcome)[:300])
