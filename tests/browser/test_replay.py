"""What the lanes show of another moment of the race, and that leaving it puts everything back."""

from __future__ import annotations

from tests.browser.stage import FAST, Stage
from tests.browser.test_race import race
from tests.browser.test_text import GROWN

# The names of the time figures of lanes A and B, and of the definitions that they open.
TIMES = """
() => [...document.querySelectorAll(".figures-main .figure:last-child .define")]
  .map((label) => `${label.textContent} ${label.dataset.define}`)
"""

PLACES = "() => [...document.querySelectorAll('.lane-text')].map((pane) => pane.scrollTop)"
# Scrolls the second lane's text up, as a hand would, and waits until the page knows.
READ_ABOVE = """
() => new Promise((resolve) => {
  const pane = document.querySelectorAll(".lane-text")[1];
  pane.scrollTop = 20;
  requestAnimationFrame(() => requestAnimationFrame(resolve));
})
"""


async def states(stage: Stage) -> list[str]:
    return [await stage.lane(place).state() for place in (0, 1)]


async def test_a_lane_that_was_not_done_at_the_moment_shown_does_not_say_so(stage: Stage) -> None:
    await race(stage)
    await stage.page.keyboard.press("p")
    fast, slow = await states(stage)
    assert fast == "done"
    assert slow in ("connecting", "prefill", "streaming"), "a busy host may not even have brought its first token"
    assert await stage.page.evaluate(TIMES) == ["Total e2e", "Elapsed elapsed"]
    await stage.page.locator("#scrub").fill("0")
    assert set(await states(stage)) <= {"waiting", "connecting"}
    await stage.page.locator("#scrub").fill("1000")
    assert await states(stage) == ["done", "done"]
    assert await stage.page.evaluate(TIMES) == ["Total e2e", "Total e2e"]
    await stage.page.keyboard.press("p")
    await stage.page.keyboard.press("l")
    assert await states(stage) == ["done", "done"]
    assert await stage.page.evaluate(TIMES) == ["Total e2e", "Total e2e"]


async def test_an_agent_loop_says_elapsed_before_its_last_step_has_ended(stage: Stage) -> None:
    await stage.open(FAST)
    await stage.page.keyboard.press("3")
    await stage.page.wait_for_selector("#scenario-agent[aria-pressed=true]")
    await stage.race()
    await stage.page.locator("#scrub").fill("500")
    assert await stage.page.evaluate(TIMES) == ["Elapsed elapsed"]
    assert await stage.lane(0).state() != "done"
    await stage.page.locator("#live").click()
    assert await stage.page.evaluate(TIMES) == ["Total elapsed"]
    assert await stage.lane(0).state() == "done"


async def test_a_lane_that_ends_while_an_earlier_moment_is_shown_is_done_when_that_is_left(
    stage: Stage, endless: str
) -> None:
    await stage.open(FAST, endless, max_tokens=20)
    await stage.run()
    await stage.lane(0).reaches("done")
    await stage.page.keyboard.press("p")
    shown = await states(stage)
    await stage.lane(1).press("Stop lane B")
    await stage.finished()
    assert await states(stage) == shown
    await stage.page.keyboard.press("l")
    assert await states(stage) == ["done", "stopped"]
    assert await stage.page.evaluate(TIMES) == ["Total e2e", "Total e2e"]


async def test_leaving_a_moment_leads_back_to_the_place_in_every_text(stage: Stage) -> None:
    await race(stage)
    await stage.page.evaluate(READ_ABOVE)
    before = await stage.page.evaluate(PLACES)
    assert before[0] > 20, "the first lane's text stands at its end"
    assert before[1] == 20
    await stage.page.keyboard.press("p")
    assert await stage.page.evaluate(PLACES) != before
    await stage.page.keyboard.press("l")
    assert await stage.page.evaluate(PLACES) == before
    await stage.page.keyboard.press("r")
    await stage.page.wait_for_function("() => document.getElementById('scrub').value !== '0'")
    await stage.page.keyboard.press("l")
    assert await stage.page.evaluate(PLACES) == before


async def test_who_reads_above_in_a_running_text_does_so_after_a_photo_finish(stage: Stage, endless: str) -> None:
    await stage.open(FAST, endless, max_tokens=20)
    await stage.run()
    await stage.lane(0).reaches("done")
    await stage.page.wait_for_function(
        "() => { const pane = document.querySelectorAll('.lane-text')[1]; return pane.scrollTop > 60; }"
    )
    await stage.page.evaluate(READ_ABOVE)
    await stage.page.keyboard.press("p")
    await stage.page.keyboard.press("l")
    pane = stage.lane(1).card.locator(".lane-text")
    length = len(await pane.text_content() or "")
    await stage.page.wait_for_function(GROWN, arg=[await pane.element_handle(), length])
    assert (await stage.page.evaluate(PLACES))[1] == 20
    await stage.page.keyboard.press("Escape")
    await stage.finished()
