"""A real Chromium on the real app. Whatever a test does, the page may log no error: a breach of the policy is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.stage import Stage
from tests.chromium import ARGUMENTS, find
from tests.live import LiveApp
from tests.upstreams import wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.scripted import SCENARIOS, scripted_upstream
from tests.upstreams.wire import TOKENS

HERE = Path(__file__).parent
# What Chromium and htmx log when a test cuts the line.
LOST_LINE = ("WebSocket connection to", "[object Event]")
# What Chromium logs of a form that comes back with what is wrong with it.
REFUSED_FORM = ("Failed to load resource: the server responded with a status of 422",)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "refused_form: a form is refused in this test, which Chromium logs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run this folder's tests in one loop, the one in which the browser lives."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    path = find()
    assert path, "no Chromium: run `python -m tests.chromium` to get one"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    context = await chromium.new_context(viewport={"width": 1280, "height": 720})
    page = await context.new_page()
    page.set_default_timeout(60_000)  # only ends what hangs
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield page
    await context.close()
    expected = LOST_LINE + (REFUSED_FORM if request.node.get_closest_marker("refused_form") else ())
    assert not (said := [line for line in wrong if not line.startswith(expected)]), said


@pytest.fixture
def stage(page: Page, live_app: LiveApp) -> Stage:
    return Stage(page, live_app.url)


@pytest.fixture
def backend(live_app: LiveApp) -> Iterator[Backends]:
    kept = Backends(live_app)
    yield kept
    kept.remove()


class Backends:
    """Backends that a test adds as an operator does, by a form; gone when it ends."""

    def __init__(self, app: LiveApp) -> None:
        self.app, self.slugs, self._operator = app, list[str](), app.browser()

    def __call__(self, slug: str, model: str, url: str = "") -> str:
        fields = {"slug": slug, "label": slug, "kind": "openai", "model": model}
        reply = self._operator.post("/backends/add/", {**fields, "base_url": url or f"{self.app.sim_url}/v1"})
        assert reply.status == 302, reply.text
        self.slugs.append(slug)
        return slug

    def remove(self) -> None:
        for slug in self.slugs:
            reply = self._operator.post(f"/backends/{slug}/remove/")
            assert reply.status == 302, reply.text


class Held:
    """A backend in the middle of its answer for as long as a test wants: three tokens, and after `go` the rest."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        self._go, self._over = asyncio.Event(), asyncio.Event()

    def go(self) -> None:
        self._go.set()

    async def over(self) -> None:
        """Wait until an answer has been sent to its end."""
        await self._over.wait()

    async def answer(self, x: Exchange) -> None:
        await x.begin()
        await x.tokens(TOKENS[:3])
        await self._go.wait()
        await x.tokens(TOKENS[3:])
        await x.finish(len(TOKENS))
        self._over.set()


@pytest_asyncio.fixture(loop_scope="session")
async def held(backend: Backends, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    async with scripted_upstream() as upstream:
        held = Held(backend("browser-held", "held", upstream.url))
        monkeypatch.setitem(SCENARIOS, "held", held.answer)
        yield held


async def lines(x: Exchange) -> None:
    """A line of text every 20 ms until the client leaves."""
    await x.begin()
    while not x.connection.left.is_set():
        await x.send(wire.event(wire.chunk({"content": "A line of several words, and the next one. \n"})), "a line")
        await x.pause(4)


@pytest_asyncio.fixture(loop_scope="session")
async def endless(backend: Backends, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A backend whose answer has no end: it streams until it is stopped."""
    monkeypatch.setitem(SCENARIOS, "lines", lines)
    async with scripted_upstream() as upstream:
        yield backend("browser-endless", "lines", upstream.url)
