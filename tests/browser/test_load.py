"""Load in the page: the arena's drawer, a run while it goes on, its results, two of them side by side."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, Route

from tests.browser.stage import FAST, SLOW, Stage
from tests.browser.test_access import DOUBLE_IDS, NAMELESS, UNDEFINED
from tests.live import LiveApp
from webapp.services.charts import ensure_bundle

# Whether every chart has its lines in the lanes' colours: without them there is paper, ink and the grid.
IN_COLOURS = """
(selector) => [...document.querySelectorAll(selector)].every((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) colours.add(data.slice(i, i + 3).join());
  return colours.size > 4;
})
"""


LINES = "(all) => all.map((one) => one.clientHeight / parseFloat(getComputedStyle(one).lineHeight))"
MARKS_IN_SIGHT = """
() => [...document.querySelectorAll(".lane")].every((lane) => {
  const mark = lane.querySelector(".lane-load").getBoundingClientRect();
  return mark.height > 10 && mark.bottom <= lane.getBoundingClientRect().bottom;
})
"""


@pytest.fixture(scope="module", autouse=True)
def drawing_library() -> None:
    ensure_bundle()


class Drawer:
    """The load drawer as a person handles it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(self) -> None:
        await self.page.keyboard.press("d")
        await self.page.wait_for_selector("#load-start")

    async def start(self, users: int, mix: str = "chat") -> None:
        await self.page.select_option("#load-controls [name=mix]", mix)
        await self.page.fill("#load-users", str(users))
        await self.page.click("#load-start")
        await self.page.wait_for_selector("#load-stop")

    async def says(self, pattern: str) -> None:
        """Wait until the drawer's bar says something."""
        await self.page.wait_for_function(
            "(pattern) => new RegExp(pattern).test(document.getElementById('load-now').textContent)", arg=pattern
        )

    async def stop(self) -> None:
        await self.page.click("#load-stop")
        await self.page.wait_for_selector("#load-start")


@pytest.fixture
def drawer(stage: Stage) -> Drawer:
    return Drawer(stage.page)


async def test_the_drawer_loads_the_lanes_backends_and_leaves_their_figures_in_sight(
    stage: Stage, drawer: Drawer
) -> None:
    await stage.open(FAST, SLOW, max_tokens=40)
    await drawer.open()
    await accessible(stage.page)
    assert await stage.page.locator("#load-controls [name=backend]:checked").evaluate_all(
        "(all) => all.map((one) => one.value)"
    ) == [FAST, SLOW]
    await stage.race()
    await drawer.start(3)
    await drawer.says(r"3 users each · A p95 [\d.]+ m?s · B p95 [\d.]+ m?s")
    await stage.page.locator(".chart[data-live][data-drawn] canvas").nth(3).wait_for()
    await stage.page.wait_for_function(IN_COLOURS, arg=".chart[data-live] canvas")
    top = (await stage.page.locator("#load").bounding_box() or {})["y"]
    for figure in await stage.page.locator(".figures-main .num").all():
        box = await figure.bounding_box()
        assert box
        assert box["y"] + box["height"] < top

    await stage.race()
    for place in (0, 1):
        mark = await stage.lane(place).card.locator(".lane-load").inner_text()
        assert re.search(r"TTFT [\d.]+ m?s, (the \d+\w\w percentile of|among) 3 users right now · calm", mark), mark
    for height in (720, 800, 860, 900, 940, 1080):
        await stage.page.set_viewport_size({"width": 1440, "height": height})
        assert await stage.page.evaluate(MARKS_IN_SIGHT), f"each lane's mark is in sight at {height} px"
    await drawer.stop()


async def test_the_drawer_loads_what_the_lanes_are_now_until_somebody_picks_backends(
    stage: Stage, drawer: Drawer
) -> None:
    await stage.open(FAST)
    await drawer.open()
    picked = "(slug) => document.querySelector('.picks-panel input:checked').value === slug"
    await stage.lane(0).card.locator("select").select_option(SLOW)
    await stage.page.wait_for_function(picked, arg=SLOW)
    await stage.page.click(".picks summary")
    await stage.page.check(f".picks-panel [value={FAST}]")
    await stage.page.uncheck(f".picks-panel [value={SLOW}]")
    await stage.page.click("#lane-add")
    await stage.page.wait_for_selector('.lanes[data-count="2"]')
    assert await stage.page.locator(".picks-panel input:checked").count() == 1
    assert await stage.page.evaluate(picked, FAST)


