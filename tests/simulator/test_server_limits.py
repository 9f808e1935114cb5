"""What the server refuses, what it counts, and what it frees when a client leaves or does not read."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from tests.hostwatch import Patience, measurements
from tests.simulator.examples import CHAT, body, profile, sims, stream, streams_of
from webapp.simulator.answers import load_book
from webapp.simulator.server import Limits, build_runner
from webapp.simulator.server_sink import FULL_BYTES


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
    async with asyncio.timeout(60):
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
        patience = Patience(2)
        while await streams_of(session):
            assert patience.left
            await asyncio.sleep(0.005)


async def test_a_client_that_does_not_read_costs_little_memory_and_no_neighbour(
    runner: web.AppRunner, simulator: str
) -> None:
    host, port = simulator.removeprefix("http://").split(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        text = orjson.dumps(body(model="flood", stream=True, max_tokens=130_000, ignore_eos=True))
        deaf.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(text), text))
        async with asyncio.timeout(60):
            while unsent_bytes(runner) <= FULL_BYTES:
                await asyncio.sleep(0.01)
        async with aiohttp.ClientSession(simulator) as session:
            for measurement in measurements():
                found = await stream(session, max_tokens=200, ignore_eos=True)
                assert unsent_bytes(runner) < 4 * FULL_BYTES
                arrived_ns = found[0]["sim"]["arrived_ns"]
                with measurement:
                    assert median((at["sent_ns"] - arrived_ns) / 1000 - at["due_us"] for at in sims(found)) < 10_000


def unsent_bytes(runner: web.AppRunner) -> int:
    assert runner.server is not None
    transports = [connection.transport for connection in runner.server.connections]
    return max((at.get_write_buffer_size() for at in transports if at is not None), default=0)
