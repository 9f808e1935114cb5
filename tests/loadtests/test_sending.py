"""A request is sent when its write begins. The write wakes the server, and a busy host may let it run instead of us."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from loadtests import http, websocket
from webapp.core.timing import Marks

HELD_NS = 64_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n"


class Host:
    """A clock, and a socket whose write comes back long after its bytes have gone."""

    def __init__(self) -> None:
        self.at_ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.at_ns

    def sendall(self, data: bytes) -> None:
        self.at_ns += HELD_NS

    def recv(self, size: int) -> bytes:
        return HEAD

    def settimeout(self, seconds: float | None) -> None:
        pass


class Refusing(Host):
    """The same, but its connection is gone."""

    def sendall(self, data: bytes) -> None:
        raise BrokenPipeError


def endpoint(host: Host) -> http.Endpoint:
    """An endpoint whose connection goes through that socket."""
    made = http.Endpoint("http://127.0.0.1:1/v1")
    pool: Any = SimpleNamespace(
        get_socket=lambda: host, unused=set(), release_socket=lambda _: None, return_socket=lambda _: None
    )
    made._pool = pool
    return made


def exchange() -> Any:
    question = SimpleNamespace(opens=False, system="", max_tokens=5, exactly=False)
    return SimpleNamespace(marks=Marks(intended=0), socket=None, job=SimpleNamespace(question=question, prompt="x"))


def test_a_request_over_http_is_sent_before_its_write_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    host, one = Host(), exchange()
    monkeypatch.setattr(http, "now_ns", host.now_ns)
    before_ns = host.at_ns
    endpoint(host)._send(one, b"{}")
    assert one.marks.sent == before_ns
    assert one.marks.headers == before_ns + HELD_NS


def test_a_request_that_could_not_be_written_was_not_sent() -> None:
    one = exchange()
    with pytest.raises(BrokenPipeError):
        endpoint(Refusing())._send(one, b"{}")
    assert one.marks.sent is None


def test_a_question_on_the_pages_socket_is_sent_before_its_write_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    host, one = Host(), exchange()
    monkeypatch.setattr(websocket, "now_ns", host.now_ns)
    before_ns = host.at_ns
    page = websocket.Page("ws://127.0.0.1:1")
    monkeypatch.setattr(page, "_send", lambda message: host.sendall(b""))
    page._run(one)
    assert one.marks.sent == before_ns
