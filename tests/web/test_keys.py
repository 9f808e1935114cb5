"""A key is sent to its own backend and shows up nowhere else, though the backend repeats it in every fault."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.live import LiveApp
from tests.upstreams import Upstream
from tests.web.conftest import AddBackend, OpenPage, asked

CANARY = "canary-5f1c9e7a-do-not-show"
TALKATIVE = ("fault-u04", "fault-u05", "fault-400", "fault-u07", "fault-u08-html", "ok")


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(CANARY + "\n")
    return f"file:{path}"


async def test_a_key_reaches_its_backend_and_nobody_else(
    key_file: str, upstream: Upstream, live_app: LiveApp, add_backend: AddBackend, open_here: OpenPage
) -> None:
    slugs = [await add_backend(model, key_ref=key_file) for model in TALKATIVE]
    seen: list[str] = []
    browser = live_app.browser()
    async with open_here(*slugs, html=True) as page:
        run = await page.run()
        seen += [*page.fragments, repr(page.frames)]
    async with aiohttp.ClientSession(live_app.url) as http:
        for slug in slugs:
            for stream in (True, False):
                body = {"model": slug, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
                async with http.post("/v1/chat/completions", json=body) as reply:
                    seen += [await reply.text(), repr(reply.headers)]
    for slug in slugs:
        seen.append((await asyncio.to_thread(browser.post, f"/backends/{slug}/test/")).text)
    for path in ("/", "/backends/", f"/backends/{slugs[0]}/edit/", "/runs/", f"/runs/{run}/", "/v1/models", "/healthz"):
        seen.append((await asyncio.to_thread(browser.get, path)).text)
    assert all(request.headers["authorization"] == f"Bearer {CANARY}" for request in asked(upstream))
    assert len(asked(upstream)) == 4 * len(slugs)
    assert not [text for text in seen if CANARY in text]
    assert CANARY not in live_app.log
    for path in live_app.folder.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path.name


async def test_a_key_that_is_missing_is_said_without_asking_anybody(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend(key_ref="env:NO_SUCH_VARIABLE")) as page:
        await page.run()
        assert "NO_SUCH_VARIABLE is not set" in page.last("end")["error"]
    assert not asked(upstream)
