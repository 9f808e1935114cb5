"""Limits on what clients send: each ends its own connection, in plain words, before anything is stored."""

import asyncio
import json
import socket
from contextlib import suppress

import pytest

from tests.hostwatch import Patience
from tests.server.clients import (
    aget,
    body_of,
    connect,
    frame,
    get,
    here,
    open_websocket,
    read_all,
    read_close_code,
    read_frame,
    read_head,
    request_bytes,
    reset,
    send_until_blocked,
    upgrade_bytes,
)
from tests.server.conftest import eventually
from webapp.server.limits import DEFAULT_LIMITS

MIB = 1024 * 1024
MOST = DEFAULT_LIMITS.message_bytes


def in_chunks(body: bytes, size: int = 65536) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def post(port: int, body: bytes, chunked: bool) -> bytes:
    """Send the whole body whatever the server says, as simple clients do; return what it said."""
    header = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    with connect(port) as sock:
        sock.sendall(request_bytes("/body_size", header, "Connection: close", method="POST"))
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(in_chunks(body) if chunked else body)
        return read_all(sock)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_ten_mebibytes_is_refused_and_never_stored(server, chunked):
    before = server.state()
    answer = post(server.port, bytes(10 * MIB), chunked)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body_of(answer))["error"]["message"].startswith("The request body is larger than")
    after = server.state()
    assert after["temporary_files"] == before["temporary_files"]
    assert after["rss"] - before["rss"] < 4 * MIB


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 99_999, 100_000, MIB])
def test_a_body_within_the_limit_arrives_whole(server, size, chunked):
    assert json.loads(body_of(post(server.port, bytes(size), chunked))) == {"size": size}


def test_a_large_body_is_held_in_memory_and_not_in_a_file(server):
    before = server.state()["temporary_files"]
    with connect(server.port) as sock:
        sock.sendall(request_bytes("/body_size", f"Content-Length: {MIB}", method="POST") + bytes(MIB - 1))
        assert server.state()["temporary_files"] == before


