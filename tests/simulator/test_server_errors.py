"""What goes wrong is answered in OpenAI's shape, whoever did it."""

import asyncio
import io
from typing import Any

import aiohttp
import orjson
import pytest

from tests.simulator.examples import CHAT, TEXT, body, events, sims, stream, streams_of
from webapp.simulator.server_body import BODY_LIMIT


@pytest.mark.parametrize(
    ("text", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (orjson.dumps(body(temperature="hot")), 400, "temperature"),
        (orjson.dumps(body(max_tokens=-1)), 400, "max_tokens"),
        (orjson.dumps(body(model="gpt-99")), 404, "model"),
    ],
)
async def test_an_error_has_openais_shape(
    client: aiohttp.ClientSession, text: bytes, status: int, param: str | None
) -> None:
    async with client.post(CHAT, data=text) as response:
        assert response.status == status
        assert response.headers["X-Simulated"] == "1"
        error = (await response.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


async def test_a_body_over_the_limit_is_refused(client: aiohttp.ClientSession) -> None:
    async with client.post(CHAT, data=io.BytesIO(b" " * (BODY_LIMIT + 1))) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", CHAT, 405), ("GET", "/nothing", 404), ("GET", "/v1/models/x", 404)]
)
async def test_a_wrong_address_is_answered_in_the_same_shape(
    client: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with client.request(method, path) as response:
        assert response.status == status
        assert (await response.json())["error"]["message"]


async def test_faults_that_refuse(client: aiohttp.ClientSession) -> None:
    async with client.post(CHAT, json=body(model="quick+429")) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "2")
        assert (await response.json())["error"]["type"] == "rate_limit_error"
    async with client.post(CHAT, json=body(), headers={"X-Fault": "500"}) as response:
        assert (response.status, response.content_type) == (500, "text/html")
    async with client.post(CHAT, json=body(model="quick+401")) as response:
        assert response.status == 401


async def test_faults_that_end_a_stream_in_the_middle(client: aiohttp.ClientSession) -> None:
    early = await stream(client, "hello", model="quick+truncate")
    assert len(sims(early)) == 20
    assert "[DONE]" not in early
    failed = await stream(client, "hello", model="quick+error")
    assert failed[-2]["error"]["message"]
    assert (await stream(client, model="quick+no-done"))[-1]["choices"][0]["finish_reason"] == "stop"
    with pytest.raises(aiohttp.ClientError):
        await stream(client, "hello", model="quick+reset")
    async with client.post(CHAT, json=body(model="quick+garbage", stream=True)) as response:
        parts = (await response.read()).split(b"\n\n")
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(parts[-3].removeprefix(b"data: "))


async def test_a_stalled_stream_stays_open_and_silent(client: aiohttp.ClientSession) -> None:
    async with client.post(CHAT, json=body("hello", model="quick+stall", stream=True)) as response:
        found: list[Any] = []
        while len(sims(found)) < 20:
            line = await response.content.readuntil(b"\n\n")
            found += events(line)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await response.content.readany()


async def test_a_defect_is_a_server_error_that_says_nothing_of_itself(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> int:
        raise RuntimeError("secret")

    monkeypatch.setattr("webapp.simulator.server.api_ns", broken)
    async with client.post(CHAT, json=body()) as response:
        assert response.status == 500
        text = await response.text()
    assert "secret" not in text
    assert orjson.loads(text)["error"]["type"] == "server_error"
    assert "secret" in caplog.text


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_both_shapes_name_the_wrong_field(client: aiohttp.ClientSession, path: str) -> None:
    async with client.post(path, json={**body(), "prompt": "x", "temperature": "hot"}) as response:
        assert (await response.json())["error"]["param"] == "temperature"


async def exchanged(simulator: str, *parts: bytes) -> bytes:
    """Send raw bytes, with a pause between them; return the answer up to the end of its body."""
    host, port = simulator.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.02)
    answer = await reader.read(65536)
    writer.close()
    return answer


HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\n" % CHAT.encode()


async def test_a_body_whose_compression_is_broken_is_the_clients_mistake(simulator: str) -> None:
    answer = await exchanged(simulator, HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"compression or framing is broken" in answer


async def test_a_body_that_does_not_come_is_waited_for_only_so_long(
    simulator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.simulator.server_body.BODY_S", 0.05)
    answer = await exchanged(simulator, HEAD + b"Content-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(simulator: str) -> None:
    host, port = simulator.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    async with aiohttp.ClientSession(simulator) as session:
        assert await streams_of(session) == 0
