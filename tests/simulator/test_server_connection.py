"""What is no request, and what never becomes one: answered in OpenAI's shape or let go, and never quoted."""

import asyncio

import orjson
import pytest
from aiohttp import web

from tests.simulator.examples import CHAT, body
from webapp.simulator import server_connection

LATEST_S = 60  # only ends what hangs
SECRET = b"sk-secret"
HOST = b"HTTP/1.1\r\nHost: x\r\n"


async def opened(simulator: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = simulator.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def answered(simulator: str, request: bytes) -> tuple[bytes, bytes]:
    """Return the head and the body of what a request gets before its connection is closed."""
    reader, writer = await opened(simulator)
    writer.write(request)
    async with asyncio.timeout(LATEST_S):
        head, _, text = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head, text


@pytest.mark.parametrize(
    ("request_bytes", "message"),
    [
        (b"GET /%b %b\r\n" % (SECRET * 1000, HOST), "longer than 8,190 bytes"),
        (b"GET /v1/models %bAuthorization: Bearer %b\r\n\r\n" % (HOST, SECRET * 1000), "longer than 8,190 bytes"),
        (b"%b /v1/models %b\r\n" % (SECRET, HOST), "does not begin with a method"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01" + SECRET, "does not begin with a method"),
        (b"GET /v1/models HTTP/9.1\r\nX: %b\r\n\r\n" % SECRET, "The request line is not one of HTTP"),
        (b"GET http://[%b %b\r\n" % (SECRET, HOST), "The address in the request line cannot be read"),
        (b"POST %b %bContent-Length: %b\r\n\r\n" % (CHAT.encode(), HOST, SECRET), "The request is not HTTP"),
        (
            b"POST %b %bTransfer-Encoding: chunked\r\n\r\n%b\r\n" % (CHAT.encode(), HOST, SECRET),
            "not framed as they say",
        ),
    ],
    ids=["url", "header", "method", "tls", "version", "address", "length", "chunk"],
)
async def test_what_is_no_request_gets_an_error_that_quotes_nothing(
    simulator: str, request_bytes: bytes, message: str
) -> None:
    head, text = await answered(simulator, request_bytes)
    assert head.split(b" ", 2)[1] == b"400"
    assert b"X-Simulated: 1" in head
    error = orjson.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert SECRET not in head + text


@pytest.mark.parametrize("path", [CHAT, "/nothing"])
async def test_an_unknown_expectation_is_refused_in_the_same_shape(simulator: str, path: str) -> None:
    asked = b"POST %b %bExpect: %b\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}" % (path.encode(), HOST, SECRET)
    head, text = await answered(simulator, asked)
    assert head.startswith(b"HTTP/1.1 417 ")
    assert orjson.loads(text)["error"]["message"] == "The only Expect that is understood is 100-continue."
    assert SECRET not in head + text


async def test_whoever_waits_to_be_told_to_go_on_is_told(simulator: str) -> None:
    text = orjson.dumps(body(max_tokens=2))
    asked = b"POST %b %bExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), HOST, len(text))
    reader, writer = await opened(simulator)
    writer.write(asked)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(text)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize(
    "request_bytes", [b"GET /healthz %b\r\n" % HOST, b"GET /nothing %b\r\n" % HOST, b"FOO\r\n\r\n"]
)
async def test_no_answer_says_what_versions_it_comes_from(simulator: str, request_bytes: bytes) -> None:
    head, _ = await answered(simulator, request_bytes.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert b"\r\nServer: splitsecond-simulator" in head
    assert b"aiohttp" not in head


@pytest.mark.parametrize("sent", [b"", b"POST %b HTTP/1.1\r\nHo" % CHAT.encode()], ids=["nothing", "half a head"])
async def test_a_connection_without_a_request_is_let_go(
    simulator: str, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server_connection, "HEAD_S", 0.01)
    head, text = await answered(simulator, sent)
    assert (head, text) == (b"", b"")


async def test_a_connection_that_has_asked_once_may_stay(runner: web.AppRunner, simulator: str) -> None:
    reader, writer = await opened(simulator)
    for _ in range(2):
        writer.write(b"GET /healthz %b\r\n" % HOST)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))
        assert runner.server is not None
        (connection,) = runner.server.connections
        assert isinstance(connection, server_connection.Connection)
        connection._close_without_head()  # its time is up
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST %b HTTP/1.1\r\nHo" % CHAT.encode()], ids=["nothing", "half a head"])
async def test_a_connection_that_asks_nothing_more_is_let_go(
    simulator: str, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server_connection, "KEEP_S", 0.05)
    reader, writer = await opened(simulator)
    writer.write(b"GET /healthz %b\r\n" % HOST + sent)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