async def test_the_drawer_stays_below_four_lanes_whatever_their_servers_say(stage: Stage, drawer: Drawer) -> None:
    page = stage.page
    await stage.open(FAST, SLOW, "wse3-gpt-oss-120b", "b200-gpt-oss-120b", max_tokens=20)
    await drawer.open()
    await drawer.start(2)
    await page.wait_for_function("() => document.querySelector('.load-figure').textContent.includes('server')")
    await stage.race()
    for width, height in ((1280, 720), (1280, 800), (1440, 900), (1920, 1080), (390, 844)):
        await page.set_viewport_size({"width": width, "height": height})
        lanes, load = [await page.locator(name).bounding_box() for name in (".lanes", "#load")]
        assert lanes
        assert load
        assert lanes["y"] + lanes["height"] <= load["y"], f"at {width} × {height}"
        assert await page.evaluate(MARKS_IN_SIGHT), f"at {width} × {height}"
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        texts = await page.eval_on_selector_all(".lane-text", LINES)
        assert min(texts) >= 5, f"answers can be read at {width} × {height}"
    await drawer.stop()


async def test_a_host_that_is_the_limit_is_named_while_the_load_goes_on(stage: Stage, drawer: Drawer) -> None:
    page = stage.page
    doubts = ["The generator's loop was late by 80 ms (p99)."]

    async def doubted(route: Route) -> None:
        reply = await route.fetch()
        await route.fulfill(json={**await reply.json(), "doubts": doubts})

    await page.route("**/live.json*", doubted)
    await stage.open(FAST)
    await drawer.open()
    await drawer.start(1)
    await page.wait_for_selector("#load-doubt:visible")
    await accessible(page)
    await page.hover("#load-doubt")
    await page.locator("#definition", has_text=f"The times are not the servers' own. {doubts[0]}").wait_for()
    doubts = []
    await page.wait_for_selector("#load-doubt", state="hidden")
    await drawer.stop()


async def test_the_slider_changes_a_running_load_and_stop_ends_it(
    stage: Stage, drawer: Drawer, live_app: LiveApp
) -> None:
    await stage.open(FAST)
    await drawer.open()
    await drawer.start(0)
    await drawer.says("^0 users")
    run = await stage.page.get_attribute("#load-controls", "data-run")
    await stage.page.fill("#load-users", "5")
    await drawer.says(r"^5 users each · A p95 [\d.]+ m?s")
    assert await stage.page.get_attribute("#load-controls", "data-run") == run, "the same run goes on"
    await drawer.stop()
    lines = live_app.json(f"/load/{run}/live.json")["lines"]
    await asyncio.sleep(1)
    assert live_app.json(f"/load/{run}/live.json")["lines"] == lines
    assert live_app.json(f"/load/{run}/live.json")["state"] == "stopped"


async def test_a_load_is_started_and_stopped_by_keyboard_without_losing_the_focus(stage: Stage, drawer: Drawer) -> None:
    await stage.open(FAST)
    await drawer.open()
    await stage.page.fill("#load-users", "0")
    for pressed, then in (("load-start", "load-stop"), ("load-stop", "load-start")):
        await stage.page.focus(f"#{pressed}")
        await stage.page.keyboard.press("Enter")
        await stage.page.wait_for_selector(f"#{then}")
        await stage.page.wait_for_selector("#load-users:focus")


