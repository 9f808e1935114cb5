"""The other pages: what ran is kept and can be looked at again, backends are looked after, errors are pages too."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, Locator

from tests.browser.conftest import Backends
from tests.browser.stage import FAST, SLOW, Stage
from tests.browser.test_race import PAINTED


async def test_a_run_is_listed_and_its_pages_show_text_figures_and_timeline_again(stage: Stage) -> None:
    await stage.open(FAST, SLOW, prompt="What does a listener hear first?", max_tokens=60)
    await stage.race()
    text, total = await stage.lane(1).text(), await stage.lane(1).figure("e2e")
    page = stage.page
    await stage.record()
    await page.click('nav a:has-text("Runs")')
    await page.locator('.run-title:has-text("What does a listener hear first?")').first.click()
    assert "A finished" in await stage.verdict()
    await page.wait_for_selector('.race-canvas[data-rows="2"]')
    await stage.strip_at_rest()
    assert len(await stage.page.evaluate(PAINTED, [1, 2])) > 10
    assert await stage.lane(1).text() == text
    assert await stage.lane(1).figure("e2e") == total
    await stage.lane(1).card.locator(".lane-name a").click()
    await page.wait_for_selector('.race-canvas[data-rows="1"]')
    assert await stage.lane(0).text() == text
    assert "first token" in await page.inner_text(".facts-aside")
    await page.locator('.figure [data-define="ttft"]').hover()
    await page.locator("#definition").wait_for(state="visible")


async def kept_run(stage: Stage, prompt: str) -> Locator:
    """Ask one lane, and return the run's entry on the list of runs."""
    await stage.open(FAST, prompt=prompt, max_tokens=20)
    await stage.race()
    await stage.record()
    await stage.page.goto(f"{stage.url}/runs/")
    return stage.page.locator(f'.run:has-text("{prompt}")').first


async def test_an_answer_is_kept_as_a_recorded_lane(stage: Stage, backend: Backends) -> None:
    await (await kept_run(stage, "Keep this one.")).locator(".run-lane-name").click()
    await stage.page.click("text=Keep as a recorded lane")
    row = stage.page.locator('.backend:has([data-badge="RECORDED"])').first
    await row.wait_for()
    backend.slugs.append((await row.get_attribute("id") or "").removeprefix("backend-"))


async def test_run_it_again_fills_the_arena_and_sends_nothing(stage: Stage) -> None:
    await (await kept_run(stage, "Once more?")).locator(".run-title").click()
    await stage.page.click("text=Run it again")
    await stage.connected()
    assert await stage.page.input_value("#prompt") == "Once more?"
    assert "20 tokens at most" in await stage.page.inner_text("#settings-words")
    assert await stage.lanes() == [FAST]
    assert await stage.lane(0).state() == "waiting"


async def test_a_backend_is_added_tested_and_removed_in_the_page(stage: Stage, backend: Backends) -> None:
    page = stage.page
    await page.goto(f"{stage.url}/backends/")
    await page.click("text=Add backend")
    await page.fill('[name="slug"]', "browser-added")
    await page.fill('[name="label"]', "Added by hand")
    await page.fill('[name="base_url"]', f"{backend.app.sim_url}/v1")
    await page.fill('[name="model"]', FAST)
    await page.click('button:has-text("Save")')
    row = page.locator("#backend-browser-added")
    await row.wait_for()
    await row.get_by_role("button", name="Test").click()
    await row.locator('.test-summary[data-ok="true"]').wait_for()
    page.once("dialog", lambda dialog: dialog.accept())
    await row.get_by_role("button", name="Remove").click()
    await row.wait_for(state="detached")


async def test_backends_can_be_looked_after_without_script(chromium: Browser, backend: Backends) -> None:
    slug = backend("browser-scriptless", FAST)
    context = await chromium.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{backend.app.url}/backends/")
    row = page.locator(f"#backend-{slug}")
    await row.get_by_role("button", name="Test").click()
    await row.locator('.test-summary[data-ok="true"]').wait_for()
    await context.close()


@pytest.mark.refused_form
async def test_a_wrong_backend_is_pointed_out_at_its_field(stage: Stage) -> None:
    await stage.page.goto(f"{stage.url}/backends/add/")
    await stage.page.fill('[name="slug"]', "not a slug")
    await stage.page.click('button:has-text("Save")')
    await stage.page.locator(".field.invalid .form-error").first.wait_for()
    assert await stage.page.input_value('[name="slug"]') == "not a slug"


async def test_a_missing_page_says_where_to_go(stage: Stage) -> None:
    answer = await stage.page.goto(f"{stage.url}/help/")
    assert answer is not None
    assert answer.ok
    await stage.page.evaluate("history.replaceState(null, '', '/nowhere')")
    missing = await stage.page.request.get(f"{stage.url}/nowhere/")
    assert missing.status == 404
    assert "Open the arena" in await missing.text()


async def test_the_help_page_defines_every_figure(stage: Stage) -> None:
    await stage.page.goto(f"{stage.url}/help/")
    assert await stage.page.locator("#def-ttft .formula").inner_text()
    assert await stage.page.locator(".definition-entry").count() >= 15
