import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.simulator.examples import PROFILES, body, events, profile, sims, text_of
from webapp.simulator.answers import load_book
from webapp.simulator.server import Limits, build_runner
from webapp.simulator.server_body import BODY_LIMIT
from webapp.simulator.server_sink import FULL_BYTES
from webapp.simulator.text import split_tokens

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


async def stream(client: aiohttp.ClientSession, prompt: str = "Write a haiku", **fields: Any) -> list[Any]:
    async with client.post(CHAT, json=body(prompt, stream=True, **fields)) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Simulated"] == "1"
        return events(await response.read())


async def test_it_says_what_it_serves(client: aiohttp.ClientSession) -> None:
    async with client.get("/healthz") as response:
        assert await response.json() == {"status": "ok", "profiles": list(PROFILES), "streams": 0}
    async with client.get("/v1/models") as response:
        listed = await response.json()
    assert [entry["id"] for entry in listed["data"]] == list(PROFILES)
    assert listed["data"][0]["sim"]["source"] == "this test"
    async with client.get("/v1/models/quick") as response:
        assert (await response.json())["id"] == "quick"


async def test_chunks_leave_when_they_are_due_never_before(client: aiohttp.ClientSession) -> None:
    found = await stream(client, max_tokens=400, ignore_eos=True)
    truths = sims(found)
    arrived_ns = found[0]["sim"]["arrived_ns"]
    late_us = [(truth["sent_ns"] - arrived_ns) / 1000 - truth["due_us"] for truth in truths]
    assert min(late_us) >= 0
    assert median(late_us) < 20_000  # of 200,000; sleeps of 0.5 ms each would end 200,000 late
    assert median(late_us[-100:]) - median(late_us[:100]) < 20_000
    assert [truth["due_us"] for truth in truths] == [6_000 + 500 * step for step in range(400)]


async def test_usage_counts_exactly_what_was_sent(client: aiohttp.ClientSession) -> None:
    found = await stream(client, model="thinking", stream_options={"include_usage": True})
    usage = found[-2]
    thought, text = text_of(found, "reasoning"), text_of(found)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(sims(found))
    assert usage["usage"]["completion_tokens_details"]["reasoning_tokens"] == len(split_tokens(thought))
    assert text == load_book().find("haiku").text
    counts = usage["usage"]
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]


async def test_usage_is_not_sent_unasked(client: aiohttp.ClientSession) -> None:
    assert not any("usage" in event for event in await stream(client) if isinstance(event, dict))


async def test_time_info_repeats_the_stamps_of_the_first_and_the_last_text(client: aiohttp.ClientSession) -> None:
    found = await stream(client, model="bursty", stream_options={"include_usage": True})
    truths = sims(found)
    assert found[-2]["time_info"]["emitted"] == {
        "arrived_ns": found[0]["sim"]["arrived_ns"],
        "first_ns": truths[0]["sent_ns"],
        "last_ns": truths[-1]["sent_ns"],
        "first_tokens": truths[0]["tokens"],
    }


async def test_time_info_agrees_with_the_due_times(client: aiohttp.ClientSession) -> None:
    found = await stream(client, stream_options={"include_usage": True})
    info, truths = found[-2]["time_info"], sims(found)
    assert info["total_time"] == pytest.approx(truths[-1]["due_us"] / 1e6, abs=1e-6)
    assert info["completion_time"] == pytest.approx((truths[-1]["due_us"] - truths[0]["due_us"]) / 1e6, abs=2e-6)
    assert info["queue_time"] == 0
    assert info["prompt_time"] == pytest.approx(0.0005)  # one pass, in which 4 tokens at 10,000 a second fit


@pytest.mark.parametrize(("slug", "field"), [("thinking", "reasoning"), ("older", "reasoning_content")])
async def test_thinking_goes_into_the_field_of_the_profile(
    client: aiohttp.ClientSession, slug: str, field: str
) -> None:
    found = await stream(client, model=slug)
    fields = [name for event in found[1:-2] for name in event["choices"][0]["delta"]]
    assert fields == sorted(fields, reverse=True)  # all of the thinking first
    assert set(fields) == {field, "content"}


