"""On a phone, a laptop, a stage: nothing scrolls sideways, nothing shifts, and the page is light."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Backends
from tests.browser.stage import FAST, SLOW, Stage
from tests.upstreams.exchange import Exchange
from tests.upstreams.scripted import SCENARIOS, scripted_upstream
from tests.upstreams.wire import TOKENS

SIZES = [(1280, 720), (1920, 1080), (3840, 2160), (390, 844), (320, 256)]
WATCH_SHIFTS = """
() => {
  window.shift = 0;
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) shift += entry.value; })
    .observe({type: "layout-shift"});
}
"""
# How many lines of an answer have room. Above it stands what a load test of this server has to say, if there is one.
LINES = """
(all) => all.map((one) =>
  (one.previousElementSibling.offsetHeight + one.clientHeight) / parseFloat(getComputedStyle(one).lineHeight))
"""
WARN_OFTEN = """
() => {
  for (let i = 0; i < 9; i += 1) {
    const warning = document.createElement("span");
    warning.className = "warning";
    warning.textContent = "live and simulated mixed";
    document.querySelector(".verdict-more").append(warning);
  }
}
"""
# The smaller figures whose digits or unit lie outside of their own column, and how far.
OUTSIDE = """
() => [...document.querySelectorAll(".figures-more .figure")].flatMap((figure) => {
  const { left, right } = figure.getBoundingClientRect();
  const parts = [...figure.querySelectorAll(".num, .unit")].map((part) => part.getBoundingClientRect());
  const shown = parts.filter(({ width }) => width);
  const far = Math.max(...shown.map((part) => Math.max(left - part.left, part.right - right)));
  return far > 1 ? [`${figure.textContent.trim()} ${far}`] : [];
})
"""
# Whether digits that no column has room for lie over the figure beside them.
OVER_ANOTHER = """
() => {
  const [first, second] = document.querySelectorAll(".figures-main .figure");
  const digits = second.querySelector(".num");
  digits.textContent = "1234567890123456";
  const { top, height } = digits.getBoundingClientRect();
  return second.contains(document.elementFromPoint(first.getBoundingClientRect().right - 8, top + height / 2));
}
"""


@pytest.mark.parametrize(("width", "height"), SIZES)
async def test_no_size_scrolls_sideways(stage: Stage, width: int, height: int) -> None:
    await stage.page.set_viewport_size({"width": width, "height": height})
    await stage.open()
    await stage.run()
    await stage.page.wait_for_timeout(500)
    assert await stage.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    await stage.page.keyboard.press("Escape")
    await stage.finished()
    assert await stage.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


async def test_no_other_page_scrolls_sideways_on_the_narrowest_screen(stage: Stage) -> None:
    await stage.page.set_viewport_size({"width": 320, "height": 256})
    for path in ("/runs/", "/backends/", "/backends/add/", "/help/", "/load/"):
        await stage.page.goto(stage.url + path)
        assert await stage.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path


@pytest.mark.parametrize(("width", "height"), SIZES[:3])
async def test_four_lanes_fit_one_window(stage: Stage, width: int, height: int) -> None:
    await stage.page.set_viewport_size({"width": width, "height": height})
    await stage.open(FAST, SLOW, FAST, SLOW, max_tokens=40)
    await stage.race()
    assert await stage.page.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
    heights = await stage.page.eval_on_selector_all(".lane", "(all) => all.map((one) => one.offsetHeight)")
    assert len(set(heights)) == 1


async def test_answers_and_a_verdicts_details_have_room_in_a_low_window(stage: Stage) -> None:
    await stage.page.set_viewport_size({"width": 1280, "height": 720})
    await stage.open(FAST, SLOW, "wse3-gpt-oss-120b", "b200-gpt-oss-120b", max_tokens=40)
    await stage.race()
    texts = await stage.page.eval_on_selector_all(".lane-text", LINES)
    assert min(texts) >= 6
    await stage.page.evaluate(WARN_OFTEN)
    details = stage.page.locator(".verdict-details")
    assert await details.evaluate("(words) => words.scrollWidth - words.clientWidth") <= 0, "nothing is cut off"


async def test_many_warnings_take_a_second_line(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=40)
    await stage.race()
    await stage.page.evaluate(WARN_OFTEN)
    assert await stage.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert await stage.page.locator(".verdict-details").evaluate("(words) => words.clientWidth") > 100


async def test_nothing_shifts_while_text_streams_and_when_the_verdict_comes(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=120)
    await stage.page.evaluate(WATCH_SHIFTS)
    await stage.race()
    await stage.page.wait_for_timeout(300)
    assert await stage.page.evaluate("shift") < 0.01


async def test_the_page_is_light(stage: Stage) -> None:
    urls: list[str] = []
    stage.page.on("request", lambda request: urls.append(request.url) if request.resource_type == "script" else None)
    await stage.open()
    sizes = [len(await (await stage.page.request.get(url)).body()) for url in urls]
    assert len(sizes) > 5
    assert sum(sizes) < 250_000


async def absurd(x: Exchange) -> None:
    await x.begin()
    await x.tokens(TOKENS)
    await x.finish(10**15)
    await x.end()


async def test_a_count_that_no_server_can_mean_keeps_to_its_column(
    stage: Stage, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCENARIOS, "absurd", absurd)
    async with scripted_upstream() as upstream:
        slug = backend("browser-absurd", "absurd", upstream.url)
        await stage.open(slug, FAST, SLOW, FAST)
        await stage.race()
    assert await stage.lane(0).figure("output_tokens") == "1.0e15"
    assert await stage.page.evaluate(OUTSIDE) == []
    await stage.page.keyboard.press("f")
    assert await stage.page.evaluate(OUTSIDE) == []
    await stage.page.locator("#scrub").fill("1000")
    assert await stage.lane(0).figure("output_tokens") == "1.0e15"
    assert not await stage.page.evaluate(OVER_ANOTHER)
