"""One socket per page: it comes back by itself, misses nothing, and never asks a backend twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest_asyncio
from playwright.async_api import Dialog, Page, WebSocket

from tests.browser.conftest import Backends, Held
from tests.browser.line import Line, line_to
from tests.browser.stage import FAST, Stage
from tests.live import LiveApp
from tests.upstreams.scripted import Upstream, scripted_upstream
from tests.upstreams.wire import TEXT, TOKENS

HELD = "".join(TOKENS[:3])


@pytest_asyncio.fixture(loop_scope="session")
async def line(live_app: LiveApp) -> AsyncIterator[Line]:
    async with line_to(live_app.url) as line:
        yield line


@pytest_asyncio.fixture(loop_scope="session")
async def upstream() -> AsyncIterator[Upstream]:
    async with scripted_upstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="session")
async def behind(page: Page, line: Line) -> AsyncIterator[Stage]:
    """The page behind a line that can be cut; it is closed before the line is, and asks nothing of nobody."""
    yield Stage(page, line.url)
    await page.close()


def watch(page: Page) -> list[dict[str, object]]:
    """Collect what the page sends from now on."""
    sent: list[dict[str, object]] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: sent.append(orjson.loads(frame)))

    page.on("websocket", listen)
    return sent


def runs(sent: list[dict[str, object]]) -> list[dict[str, object]]:
    return [message for message in sent if message["action"] == "run"]


async def test_a_page_that_lost_its_line_comes_back_to_the_running_answer_and_misses_nothing(
    behind: Stage, line: Line, held: Held
) -> None:
    sent = watch(behind.page)
    await behind.open(held.slug)
    await behind.run()
    await behind.page.wait_for_selector(f'.answer:has-text("{HELD}")')
    line.cut()
    await behind.page.wait_for_selector('#link[data-state="offline"]')
    line.mend()
    await behind.connected()
    held.go()
    await behind.finished()
    assert await behind.lane(0).state() == "done"
    assert await behind.lane(0).figure("output_tokens") == str(len(TOKENS))
    again = [message for message in sent if message["action"] == "attach"][-1]
    assert again["have"] == {await behind.lane(0).id(): 3}, "it asked for the rest only"
    assert len(runs(sent)) == 1


async def test_text_that_came_while_the_line_was_lost_joins_the_text_before_it(
    behind: Stage, line: Line, held: Held
) -> None:
    await behind.open(held.slug, held.slug)
    await behind.run()
    await behind.page.locator(f'.answer:has-text("{HELD}")').nth(1).wait_for()
    line.cut()
    await behind.page.wait_for_selector('#link[data-state="offline"]')
    held.go()
    line.mend()
    await behind.finished()
    recorded = await behind.lane(0).text()
    await behind.page.keyboard.press("p")
    await behind.page.locator("#scrub").fill("1000")
    replayed = await behind.page.locator(".replay-text .plain").all_text_contents()
    assert replayed == [TEXT, TEXT], "the page itself has it all, in order"
    await behind.page.reload()
    await behind.connected()
    assert await behind.lane(0).text() == recorded


async def test_a_machine_without_a_network_is_no_lost_connection_to_its_own_server(stage: Stage) -> None:
    await stage.open(FAST, max_tokens=30)
    for said in ("offline", "online"):
        await stage.page.evaluate("(said) => dispatchEvent(new Event(said))", said)
        await stage.connected()
    await stage.race()
    assert await stage.lane(0).state() == "done"
    assert await stage.page.inner_text(".link-text") == "connected"


async def test_a_page_whose_server_was_restarted_says_so(behind: Stage, line: Line) -> None:
    await behind.open(FAST, max_tokens=30)
    await behind.race()
    line.cut()
    await behind.page.wait_for_selector('#link[data-state="offline"]')
    await behind.page.evaluate("document.getElementById('arena').dataset.arena = 'of-the-server-before'")
    line.mend()
    await behind.connected()
    assert "The server was restarted" in await behind.notice()
    assert await behind.lane(0).state() == "waiting"


async def test_presses_while_offline_become_one_request(behind: Stage, line: Line) -> None:
    sent = watch(behind.page)
    await behind.open(FAST, max_tokens=30)
    line.cut()
    await behind.page.wait_for_selector('#link[data-state="offline"]')
    for _ in range(5):
        await behind.page.keyboard.press("Control+Enter")
    assert "No connection" in await behind.notice()
    line.mend()
    await behind.finished()
    assert len(runs(sent)) == 1


async def test_what_was_pressed_long_before_the_line_came_back_is_not_sent(behind: Stage, line: Line) -> None:
    await behind.page.clock.install()
    sent = watch(behind.page)
    await behind.open(FAST, max_tokens=30)
    line.cut()
    await behind.page.wait_for_selector('#link[data-state="offline"]')
    await behind.page.keyboard.press("Control+Enter")
    await behind.page.clock.fast_forward(6000)
    line.mend()
    async with asyncio.timeout(60):
        while not await behind.page.locator('#link[data-state="live"]').count():
            await behind.page.clock.run_for(1000)
            await behind.page.wait_for_timeout(50)
    assert "nothing was sent" in await behind.page.inner_text(".notice-line span")
    assert runs(sent) == []


async def test_a_message_that_is_too_long_is_answered_with_a_sentence_and_the_page_goes_on(stage: Stage) -> None:
    await stage.open(FAST, max_tokens=20)
    await stage.page.fill("#prompt", "long " * 60_000)
    await stage.page.click("#run")
    assert "longer than the server takes" in await stage.notice()
    await stage.connected()
    await stage.page.fill("#prompt", "short")
    await stage.race()
    assert await stage.lane(0).state() == "done"


async def test_a_double_press_asks_the_backend_once(stage: Stage, backend: Backends, upstream: Upstream) -> None:
    await stage.open(backend("browser-once", "ok", upstream.url))
    await stage.page.evaluate("() => { const run = document.getElementById('run'); run.click(); run.click(); }")
    await stage.finished()
    assert [request.method for request in upstream.requests].count("POST") == 1


async def test_a_double_click_on_stop_does_not_run_the_lane_again(stage: Stage, endless: str) -> None:
    sent = watch(stage.page)
    await stage.open(endless)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    await stage.lane(0).press("Stop lane A")
    await stage.finished()
    await stage.page.mouse.down(click_count=2)  # now on the button that runs the lane again
    await stage.page.mouse.up(click_count=2)
    await stage.page.click("#lane-add")
    await stage.page.wait_for_selector('.lanes[data-count="2"]')
    assert [message["action"] for message in sent] == ["attach", "run", "stop", "lane.add"]


async def test_a_second_tab_follows_the_same_run_and_may_stop_it(stage: Stage, endless: str) -> None:
    await stage.open(endless)
    other = await stage.page.context.new_page()
    await other.goto(stage.page.url)
    await stage.run()
    await other.wait_for_selector('.lane[data-state="streaming"]')
    await other.keyboard.press("Escape")
    await stage.finished()
    assert await stage.lane(0).state() == "stopped"


async def test_a_page_that_was_frozen_catches_up(stage: Stage, held: Held) -> None:
    await stage.open(held.slug)
    control = await stage.page.context.new_cdp_session(stage.page)
    await control.send("Debugger.enable")
    await stage.run()
    await stage.lane(0).reaches("streaming")
    await control.send("Debugger.pause")
    held.go()
    await held.over()
    await asyncio.sleep(0.3)  # frozen for longer than frames are apart
    await control.send("Debugger.resume")
    await stage.finished()
    assert await stage.lane(0).figure("output_tokens") == str(len(TOKENS))


async def test_who_leaves_in_the_middle_of_a_run_is_asked_first_and_nobody_else(stage: Stage, endless: str) -> None:
    asked: list[str] = []

    async def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await dialog.dismiss()

    await stage.open(endless)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    stage.page.on("dialog", stay)
    async with stage.page.expect_event("dialog"):
        await stage.page.evaluate("setTimeout(() => location.reload())")
    length = len(await stage.lane(0).text())
    await stage.page.wait_for_function(
        "(length) => document.querySelector('.answer').textContent.length > length", arg=length
    )
    assert asked == ["beforeunload"]
    await stage.page.keyboard.press("Escape")
    await stage.finished()
    await stage.page.click('nav a:has-text("Help")')
    await stage.page.wait_for_url("**/help/")
    assert asked == ["beforeunload"]
