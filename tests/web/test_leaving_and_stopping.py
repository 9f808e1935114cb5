"""The end of the server, and the end of a page's patience: what is kept, how long it takes, and what is left."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from channels.testing import WebsocketCommunicator
from websockets.exceptions import ConnectionClosed

from tests.hostwatch import Patience
from tests.live import LiveApp, Process, live, start_server, wait_until_healthy
from tests.upstreams import Upstream, scripted_upstream
from tests.upstreams.wire import TEXT, TOKENS
from tests.web.conftest import asked, eventually
from tests.web.page import open_page
from webapp import consumers
from webapp.core.errors import SHUT_DOWN
from webapp.models import Backend
from webapp.services.arenas import arenas
from webapp.services.database import in_thread
from webapp.services.upstreams import upstreams

STOP_S = 5.0


def add_backend(app: LiveApp, up: Upstream, model: str) -> None:
    fields = {"slug": model, "label": model, "kind": "openai", "base_url": up.url, "model": model}
    assert app.browser().post("/backends/add/", fields).status == 302


def stored_turns(app: LiveApp, run: str) -> list[list[object]]:
    """Return outcome and text of a run's turns, read from its rows by a process of its own."""
    code = (
        "import json; from webapp.models import Comparison; "
        f"run = Comparison.objects.get(id='{run}'); "
        "print(json.dumps([[t.outcome, ''.join(d[2] for d in t.deltas), run.done] for t in run.turns.all()]))"
    )
    found: list[list[object]] = orjson.loads(app.manage("shell", "--no-imports", "-c", code))
    return found


