"""What the lanes show of another moment of the race, and that leaving it puts everything back."""

from __future__ import annotations

from tests.browser.stage import FAST, Stage
from tests.browser.test_race import race

# The names of the time figures of lanes A and B, and of the definitions that they open.
TIMES = """
() => [...document.querySelectorAll(".figures-main .figure:last-child .define")]
  .map((label) => `${label.textContent} ${label.dataset.define}`)
"""


async def states(stage: Stage) -> list[str]:
    return [await stage.lane(place).state() for place in (0, 1)]


async def test_a_lane_that_was_not_done_at_the_moment_shown_does_not_say_so(stage: Stage) -> None:
    await race(stage)
    await stage.page.keyboard.press("p")
    assert await states(stage) == ["done", "streaming"]
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
