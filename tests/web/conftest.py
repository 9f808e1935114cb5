"""An upstream that records what reaches it, as backends of the live app; clients of its wire; pages on its socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from tests.hostwatch import Patience
from tests.live import LiveApp
from tests.upstreams import Upstream, scripted_upstream
from tests.upstreams.exchange import Request
from tests.web.page import Page, open_page

AddBackend = Callable[..., Awaitable[str]]
OpenPage = Callable[..., AbstractAsyncContextManager[Page]]

HELLO = [{"role": "user", "content": "Hello"}]

_numbers = itertools.count(1)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """The scripted server, 5 ms from token to token."""
    async with scripted_upstream() as server:
        yield server


@pytest.fixture
async def add_backend(live_app: LiveApp, upstream: Upstream) -> AsyncIterator[AddBackend]:
    """Add a backend for a scenario of the scripted server, as an operator does, and return its slug."""
    browser = await asyncio.to_thread(live_app.browser)
    added: list[str] = []

    async def add(model: str = "ok", /, **fields: str) -> str:
        slug = f"{model}-{next(_numbers)}"
        values = {"slug": slug, "label": f"Label of {slug}", "kind": "openai", "base_url": upstream.url, "model": model}
        reply = await asyncio.to_thread(browser.post, "/backends/add/", values | fields)
        assert reply.status == 302, reply.text
        added.append(slug)
        return slug

    yield add
    for slug in added:
        await asyncio.to_thread(browser.post, f"/backends/{slug}/remove/")


@pytest.fixture
def open_here(live_app: LiveApp) -> OpenPage:
    """Open a page of the live app: `async with open_here(*slugs) as page`."""
    return lambda *lanes, **fields: open_page(live_app, *lanes, **fields)


@pytest.fixture
async def client(live_app: LiveApp) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, as anybody would point it here."""
    async with openai.AsyncOpenAI(base_url=f"{live_app.url}/v1", api_key="none", max_retries=0) as official:
        yield official


@pytest.fixture
async def http(live_app: LiveApp) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live_app.url) as session:
        yield session


async def stream_events(http: aiohttp.ClientSession, slug: str, **fields: Any) -> list[Any]:
    """Return a stream's events, parsed."""
    body = {"model": slug, "messages": HELLO, "stream": True, **fields}
    async with http.post("/v1/chat/completions", json=body) as reply:
        assert reply.status == 200
        assert reply.content_type == "text/event-stream"
        data = await reply.read()
    events = [line.removeprefix(b"data: ") for line in data.split(b"\n") if line]
    return ["[DONE]" if event == b"[DONE]" else orjson.loads(event) for event in events]


def asked(upstream: Upstream) -> list[Request]:
    """Return the chat requests that reached the upstream; opening a connection beforehand is not one."""
    return [request for request in upstream.requests if request.method == "POST"]


async def eventually(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Return as soon as the condition holds; fail if it does not within these seconds."""
    patience = Patience(seconds)
    while not condition():
        assert patience.left, f"never happened: {what}"
        await asyncio.sleep(0.005)


async def page_with(app: LiveApp, path: str, part: str) -> str:
    """Return a page as soon as it holds `part`, which is written after the answer."""
    browser, patience = app.browser(), Patience(30)
    while part not in (shown := (await asyncio.to_thread(browser.get, path)).text):
        assert patience.left, f"{part} never came to {path}"
        await asyncio.sleep(0.02)
    return shown
