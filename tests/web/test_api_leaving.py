"""Clients of the machine wire that go away: the upstream request ends with them, whenever they leave."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.hostwatch import measurements
from tests.live import LiveApp
from tests.upstreams import Upstream
from tests.web.conftest import AddBackend, asked, eventually, page_with

SOON_MS = 100  # from the client's close to its arrival upstream, on a busy machine; idle it is a few ms


async def open_request(app: LiveApp, slug: str, *, stream: bool) -> asyncio.StreamWriter:
    """Send a chat request on a raw socket, so that the moment of leaving is ours."""
    host, port = app.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = orjson.dumps({"model": slug, "messages": [{"role": "user", "content": "Hello"}], "stream": stream})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    return writer


LEAVING = {
    "before the first byte": ("fault-u10", True, 0),
    "before the first byte of a whole answer": ("fault-u10", False, 0),
    "after the headers": ("fault-u11", True, 0),
    "in the middle of a stream": ("fault-u12", True, 3),
    "in the middle of a whole answer": ("fault-u12", False, 3),
    "while heartbeats come": ("fault-u24-forever", True, 3),
}


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize(("model", "stream", "tokens"), LEAVING.values(), ids=LEAVING)
async def test_a_client_that_leaves_ends_the_upstream_request_at_once(
    model: str, stream: bool, tokens: int, how: str, upstream: Upstream, live_app: LiveApp, add_backend: AddBackend
) -> None:
    slug = await add_backend(model)

    async def delay_ms() -> float:
        number = len(asked(upstream))
        writer = await open_request(live_app, slug, stream=stream)
        await eventually(lambda: len(asked(upstream)) > number, "the request arrived")
        request = asked(upstream)[number]
        await eventually(lambda: len(request.texts) >= tokens, "the tokens were sent")
        left_ns = leave(writer, how)
        await eventually(lambda: request.closed_ns, "upstream was closed")
        assert request.closed_ns is not None
        return (request.closed_ns - left_ns) / 1e6

    for measurement in measurements():
        delays_ms = [await delay_ms() for _ in range(3)]
        with measurement:
            assert min(delays_ms) < SOON_MS


def leave(writer: asyncio.StreamWriter, how: str) -> int:
    """Close the connection and return when, ns."""
    now_ns = asyncio.get_running_loop().time() * 1e9
    if how == "reset":
        writer.transport.abort()
    else:
        writer.close()
    return int(now_ns)


async def test_a_client_that_leaves_at_any_moment_leaves_nothing_open(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend
) -> None:
    # A head without a body: the view returns, and the client may go before its first byte was asked for.
    slug, count = await add_backend("fault-u11"), 60
    for number in range(count):
        writer = await open_request(live_app, slug, stream=True)
        await eventually(lambda number=number: len(asked(upstream)) > number, "the request arrived")
        await asyncio.sleep(number * 0.000_15)
        writer.transport.abort()
    assert len(asked(upstream)) == count
    for request in asked(upstream):
        await eventually(lambda request=request: request.closed_ns, "upstream was closed", 2)


async def test_a_client_that_left_is_kept_as_stopped_with_what_had_come(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend
) -> None:
    slug = await add_backend("fault-u12")
    writer = await open_request(live_app, slug, stream=True)
    await eventually(lambda: asked(upstream) and len(asked(upstream)[0].texts) == 3, "three tokens")
    writer.close()
    page = await page_with(live_app, "/runs/", f"Label of {slug}")
    entry = page[page.index(f"Label of {slug}") :]
    assert 'data-state="stopped"' in entry[: entry.index("</li>")]


async def test_a_reader_of_a_stream_that_stops_reading_is_not_the_neighbours_problem(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend
) -> None:
    flood, steady = await add_backend("fault-u27"), await add_backend("ok")
    stalled = await open_request(live_app, flood, stream=True)
    await eventually(lambda: asked(upstream) and asked(upstream)[0].texts, "the flood began")
    reader_writer = await open_request(live_app, steady, stream=True)
    await eventually(
        lambda: len(asked(upstream)) == 2 and asked(upstream)[1].finished_ns, "the neighbour was served", 3
    )
    for writer in (stalled, reader_writer):
        writer.close()
