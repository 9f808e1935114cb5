"""Streaming text: it stays at its end unless someone reads above, and it can do nothing but be read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

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


async def test_text_stays_where_someone_reads(stage: Stage, endless: str) -> None:
    await stage.open(endless)
    await stage.run()
    pane = stage.lane(0).card.locator(".lane-text")
    box = await pane.element_handle()

    async def more_has_come() -> None:
        await stage.page.wait_for_function(GROWN, arg=[box, len(await pane.text_content() or "")])

    await stage.page.wait_for_function("(pane) => pane.scrollHeight > 2 * pane.clientHeight", arg=box)
    await pane.hover()
    await stage.page.mouse.wheel(0, -100_000)
    await stage.page.wait_for_function("(pane) => pane.scrollTop === 0", arg=box)
    await more_has_come()
    assert await pane.evaluate("(pane) => pane.scrollTop") == 0
    await stage.page.mouse.wheel(0, 100_000)
    await stage.page.wait_for_function(f"(pane) => ({FROM_END})(pane) < 24", arg=box)
    await more_has_come()
    assert await pane.evaluate(FROM_END) < 40, "it follows again once they are back"
    await stage.page.keyboard.press("Escape")
    await stage.finished()


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