async def test_the_rate_of_a_running_open_loop_is_moved_by_its_slider(
    stage: Stage, drawer: Drawer, live_app: LiveApp
) -> None:
    await stage.open(FAST)
    await drawer.open()
    await stage.page.select_option("#load-controls [name=arrival]", "constant")
    await stage.page.fill("#load-controls [name=rate]", "4")
    await stage.page.click("#load-start")
    await drawer.says(r"^4.0 requests/s each · A p95 [\d.]+ m?s")
    await stage.page.fill("#load-rate", "16")
    await drawer.says(r"^16 requests/s each")
    run = await stage.page.get_attribute("#load-controls", "data-run")
    await stage.race()
    mark = await stage.lane(0).card.locator(".lane-load").inner_text()
    assert re.search(r"TTFT [\d.]+ m?s, (the \d+\w\w percentile of|among) \d+ requests right now", mark), mark
    await drawer.stop()
    rates = [line["rate"] for line in live_app.json(f"/load/{run}/live.json")["lines"]]
    assert set(rates) == {4, 16}
    page = await (await stage.page.request.get(f"{stage.url}/load/{run}/")).text()
    assert "4 to 16 requests/s" in page


@pytest.mark.refused_form
async def test_a_refused_load_says_why_beside_its_button(stage: Stage, drawer: Drawer) -> None:
    await stage.open(FAST)
    await drawer.open()
    await stage.page.click(".picks summary")
    await stage.page.uncheck(f"#load-controls [name=backend][value={FAST}]")
    await stage.page.keyboard.press("Escape")
    await stage.page.click("#load-start")
    assert "needs 1 to 8 backends" in await stage.page.inner_text("#load-controls .form-error")


async def accessible(page: Page) -> None:
    """Check that every control has a name, every id is one of a kind, and every figure a definition."""
    for wrong in (NAMELESS, DOUBLE_IDS, UNDEFINED):
        assert await page.evaluate(wrong) == []


async def run_here(stage: Stage, users: int, title: str) -> str:
    """Run a short load from the list page, wait for its results and return its address."""
    page = stage.page
    await page.goto(f"{stage.url}/load/?backend={FAST}")
    if not await page.locator(".load-fields").is_visible():
        await page.click(".load-new summary")
    for name, value in {"users": str(users), "duration": "3", "title": title, "slo": "ttft:2000"}.items():
        await page.fill(f".load-fields [name={name}]", value)
    await page.click('.load-fields button:has-text("Start")')
    await page.wait_for_selector("#load-stop, .load-table")
    await accessible(page)
    await page.wait_for_selector(".load-table")
    await accessible(page)
    return page.url


async def test_a_run_is_watched_listed_shown_compared_exported_and_deleted(stage: Stage) -> None:
    page = stage.page
    first = await run_here(stage, 2, "Two users")
    assert await page.locator(".load-verdict .verdict-line").inner_text()
    row = page.locator(".figures-table tbody tr").first
    n = int((await row.locator(".n").inner_text()).replace("\u2009", ""))
    assert n > 2
    assert re.match(r"[\d.]+ ms", await row.locator("td").nth(1).inner_text())
    await page.locator(".charts").scroll_into_view_if_needed()
    await page.wait_for_selector(".chart[data-spec][data-drawn] canvas")
    address = await page.locator(".chart-files a").first.get_attribute("href")
    svg = await page.request.get(f"{stage.url}{address}")
    assert svg.headers["content-type"] == "image/svg+xml"
    assert (await svg.body()).startswith(b"<svg")

    await run_here(stage, 4, "Four users")
    await page.goto(f"{stage.url}/load/")
    for title in ("Four users", "Two users"):
        await page.locator(f'.load-run:has-text("{title}") input').first.check()
    await page.click('button:has-text("Compare")')
    await page.wait_for_selector(".compare-heads")
    assert re.search(r"Run A:\s+Two users", await page.inner_text(".compare-heads")), "the earlier one is A"
    assert await page.locator(".figures-table tbody tr").count() == 4
    assert "The load differs" in await page.inner_text(".load-verdict")
    await page.wait_for_selector(".chart[data-spec][data-drawn] canvas")

    await page.goto(first)
    await page.click(".confirm summary")
    await page.click('button:has-text("Delete this run")')
    await page.wait_for_selector(".load-run")
    assert (await page.request.get(first)).status == 404