async def test_a_bursty_profile_sends_several_tokens_a_chunk(client: aiohttp.ClientSession) -> None:
    found = await stream(client, model="bursty", stream_options={"include_usage": True})
    tokens = found[-2]["usage"]["completion_tokens"]
    assert len(sims(found)) == -(-tokens // 5)


async def test_the_same_seed_gives_the_same_text_at_the_same_times(client: aiohttp.ClientSession) -> None:
    one, two = [await stream(client, "hello", seed=42) for _ in range(2)]
    assert text_of(one) == text_of(two)
    assert [truth["due_us"] for truth in sims(one)] == [truth["due_us"] for truth in sims(two)]


async def test_forced_length_is_exact(client: aiohttp.ClientSession) -> None:
    found = await stream(client, max_tokens=123, ignore_eos=True, stream_options={"include_usage": True})
    assert found[-2]["usage"]["completion_tokens"] == 123
    assert found[-3]["choices"][0]["finish_reason"] == "length"


async def test_stop_ends_the_text(client: aiohttp.ClientSession) -> None:
    found = await stream(client, stop=["breath"])
    assert text_of(found) == "The cursor blinks twice.\nBefore I finish my "
    assert found[-2]["choices"][0]["finish_reason"] == "stop"


async def test_a_whole_answer_holds_the_same_as_a_stream(client: aiohttp.ClientSession) -> None:
    async with client.post(CHAT, json=body("Write a haiku", model="thinking", seed=1)) as response:
        assert response.headers["X-Simulated"] == "1"
        whole = await response.json()
    found = await stream(client, model="thinking", seed=1, stream_options={"include_usage": True})
    message = whole["choices"][0]["message"]
    assert message["content"] == text_of(found)
    assert message["reasoning"] == text_of(found, "reasoning")
    assert whole["usage"] == found[-2]["usage"]
    streamed = found[-2]["time_info"]
    assert streamed.pop("emitted")  # a whole answer is written at one instant
    assert whole["time_info"] == streamed
    assert whole["object"] == "chat.completion"


async def test_streams_do_not_move_each_other(simulator: str) -> None:
    async with aiohttp.ClientSession(simulator) as session:
        fields = {"max_tokens": 200, "ignore_eos": True}
        found = await asyncio.gather(*(stream(session, **fields) for _ in range(8)))
    for one in found:
        arrived_ns = one[0]["sim"]["arrived_ns"]
        late_us = [(truth["sent_ns"] - arrived_ns) / 1000 - truth["due_us"] for truth in sims(one)]
        assert len(late_us) == 200
        assert min(late_us) >= 0
        assert median(late_us) < 20_000  # of 100,000


async def completed(client: aiohttp.ClientSession, **fields: Any) -> list[Any]:
    table = {"model": "quick", "prompt": "Write a haiku", "stream": True, **fields}
    async with client.post(TEXT, json=table) as response:
        assert response.status == 200
        return events(await response.read())


async def test_a_text_completion_streams_text_and_no_thoughts(client: aiohttp.ClientSession) -> None:
    found = await completed(client, model="thinking", stream_options={"include_usage": True})
    text = "".join(choice["text"] for event in found[:-1] for choice in event["choices"])
    assert text == load_book().find("haiku").text
    assert {event["object"] for event in found[:-1]} == {"text_completion"}
    assert found[-3]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["usage"]["completion_tokens"] == len(sims(found))
    assert found[-1] == "[DONE]"


async def test_a_whole_text_completion_holds_the_same_as_a_stream(client: aiohttp.ClientSession) -> None:
    async with client.post(TEXT, json={"model": "quick", "prompt": ["Write a haiku"], "max_tokens": 5}) as response:
        whole = await response.json()
    found = await completed(client, max_tokens=5)
    assert whole["choices"][0]["text"] == "".join(event["choices"][0]["text"] for event in found[:-1])
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["object"] == "text_completion"
    assert whole["id"].startswith("cmpl-")


@contextlib.asynccontextmanager
async def served(limits: Limits, **changes: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A simulator of one profile, and a client with as many connections as it likes."""
    runner = build_runner({"quick": profile(**changes)}, load_book(), limits)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield session
    await runner.cleanup()


async def live(client: aiohttp.ClientSession) -> dict[str, Any]:
    async with client.get("/metrics.json") as response:
        found: dict[str, Any] = (await response.json())["models"]["quick"]
        return found


async def until_live(client: aiohttp.ClientSession, **wanted: int) -> None:
    async with asyncio.timeout(5):
        while not wanted.items() <= (await live(client)).items():
            await asyncio.sleep(0.005)


async def test_one_too_many_in_the_queue_is_told_to_come_back() -> None:
    async with served(Limits(waiting=2), tok_s=5.0, max_sequences=1) as client:
        held = [await client.post(CHAT, json=body(stream=True))]
        await until_live(client, running=1, waiting=0)
        held += [await client.post(CHAT, json=body(stream=True)) for _ in range(2)]
        assert [response.status for response in held] == [200, 200, 200]
        await until_live(client, running=1, waiting=2)
        async with client.post(CHAT, json=body(stream=True)) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert (await response.json())["error"]["type"] == "rate_limit_error"
        for response in held:
            response.close()
        await until_live(client, running=0, waiting=0)
        async with client.post(CHAT, json=body(stream=True)) as response:
            assert response.status == 200


async def test_a_queue_of_none_refuses_nobody_while_there_are_slots() -> None:
    async with served(Limits(waiting=0), tok_s=5.0, max_sequences=2) as client:
        held = [await client.post(CHAT, json=body(stream=True)) for _ in range(3)]
        assert [response.status for response in held] == [200, 200, 429]
        for response in held:
            response.close()


async def test_one_too_many_altogether_finds_the_server_overloaded() -> None:
    async with (
        served(Limits(open=1), tok_s=5.0) as client,
        client.post(CHAT, json=body(stream=True)),
        client.post(CHAT, json=body()) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert (await response.json())["error"]["type"] == "server_error"


async def test_a_client_that_leaves_frees_its_slot_and_its_cache_at_once() -> None:
    async with served(Limits(), tok_s=5.0) as client:
        response = await client.post(CHAT, json=body(stream=True))
        await until_live(client, running=1)
        assert (await live(client))["kv_usage"] >= 0
        response.close()
        await until_live(client, running=0, waiting=0, kv_usage=0)
        assert (await live(client))["answers"]["abort"] == 1


async def test_a_prompt_longer_than_the_kv_cache_is_refused_by_name() -> None:
    async with served(Limits(), kv_tokens=1000) as client:
        async with client.post(CHAT, json=body("x" * 8000)) as response:
            assert response.status == 400
            error = (await response.json())["error"]
        assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
        async with client.post(CHAT, json=body(max_tokens=2000)) as response:
            assert (await response.json())["error"]["param"] == "max_tokens"
        async with client.post(CHAT, json=body(max_tokens=900, ignore_eos=True)) as response:
            assert (await response.json())["usage"]["completion_tokens"] == 900


async def test_the_metrics_count_what_happened(client: aiohttp.ClientSession) -> None:
    await stream(client, max_tokens=50, ignore_eos=True)
    async with client.get("/metrics") as response:
        assert response.content_type == "text/plain"
        text = await response.text()
    assert 'vllm:num_requests_running{model_name="quick"} 0' in text
    assert 'vllm:generation_tokens_total{model_name="quick"} 50' in text
    assert 'vllm:request_success_total{model_name="quick",finished_reason="length"} 1' in text
    assert 'vllm:time_to_first_token_seconds_count{model_name="quick"} 1' in text
    assert 'vllm:request_time_per_output_token_seconds_bucket{model_name="quick",le="0.0005"} 1' in text


async def test_a_client_that_leaves_frees_its_stream(simulator: str) -> None:
    async with aiohttp.ClientSession(simulator) as session:
        left = [await session.post(CHAT, json=body(model="slow", stream=True)) for _ in range(3)]
        assert await streams_of(session) == 3
        for response in left:
            response.close()
        async with asyncio.timeout(2):
            while await streams_of(session):
                await asyncio.sleep(0.005)


async def streams_of(session: aiohttp.ClientSession) -> int:
    async with session.get("/healthz") as response:
        return int((await response.json())["streams"])


async def test_a_client_that_does_not_read_costs_little_memory_and_no_neighbour(
    runner: web.AppRunner, simulator: str
) -> None:
    host, port = simulator.removeprefix("http://").split(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        text = orjson.dumps(body(model="flood", stream=True, max_tokens=130_000, ignore_eos=True))
        deaf.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(text), text))
        async with asyncio.timeout(5):
            while unsent_bytes(runner) <= FULL_BYTES:
                await asyncio.sleep(0.01)
        async with aiohttp.ClientSession(simulator) as session:
            found = await stream(session, max_tokens=200, ignore_eos=True)
        assert unsent_bytes(runner) < 4 * FULL_BYTES
    arrived_ns = found[0]["sim"]["arrived_ns"]
    assert median((at["sent_ns"] - arrived_ns) / 1000 - at["due_us"] for at in sims(found)) < 10_000


def unsent_bytes(runner: web.AppRunner) -> int:
    assert runner.server is not None
    transports = [connection.transport for connection in runner.server.connections]
    return max((at.get_write_buffer_size() for at in transports if at is not None), default=0)


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


async def test_an_http_1_0_client_gets_plain_bytes_until_the_end(simulator: str) -> None:
    host, port = simulator.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    text = orjson.dumps(body("Write a haiku", stream=True))
    writer.write(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(text), text))
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"chunked" not in head.lower()
    assert text_of(events(rest)) == load_book().find("haiku").text


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
