"""The scripted server does what it says. Driven by bare streams: no client repairs anything on the way."""

from __future__ import annotations

import asyncio
import json
import ssl
import time

import pytest

from tests.upstreams import EXPECTED, SCENARIOS, closed_port, full_port, scripted_upstream, silent_port, wire


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


async def ask(url: str, model: str, tls: ssl.SSLContext | None = None, **fields: object):
    """Send one streaming request and return the open pair of streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), ssl=tls)
    body = json.dumps({"model": model, "stream": True, **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return reader, writer


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def test_every_scenario_has_an_expected_ending():
    assert EXPECTED.keys() == SCENARIOS.keys()


async def test_an_answer_is_recorded_token_by_token():
    async with scripted_upstream() as up:
        before_ns = time.perf_counter_ns()
        reader, writer = await ask(up.url, "ok", stream_options={"include_usage": True})
        received = await reader.readuntil(b"0\r\n\r\n")
        await close(writer)
        request = await up.closed()
    assert [emission.text for emission in request.texts] == list(wire.TOKENS)
    stamps = [request.arrival_ns, *(emission.at_ns for emission in request.emitted)]
    assert before_ns < stamps[0]
    assert stamps == sorted(stamps)
    assert all(emission.data in received for emission in request.emitted)
    assert b'"completion_tokens":13' in received
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert request.closed_by == "fin"


async def test_a_connection_can_carry_a_second_request():
    async with scripted_upstream() as up:
        reader, writer = await ask(up.url, "ok-zero")
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readuntil(b'{"id":"fault-u34-103"')
        await close(writer)
        assert [request.connection for request in up.requests] == [0, 0]


async def test_a_hang_lasts_until_the_client_leaves_and_that_moment_is_noted():
    async with scripted_upstream() as up:
        _, writer = await ask(up.url, "fault-u11")
        await up.request()
        before_ns = time.perf_counter_ns()
        await close(writer)
        request = await up.closed()
        assert request.closed_ns is not None
        assert before_ns < request.closed_ns < time.perf_counter_ns()


async def test_a_reset_comes_after_the_tokens_have_been_delivered():
    async with scripted_upstream() as up:
        reader, writer = await ask(up.url, "fault-u13")
        received = await reader.readuntil(b'" a"')
        await reader.readuntil(b"\n\n\r\n")
        assert received.count(b'"content":"') == 1 + 3  # the role chunk's is empty
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert up.requests[0].closed_by is None


async def test_a_server_that_ignores_our_close_stops_at_the_reset():
    async with scripted_upstream() as up:
        reader, writer = await ask(up.url, "fault-u32")
        await reader.readuntil(b"[DONE]")
        await close(writer)
        request = await up.lost()
        assert request.closed_ns is not None
        assert request.lost_ns is not None
        assert request.lost_ns > request.closed_ns


@pytest.mark.parametrize("kind", ["self-signed", "expired", "wrong-host"])
async def test_a_wrong_certificate_is_refused_by_a_client_that_checks(kind: str):
    async with scripted_upstream(certificate=kind) as up:
        assert up.authority is not None
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(up.url, "ok", up.authority.trust())


async def test_a_good_certificate_passes():
    async with scripted_upstream(certificate="good") as up:
        assert up.authority is not None
        reader, writer = await ask(up.url, "ok", up.authority.trust())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()


async def test_a_closed_port_refuses():
    with closed_port() as url, pytest.raises(ConnectionRefusedError):
        await ask(url, "ok")


async def test_a_full_port_does_not_answer():
    with full_port() as url, pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(url, "ok"), 0.1)


async def test_a_silent_port_leaves_a_large_prompt_unwritten():
    with silent_port("http") as url:
        _, writer = await ask(url, "x" * (16 << 20))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.2)
        writer.transport.abort()