def test_a_client_that_asks_first_is_not_told_to_go_on(server):
    with connect(server.port) as sock:
        sock.sendall(request_bytes("/body_size", f"Content-Length: {2 * MIB}", "Expect: 100-continue", method="POST"))
        assert read_head(sock).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request_bytes("/describe", "X-Long: " + "x" * 20_000), 431),
        (request_bytes("/" + "x" * 20_000), 431),
        (request_bytes("/describe", *[f"X-{n}: x" for n in range(101)]), 400),
        (request_bytes("/describe", *[f"X-{n}: {'x' * 300}" for n in range(99)]), 400),
        (request_bytes("/describe", "Content-Length: 5", "Content-Length: 6"), 400),
        (request_bytes("/describe", "Content-Length: " + "9" * 5000), 400),
        (request_bytes("/describe", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (request_bytes("/describe", "Transfer-Encoding: chunked") + b"nonsense\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_malformed_requests_are_refused_in_plain_words(server, sent, status):
    with connect(server.port) as sock:
        sock.sendall(sent)
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert json.loads(body_of(answer))["error"]["code"] == status


@pytest.mark.parametrize("part", [b"GET /describe HT", b"POST /body_size HTTP/1.1\r\nContent-Length: 9\r\n\r\nfour"])
async def test_a_request_that_trickles_is_given_up_in_time(start, part):
    server = start(arrival_s=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = asyncio.create_task(reader.read())
    for byte in part:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.005)
    patience = Patience(2)
    while not answer.done():
        assert patience.left, "it was waited for all of 2 s"
        await asyncio.sleep(0.01)
    assert await answer == b"" or (await answer).startswith(b"HTTP/1.1 408 ")
    writer.close()
    assert await aget(server.port, "/paced/after")


def test_nobody_can_name_the_root_path_or_another_client(server):
    with connect(server.port) as sock:
        headers = ("Daphne-Root-Path: /evil", "X-Forwarded-For: 8.8.8.8", "X_Under_Score: 1", "Connection: close")
        sock.sendall(request_bytes("/describe", *headers))
        answer = read_all(sock)
    described = json.loads(body_of(answer))
    assert described["root_path"] == ""
    assert described["client"][0] == "127.0.0.1"
    assert "x_under_score" not in described["headers"]
    assert b"\r\nserver:" not in answer.lower()


def test_small_messages_are_not_held_back_by_the_kernel(server):
    assert get(server.port, "/describe")["nodelay"] == 1


def test_an_oversize_message_closes_its_own_socket_with_1009_and_one_line(start):
    server = start()
    with open_websocket(server.port, "/echo/large") as large, open_websocket(server.port, "/echo/small") as small:
        large.sendall(frame(b"x" * MOST))
        assert read_frame(large) == (1, b"x" * MOST)
        large.sendall(frame(b"x" * (MOST + 1)))
        assert read_close_code(large) == 1009
        small.sendall(frame(b"still here"))
        assert read_frame(small) == (1, b"still here")
    eventually(lambda: "large" in server.state()["endings"], "the application is told")
    assert server.log.count("closed with 1009") == 1
    assert server.state()["counts"] == {"large": 1, "small": 1}


def test_an_oversize_message_in_pieces_is_refused_too(server):
    with open_websocket(server.port, f"/echo/{here('pieces')}") as sock:
        sock.sendall(frame(b"x" * (MOST - 1), final=False))
        sock.sendall(frame(b"x" * 2, opcode=0))
        assert read_close_code(sock) == 1009


def test_a_message_of_endless_empty_pieces_is_refused(server):
    with open_websocket(server.port, f"/echo/{here('empty')}") as sock:
        sock.sendall(frame(b"", final=False) + frame(b"", opcode=0, final=False) * 1100)
        assert read_close_code(sock) == 1008


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(b"\xff\xfe"), 1007),
        (b"\xf1\x80" + bytes(4), 1002),  # reserved bits without an extension
        (frame(b"", opcode=0), 1002),  # a continuation of nothing
        (frame(b"", opcode=3), 1002),
        (b"\x81\x01x", 1002),  # not masked
    ],
)
def test_a_broken_frame_is_answered_with_its_close_code(server, bad, code):
    with open_websocket(server.port, f"/echo/{here('broken')}") as sock:
        sock.sendall(bad)
        assert read_close_code(sock) == code


@pytest.mark.parametrize("size", [1, 1000])
def test_a_flood_fills_the_senders_side_and_not_the_server(server, size):
    name, message = here("flooded"), frame(b"m" * size)
    total = (16 * MIB) // len(message)
    before = server.state()["rss"]
    with open_websocket(server.port, f"/slow_reader/{name}") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sent = send_until_blocked(sock, message * total)
        assert sent < len(message) * total
        assert server.state()["rss"] - before < 4 * MIB
        get(server.port, f"/release/{name}")
        sock.sendall(message[sent % len(message) :] if sent % len(message) else b"")
        expected = -(-sent // len(message))
        eventually(lambda: server.state()["counts"].get(name) == expected, "every message arrives", 20)
        reset(sock)
    eventually(lambda: server.state()["endings"].get(name) == "left", "the application learns of the end")


def test_a_flood_before_the_socket_is_accepted_is_cut_off(server):
    name, before = here("early"), server.state()["rss"]
    with connect(server.port) as sock:
        sock.sendall(upgrade_bytes(f"/undecided/{name}"))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sock.sendall(frame(b"m" * 1000) * 16_000)
    assert server.state()["rss"] - before < 4 * MIB


def test_requests_on_one_connection_are_answered_in_order(server):
    paths = [f"/paced/{here('pipelined')}" for _ in range(2)]
    with connect(server.port) as sock:
        sock.sendall(b"".join(map(request_bytes, paths)) + request_bytes("/describe", "Connection: close"))
        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.endswith(b'"nodelay": 1}')
