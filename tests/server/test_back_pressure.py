"""What happens to the sender, to the memory and to everybody else when a reader is slow or reads nothing."""

import asyncio
import time
from contextlib import suppress

import pytest

from tests.hostwatch import measurements
from tests.server.clients import (
    aget,
    body_of,
    connect,
    frame,
    here,
    open_websocket,
    read_all,
    read_frame,
    read_head,
    request_bytes,
)
from tests.server.conftest import eventually, settled
from tests.server.tiny_app import CHUNK, mixed_message, pushed_line

MIB = 1024 * 1024
SMALL_BUFFER = 32 * 1024
NUMBERS = b"".join(b"%d\n" % n for n in range(100))


def stalled_reader(kind, port, path):
    if kind == "websocket":
        return open_websocket(port, path, SMALL_BUFFER)
    sock = connect(port, SMALL_BUFFER)
    sock.sendall(request_bytes(path))
    return sock


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_reader_that_never_reads_stops_its_own_stream_and_no_other(server, kind):
    name, before = here("flood"), server.state()["rss"]
    with stalled_reader(kind, server.port, f"/flood/{name}"):
        neighbour = asyncio.create_task(aget(server.port, f"/paced/{here('paced')}"))
        produced = await asyncio.to_thread(settled, lambda: server.state()["counts"].get(name, 0))
        assert await neighbour == NUMBERS
        assert 0 < produced * len(CHUNK) < MIB
        assert server.state()["rss"] - before < 4 * MIB
    eventually(lambda: server.state()["endings"].get(name) == "client left", "the application learns of it")


async def test_a_stream_that_was_paused_arrives_whole_when_it_is_read_after_all(server):
    name = here("flood")
    with stalled_reader("http", server.port, f"/flood/{name}") as sock:
        await asyncio.to_thread(settled, lambda: server.state()["counts"].get(name, 0))
        answer = bytearray()
        while not answer.endswith(b"0\r\n\r\n"):
            answer += sock.recv(MIB)
        eventually(lambda: name in server.state()["endings"], "the application ends while its reader is there")
    assert body_of(bytes(answer)) == CHUNK * 2048
    assert server.state()["endings"][name] == "done"


async def test_pushing_is_refused_for_a_reader_that_is_behind_and_nothing_is_lost(server):
    name = here("pushed")
    with stalled_reader("http", server.port, f"/pushed/{name}") as sock:
        produced = await asyncio.to_thread(settled, lambda: server.state()["counts"].get(name, 0))
        assert 0 < server.state()["counts"][f"{name}-pushed"] < produced
        assert produced * len(CHUNK) < MIB
        answer = bytearray()
        while not answer.endswith(b"0\r\n\r\n"):
            answer += sock.recv(MIB)
        eventually(lambda: name in server.state()["endings"], "the application ends while its reader is there")
    assert body_of(bytes(answer)) == b"".join(map(pushed_line, range(2048)))
    assert server.state()["endings"][name] == "done"


async def test_messages_of_all_sizes_keep_their_order_and_pings_between_them_are_answered(server):
    with open_websocket(server.port, "/mixed_sizes", SMALL_BUFFER) as sock:
        messages, pongs = [], []
        while len(messages) < 200:
            if len(messages) % 10 == 0:
                sock.sendall(frame(b"%d" % len(messages), opcode=9))
            opcode, payload = read_frame(sock)
            (messages if opcode == 1 else pongs).append(payload.decode())
    assert messages == [mixed_message(index) for index in range(200)]
    assert pongs == sorted(pongs, key=int)


async def test_what_we_send_may_be_larger_than_what_we_accept(server):
    with open_websocket(server.port, "/big_message") as sock:
        assert read_frame(sock) == (1, b"y" * 300_000)


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_reader_without_progress_is_cut_off_with_one_line_in_the_log(start, kind):
    server, name = start(stall_s=0.3), here("flood")
    with stalled_reader(kind, server.port, f"/flood/{name}") as sock:
        assert await aget(server.port, "/paced/neighbour") == NUMBERS
        eventually(lambda: server.state()["endings"].get(name) == "client left", "cut off")
        with pytest.raises(ConnectionResetError):
            read_all(sock)
    assert server.log.count("took nothing for 0.3 s") == 1


async def test_a_slow_reader_is_not_taken_for_a_stalled_one(start):
    server = start(stall_s=0.3)
    for measurement in measurements():
        name = here("flood")
        with stalled_reader("http", server.port, f"/flood/{name}") as sock:
            with suppress(ConnectionResetError):
                for _ in range(12):
                    time.sleep(0.1)
                    assert sock.recv(256 * 1024)
            endings = server.state()["endings"]
        with measurement:
            assert name not in endings


async def test_the_unread_end_of_an_answer_does_not_stay_for_ever(start):
    server = start(stall_s=0.3)
    with connect(server.port, SMALL_BUFFER) as sock:
        sock.sendall(request_bytes("/big_answer", "Connection: close"))
        read_head(sock)
        eventually(lambda: "took nothing" in server.log, "cut off")
        with pytest.raises(ConnectionResetError):
            read_all(sock)


async def test_ten_thousand_unread_pings_cost_one_pong(server):
    name, before = here("flood"), server.state()["rss"]
    with open_websocket(server.port, f"/flood/{name}", SMALL_BUFFER) as sock:
        await asyncio.to_thread(settled, lambda: server.state()["counts"].get(name, 0))
        for number in range(100):
            sock.sendall(b"".join(frame(b"%d" % (number * 100 + n), opcode=9) for n in range(100)))
        assert server.state()["rss"] - before < 4 * MIB
        pongs = []
        for _ in range(2048):
            opcode, payload = read_frame(sock)
            if opcode == 10:
                pongs.append(payload)
        assert pongs[0] == b"9999"
        assert len(pongs) == 1
