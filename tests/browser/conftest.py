"""A real Chromium on the real app. Whatever a test does, the page may log no error: a breach of the policy is one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.stage import Stage
from tests.chromium import ARGUMENTS, find
from tests.live import LiveApp

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
    page.set_default_timeout(10_000)
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
    """Backends that a test adds; gone when it ends."""

    def __init__(self, app: LiveApp) -> None:
        self.app, self.slugs = app, list[str]()

    def __call__(self, slug: str, model: str, url: str = "") -> str:
        self.app.manage("backend", "add", slug, "--url", url or f"{self.app.sim_url}/v1", "--model", model)
        self.slugs.append(slug)
        return slug

    def remove(self) -> None:
        for slug in self.slugs:
            self.app.manage("backend", "remove", slug)