async def test_a_stop_signal_keeps_every_token_says_so_in_every_stream_and_takes_less_than_five_seconds(
    tmp_path: Path,
) -> None:
    text = "".join(TOKENS[:3])
    async with scripted_upstream() as up:
        with live(tmp_path) as app:
            for model in ("fault-u12", "fault-u10"):
                await asyncio.to_thread(add_backend, app, up, model)
            body = {"model": "fault-u12", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
            async with (
                open_page(app, "fault-u12", "fault-u12", "fault-u10") as page,
                aiohttp.ClientSession(app.url) as http,
                http.post("/v1/chat/completions", json=body) as reply,
            ):
                await page.send("run", prompt="Hello")
                run = (await page.until("run"))["run"]
                while [page.text(lane) for lane in page.lanes] != [text, text, ""]:
                    await page.until("deltas")
                await reply.content.readuntil(TOKENS[2].encode())
                app.server.popen.send_signal(signal.SIGTERM)
                poll = app.server.popen.poll
                ended = asyncio.ensure_future(eventually(lambda: poll() is not None, "the server ended", STOP_S))
                with pytest.raises(ConnectionClosed) as closed:
                    await page.until("never")
                rest = await reply.content.read()
                await ended
                assert poll() == 0
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            ends = [(frame["outcome"], frame["error"]) for frame in page.all("end")]
            assert ends == [("interrupted", SHUT_DOWN)] * 3
            assert b"shutting down" in rest
            assert rest.endswith(b"data: [DONE]\n\n")
            kept = await asyncio.to_thread(stored_turns, app, run)
            assert kept == [["interrupted", text, True], ["interrupted", text, True], ["interrupted", "", True]]
        for request in asked(up):
            await eventually(lambda request=request: request.closed_ns, "upstream was closed", 1)


async def test_what_a_killed_server_left_running_is_ended_at_the_next_start(tmp_path: Path) -> None:
    async with scripted_upstream() as up:
        with live(tmp_path) as app:
            await asyncio.to_thread(add_backend, app, up, "fault-u12")
            async with open_page(app, "fault-u12") as page:
                await page.send("run", prompt="Hello")
                run = (await page.until("run"))["run"]
                await page.until("deltas")
                await asyncio.to_thread(wait_for_run, app, run)
                app.server.popen.kill()
                await asyncio.to_thread(app.server.popen.wait)
            again, url = await asyncio.to_thread(start_server, app.env, tmp_path)
            try:
                app.server, app.url = again, url
                shown = (await asyncio.to_thread(app.browser().get, f"/runs/{run}/")).text
                assert "Interrupted: the server ended before this comparison did." in shown
            finally:
                assert await asyncio.to_thread(again.end) == ""


def wait_for_run(app: LiveApp, run: str) -> None:
    patience = Patience(30)
    while app.browser().get(f"/runs/{run}/").status != 200:
        assert patience.left
        time.sleep(0.02)


async def test_the_same_application_runs_under_uvicorn(live_app: LiveApp, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--port", "0", "--lifespan", "on"]
    process = Process(
        [*command, "--no-access-log"], {**live_app.env, "PYTHONUNBUFFERED": "1"}, tmp_path / "uvicorn.log"
    )
    try:
        url = await asyncio.to_thread(announced, process)
        await asyncio.to_thread(wait_until_healthy, url)
        app = LiveApp(tmp_path, live_app.env, live_app.simulator, process, url)
        async with scripted_upstream() as up:
            model = "ok-timings"
            await asyncio.to_thread(add_backend, app, up, model)
            try:
                async with open_page(app, model, html=True) as page:
                    await page.run()
                    assert page.text(page.lanes[0]) == TEXT
                async with aiohttp.ClientSession(url) as http:
                    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
                    async with http.post("/v1/chat/completions", json=body) as reply:
                        assert (await reply.read()).endswith(b"data: [DONE]\n\n")
            finally:
                await asyncio.to_thread(app.browser().post, f"/backends/{model}/remove/")
    finally:
        process.popen.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.popen.wait, 60)
        process.end()
    assert code in (0, -signal.SIGTERM)
    assert "Application shutdown complete" in process.log
    assert "Traceback" not in process.log


def announced(process: Process) -> str:
    patience = Patience(60)
    while not (found := re.search(r"running on (http://\S+)", process.log)):
        assert process.popen.poll() is None, process.log
        assert patience.left, process.log
        time.sleep(0.02)
    return found.group(1)


@pytest.fixture
async def consumer(rows: None) -> AsyncIterator[tuple[Upstream, WebsocketCommunicator]]:
    """The page's consumer in this process, with one backend that stalls; running until the test's end."""
    async with scripted_upstream() as up:
        await in_thread(Backend.objects.create, slug="s", label="S", model="fault-u12", base_url=up.url)
        communicator = WebsocketCommunicator(consumers.ArenaConsumer.as_asgi(), "/ws/arena/")
        assert (await communicator.connect())[0]
        await communicator.send_json_to({"action": "run", "prompt": "Hello", "backend": ["s"]})
        await up.request(1)
        yield up, communicator
        for arena in arenas:
            if arena.running:
                arena.stop()
                await arena.run.wait()
        await upstreams.close()


async def test_a_page_that_stays_away_stops_its_run_after_a_while(
    consumer: tuple[Upstream, WebsocketCommunicator], monkeypatch: pytest.MonkeyPatch
) -> None:
    up, communicator = consumer
    monkeypatch.setattr(consumers, "GRACE_S", 0.1)
    await communicator.disconnect(code=1006)
    request = up.requests[1]
    await eventually(lambda: request.closed_ns, "the run was stopped")


async def test_a_page_that_comes_back_in_time_keeps_its_run_and_its_next_absence_counts_anew(
    consumer: tuple[Upstream, WebsocketCommunicator],
) -> None:
    _, communicator = consumer
    arena = next(arena for arena in arenas if arena.running)
    await communicator.disconnect(code=1006)
    again = WebsocketCommunicator(consumers.ArenaConsumer.as_asgi(), "/ws/arena/")
    await again.connect()
    await again.send_json_to({"action": "attach", "arena": arena.id})
    await eventually(lambda: arena.followers, "the page is back")
    first = arena.losses
    consumers._stop_if_alone(arena, first)  # as the first absence's timer would
    assert arena.running
    await again.disconnect(code=1006)
    consumers._stop_if_alone(arena, first)
    await asyncio.sleep(0)
    assert arena.running
    consumers._stop_if_alone(arena, arena.losses)
    await eventually(lambda: not arena.running, "the second absence ended it")


async def test_a_page_that_cannot_be_followed_is_closed_so_that_it_comes_back(
    consumer: tuple[Upstream, WebsocketCommunicator], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, communicator = consumer

    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("webapp.views.follower.Follower._attached", broken)
    await communicator.send_json_to({"action": "attach"})
    async with asyncio.timeout(60):
        while (message := await communicator.receive_output())["type"] != "websocket.close":
            pass
    assert message["code"] == 1011
    assert any("could not be followed" in record.message for record in caplog.records)
    await communicator.disconnect()
