"""The end of single connections: clients that leave, applications that leave, applications that do not."""

import time
from functools import partial

import pytest

from tests.hostwatch import measurements
from tests.server.clients import (
    body_of,
    connect,
    frame,
    here,
    open_websocket,
    read_all,
    read_close_code,
    read_head,
    request_bytes,
    reset,
    upgrade_bytes,
)
from tests.server.conftest import eventually


@pytest.mark.parametrize(
    ("kind", "how"),
    [("http", "fin"), ("http", "reset"), ("websocket", "fin"), ("websocket", "reset"), ("websocket", "close frame")],
)
def test_an_application_is_told_at_once_that_its_client_left(server, kind, how):
    def delay_ms():
        name = here("endless")
        sock = open_endless(kind, server.port, name)
        left_ns = time.perf_counter_ns()
        leave(sock, how)
        eventually(partial(ended, server, name), "the application ends")
        assert server.state()["endings"][name] == "client left"
        return (server.state()["ended_ns"][name] - left_ns) / 1e6

    for measurement in measurements():
        delays_ms = [delay_ms() for _ in range(5)]
        with measurement:
            assert min(delays_ms) < 50


def open_endless(kind, port, name):
    if kind == "websocket":
        return open_websocket(port, f"/endless/{name}")
    sock = connect(port)
    sock.sendall(request_bytes(f"/endless/{name}"))
    read_head(sock)
    return sock


def leave(sock, how):
    if how == "reset":
        reset(sock)
        return
    if how == "close frame":
        sock.sendall(frame(b"\x03\xe8", opcode=8))
    sock.close()


def ended(server, name):
    return name in server.state()["endings"]


@pytest.mark.parametrize(("sent", "told"), [(b"\x03\xe9", "1001"), (b"\x0f\xa8bye", "4008"), (b"", "1005")])
def test_an_application_is_told_the_clients_close_code(server, sent, told):
    name = here("echo")
    with open_websocket(server.port, f"/echo/{name}") as sock:
        sock.sendall(frame(sent, opcode=8))
        eventually(lambda: name in server.state()["endings"], "the application ends")
    assert server.state()["endings"][name] == told


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 4008])
def test_an_application_may_close_with_any_registered_code(server, code):
    with open_websocket(server.port, f"/close_with/{code}") as sock:
        assert read_close_code(sock) == code


def test_a_failed_application_is_answered_with_an_error_in_plain_words(start):
    server = start()
    with connect(server.port) as sock:
        sock.sendall(request_bytes("/fail", "Connection: close"))
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"on purpose" not in answer
    assert "on purpose" in server.log


def test_a_stream_that_fails_in_the_middle_looks_cut(server):
    with connect(server.port) as sock:
        sock.sendall(request_bytes("/fail/late"))
        answer = read_all(sock)
    assert answer.endswith(b"4\r\nhalf\r\n")


def test_a_failed_application_closes_its_socket_with_1011(server):
    with open_websocket(server.port, "/fail") as sock:
        assert read_close_code(sock) == 1011


def test_an_application_that_returns_closes_its_socket(server):
    with open_websocket(server.port, "/return_early") as sock:
        assert read_close_code(sock) == 1000


def test_a_rejected_socket_is_answered_with_403(server):
    with connect(server.port) as sock:
        sock.sendall(upgrade_bytes("/reject"))
        assert read_all(sock).startswith(b"HTTP/1.1 403 ")


def test_an_application_that_ignores_the_end_is_cancelled_and_named_in_the_log(start):
    server, name = start(application_close_s=0.2), here("stubborn")
    with connect(server.port) as sock:
        sock.sendall(request_bytes(f"/stubborn/{name}"))
        read_head(sock)
    eventually(lambda: server.state()["endings"].get(name) == "cancelled", "cancelled")
    assert server.log.count("after its client had left and was cancelled") == 1
    assert name in server.log


def test_a_peer_that_answers_no_ping_is_dropped(start):
    server, name = start(ping_interval_s=0.1, ping_timeout_s=0.2), here("silent")
    with open_websocket(server.port, f"/echo/{name}"):
        eventually(lambda: server.state()["endings"].get(name) == "1006", "dropped")


def test_a_head_request_to_a_stream_gets_no_body(server):
    with connect(server.port) as sock:
        sock.sendall(request_bytes(f"/paced/{here('head')}", "Connection: close", method="HEAD"))
        assert body_of(read_all(sock)) == b""
