"""Searches, sweeps and paired comparisons from the page: a form with what each kind needs, and results that grow."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.browser.stage import FAST, Stage
from tests.browser.test_access import DOUBLE_IDS, NAMELESS, UNDEFINED
from tests.hostwatch import measurements
from tests.live import Browser, LiveApp
from webapp.services.charts import ensure_bundle

OTHER = "groq-gpt-oss-120b"
SERIES_MS = 180_000  # runs of a generator at its limit are made again
KINDS = {
    "run": ["arrival", "users", "duration", "mix", "think", "wire", "slo", "title"],
    "search": ["first", "up_to", "step", "mix", "think", "wire", "slo", "title"],
    "sweep": ["arrival", "loads", "step", "mix", "think", "wire", "slo", "title"],
    "ab": ["arrival", "users", "duration", "mix", "think", "wire", "slo", "title"],
}
SHOWN = """
() => [...document.querySelectorAll(".load-fields :is(input, select)[name]")]
  .filter((node) => node.checkVisibility() && !["kind", "backend"].includes(node.name)).map((node) => node.name)
"""
CUT_OFF = "(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.querySelector('.steps-scroll'))"


@pytest.fixture(scope="module", autouse=True)
def drawing_library() -> None:
    ensure_bundle()


async def opened(stage: Stage, *backends: str) -> None:
    """Open the form of a new run with these backends ticked."""
    await stage.page.goto(f"{stage.url}/load/?{'&'.join(f'backend={slug}' for slug in backends)}")
    if not await stage.page.locator(".load-fields").is_visible():
        await stage.page.click(".load-new summary")


async def start(stage: Stage, kind: str, *backends: str, **fields: str) -> str:
    """Start a run of a kind and return its address."""
    await opened(stage, *backends)
    await stage.page.check(f'.load-fields [name=kind][value="{kind}"]')
    for name, value in {"title": "", **fields}.items():
        await stage.page.fill(f".load-fields [name={name}]", value)
    await stage.page.click('.load-fields button:has-text("Start")')
    await stage.page.wait_for_selector("#load-stop")
    return stage.page.url


async def says(stage: Stage, pattern: str) -> None:
    """Wait until the progress says something."""
    await stage.page.wait_for_function(
        "(pattern) => new RegExp(pattern).test(document.getElementById('load-progress')?.textContent)",
        arg=pattern,
    )


async def accessible(stage: Stage) -> None:
    for wrong in (NAMELESS, DOUBLE_IDS, UNDEFINED):
        assert await stage.page.evaluate(wrong) == []


async def test_the_form_asks_for_what_the_chosen_kind_needs_and_no_more(stage: Stage) -> None:
    await opened(stage, FAST)
    await stage.page.focus(".load-fields [name=kind]:checked")
    for kind in ("search", "sweep", "ab", "run"):  # as the arrow keys go round
        await stage.page.keyboard.press("ArrowRight")
        assert sorted(await stage.page.evaluate(SHOWN)) == sorted(KINDS[kind])
    await stage.page.select_option(".load-fields [name=arrival]", "gamma")
    assert {"rate", "cv"} < set(await stage.page.evaluate(SHOWN))
    assert "users" not in await stage.page.evaluate(SHOWN)
    await accessible(stage)


@pytest.mark.refused_form
async def test_what_is_wrong_is_said_at_its_field_and_nothing_is_lost(stage: Stage) -> None:
    page = stage.page
    await opened(stage, FAST, OTHER)
    await page.check(".load-fields [name=kind][value=search]")
    await page.fill(".load-fields [name=up_to]", "many")
    await page.fill(".load-fields [name=title]", "Kept")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#problem-up_to")
    assert await page.inner_text("#problem-up_to") == "Go up to: a whole number from 1 to 1,000."
    assert "needs an SLO" in await page.inner_text("#problem-slo")
    assert await page.evaluate("document.activeElement.name") == "up_to"
    assert await page.input_value(".load-fields [name=up_to]") == "many"
    assert await page.input_value(".load-fields [name=title]") == "Kept"
    assert await page.is_checked(".load-fields [name=kind][value=search]")
    assert await page.locator(".load-fields [name=backend]:checked").count() == 2
    await accessible(stage)


async def test_a_search_is_watched_step_by_step_and_answers_in_a_sentence(stage: Stage) -> None:
    page = stage.page
    await start(stage, "search", FAST, slo="ttft:60000", first="1", up_to="2", step="6")
    await says(stage, r"Step 1: 1 user on .*, [0-6] s of 6 s\. 100\.0% of \d+ good so far")
    await accessible(stage)
    await says(stage, r"Step 2: [\s\S]*under way")
    assert await page.locator(".step-table tbody tr").count() == 2
    await page.wait_for_selector(".chart[data-growing][data-drawn] canvas")
    await page.wait_for_selector(".load-verdict", timeout=SERIES_MS)
    told = [text.strip() for text in await page.locator(".step-table td.told").all_inner_texts()]
    # A busy machine may be the limit; then that is what it says.
    answer = "serves at least 2 users" if told[-1] == "enough" else "the generator"
    assert answer in await page.inner_text(".load-verdict"), told
    await accessible(stage)


async def test_a_sweeps_curve_grows_and_stop_ends_it_at_once_with_the_points_it_has(
    stage: Stage, live_app: LiveApp
) -> None:
    page = stage.page
    for measurement in measurements():
        address = await start(stage, "sweep", FAST, OTHER, loads="1, 2, 4", step="3")
        await says(stage, r"Step 1 of 6: 1 user on .*left in all")
        await page.wait_for_selector(".step-table .now")
        assert await page.evaluate(CUT_OFF) <= 0, "the last column of the table can be read"
        await says(stage, "Step 2 of 6")
        await page.wait_for_selector(".chart[data-growing][data-drawn] canvas")
        assert ended(live_app, address) >= 1
        await page.click("#load-stop")
        at_stop = ended(live_app, address)
        await asyncio.sleep(1)
        before = read(live_app)
        await page.wait_for_selector(".load-verdict")
        assert before
        with measurement:
            assert read(live_app) == before, "nothing left a second after the stop, and no further step began"
            assert at_stop <= await page.locator(".step-table tbody tr").count() <= at_stop + 1
        assert "stopped" in await (await page.request.get(f"{stage.url}/load/")).text()


def ended(app: LiveApp, address: str) -> int:
    """Return how many steps of a sweep have ended: its curve has as many points."""
    path = address.removeprefix(app.url)
    return len(app.json(f"{path}chart/growing.json")["data"]["values"])


def read(app: LiveApp) -> list[str]:
    """Return how many tokens of prompts the simulator has read, by model."""
    return re.findall(r"^vllm:prompt_tokens_total.*", Browser(app.sim_url).get("/metrics").text, re.MULTILINE)


async def test_a_pairs_difference_is_live_with_its_interval(stage: Stage) -> None:
    page = stage.page
    await start(stage, "ab", FAST, OTHER, users="4", duration="6")
    await says(stage, r"TTFT A − B\s*[−+][\d.]+ m?s\s*[−+][\d.]+ m?s to [−+][\d.]+ m?s")
    await page.wait_for_function("() => document.querySelectorAll('.whisker rect').length === 3")
    await accessible(stage)
    await page.wait_for_selector(".load-verdict", timeout=SERIES_MS)
    assert "is faster than" in await page.inner_text(".load-verdict")
    assert await page.locator(".pairs-scroll tbody tr").count() == 3
    await accessible(stage)


async def test_one_backend_alone_is_compared_with_itself_and_started_again_with_the_same_form(stage: Stage) -> None:
    page = stage.page
    await start(stage, "ab", FAST, users="2", duration="60")
    assert await page.inner_text("h1") == "A against itself"
    await page.click("#load-stop")
    await page.click("text=Run it again")
    assert await page.is_checked(".load-fields [name=kind][value=ab]")
    assert await page.locator(".load-fields [name=backend]:checked").evaluate_all(
        "(all) => all.map((one) => one.value)"
    ) == [FAST]
    assert await page.input_value(".load-fields [name=users]") == "2"
