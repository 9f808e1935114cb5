"""The main job: one prompt, several lanes, live read-outs, one verdict."""

from __future__ import annotations

from playwright.async_api import Page

from tests.browser.conftest import Backends, Held
from tests.browser.stage import FAST, SLOW, THINKING, Stage
from tests.upstreams.wire import TOKENS

AT_THEIR_ENDS = """
() => [...document.querySelectorAll(".lane-text")]
  .every((one) => one.scrollHeight - one.scrollTop - one.clientHeight < 24)
"""
DISPLAY_FRAMES = """
(count) => new Promise((resolve) => {
  const next = (left) => left ? requestAnimationFrame(() => next(left - 1)) : resolve();
  next(count);
})
"""


async def test_a_first_visit_has_a_prompt_four_lanes_and_one_button(stage: Stage) -> None:
    await stage.open()
    assert await stage.page.input_value("#prompt")
    assert len(await stage.lanes()) == 4
    assert await stage.page.is_enabled("#run")
    assert await stage.lane(0).state() == "waiting"


async def test_a_run_streams_in_every_lane_and_the_verdict_comes_by_itself(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=120)
    await stage.race()
    for place in (0, 1):
        assert await stage.lane(place).state() == "done"
        assert len(await stage.lane(place).text()) > 200
    assert "A finished" in await stage.verdict()
    assert "sooner" in await stage.verdict()


async def test_figures_are_estimates_while_text_runs_and_exact_when_the_server_has_counted(
    stage: Stage, held: Held
) -> None:
    await stage.open(held.slug)
    await stage.run()
    lane = stage.lane(0)
    await lane.reaches("streaming")
    await stage.page.wait_for_selector('.figure[data-key="output_tokens"][data-estimated]')
    held.go()
    await stage.finished()
    assert not await lane.estimated("output_tokens")
    assert await lane.figure("output_tokens") == str(len(TOKENS))
    assert await lane.milliseconds("ttft") < await lane.milliseconds("e2e")


async def test_ctrl_enter_runs_from_the_prompt_and_escape_stops_every_lane(stage: Stage, endless: str) -> None:
    await stage.open(endless, endless)
    await stage.page.focus("#prompt")
    await stage.page.keyboard.press("Control+Enter")
    await stage.lane(0).reaches("streaming")
    await stage.lane(1).reaches("streaming")
    await stage.page.keyboard.press("Escape")
    await stage.finished()
    assert [await stage.lane(place).state() for place in (0, 1)] == ["stopped", "stopped"]
    assert await stage.lane(0).text()


async def test_one_lane_is_stopped_alone(stage: Stage, held: Held) -> None:
    await stage.open(held.slug, held.slug)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    await stage.lane(0).press("Stop lane A")
    await stage.lane(0).reaches("stopped")
    held.go()
    await stage.finished()
    assert [await stage.lane(place).state() for place in (0, 1)] == ["stopped", "done"]


async def test_one_lane_is_run_again_alone(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=60)
    await stage.race()
    before, run = await stage.lane(1).figure("e2e"), await stage.page.get_attribute("#arena", "data-run")
    await stage.lane(0).press("Run lane A again")
    await stage.begun(run)
    await stage.finished()
    assert await stage.lane(0).state() == "done"
    assert await stage.lane(1).figure("e2e") == before


async def test_a_failed_lane_says_so_in_one_sentence_and_leaves_its_neighbour_alone(
    stage: Stage, backend: Backends
) -> None:
    broken = backend("browser-broken", f"{SLOW}+error")
    await stage.open(broken, FAST, max_tokens=100)
    await stage.race()
    assert await stage.lane(0).state() == "failed"
    assert await stage.lane(0).text(), "what had arrived is kept"
    sentence = await stage.lane(0).card.locator(".lane-error").inner_text()
    assert sentence.endswith(".")
    assert await stage.lane(1).state() == "done"


async def test_lanes_are_added_swapped_moved_and_removed_in_place(stage: Stage) -> None:
    await stage.open(FAST, SLOW)
    await stage.page.click("#lane-add")
    await stage.page.wait_for_selector('.lanes[data-count="3"]')
    third = stage.lane(2)
    await third.card.locator("select").select_option(THINKING)
    await stage.page.wait_for_selector(
        f'#lane-{await third.id()} option[value="{THINKING}"][selected]', state="attached"
    )
    await stage.lane(2).press("Move lane C left")
    await stage.stand(FAST, THINKING, SLOW)
    await stage.lane(0).press("Remove lane A")
    await stage.stand(THINKING, SLOW)
    letters = await stage.page.locator(".lane .letter").all_inner_texts()
    assert letters == ["A", "B"]


async def test_a_new_conversation_leaves_nothing_of_the_last_one(stage: Stage) -> None:
    await stage.open(FAST, max_tokens=40)
    await stage.race()
    assert await stage.lane(0).text()
    await stage.page.evaluate("document.activeElement.blur()")
    await stage.page.keyboard.press("n")
    await stage.page.wait_for_selector(".lane[data-empty]")
    await stage.page.evaluate(DISPLAY_FRAMES, 6)
    assert (await stage.lane(0).text(), await stage.lane(0).state()) == ("", "waiting")
    assert await stage.page.is_disabled("#replay")
    await stage.race()
    assert await stage.lane(0).state() == "done"


async def test_a_lane_with_another_backend_shows_nothing_of_the_one_before(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=40)
    await stage.race()
    kept = await stage.lane(0).text()
    await stage.lane(1).card.locator("select").select_option(THINKING)
    await stage.page.wait_for_selector(".lane[data-empty]")
    await stage.page.evaluate(DISPLAY_FRAMES, 6)
    assert (await stage.lane(1).text(), await stage.lane(1).state()) == ("", "waiting")
    assert (await stage.lane(0).text(), await stage.lane(0).state()) == (kept, "done")


async def test_a_lane_moved_by_keyboard_keeps_the_focus_and_every_lane_its_place_in_the_text(stage: Stage) -> None:
    await stage.open(SLOW, FAST, THINKING, max_tokens=120)
    await stage.race()
    await stage.lane(2).card.get_by_role("button", name="Move lane C left").focus()
    for order in ([SLOW, THINKING, FAST], [THINKING, SLOW, FAST]):
        await stage.page.keyboard.press("Enter")
        await stage.stand(*order)
    focused = "document.activeElement.closest('.lane-tools') && document.activeElement.closest('.lane').dataset.letter"
    assert await stage.page.evaluate(focused) == "A"
    await stage.page.wait_for_function(AT_THEIR_ENDS)


async def test_eight_lanes_are_the_most_and_one_is_the_least(stage: Stage) -> None:
    await stage.open(*[FAST] * 8)
    assert len(await stage.lanes()) == 8
    assert not await stage.page.locator("#lane-add").count()
    await stage.open(FAST)
    assert await stage.lane(0).card.get_by_role("button", name="Remove lane A").is_disabled()


async def test_thinking_is_shown_apart_from_the_answer(stage: Stage) -> None:
    await stage.open(THINKING, max_tokens=300)
    await stage.race()
    card = stage.lane(0).card
    thinking = await card.locator("details.thinking .plain").text_content()
    assert thinking
    assert thinking not in await stage.lane(0).text()
    assert not await card.locator("details.thinking").get_attribute("open")
    assert await stage.lane(0).milliseconds("ttft") < await stage.lane(0).milliseconds("ttfo")


async def test_a_thought_without_an_answer_stays_in_sight(stage: Stage) -> None:
    await stage.open(THINKING, max_tokens=20)
    await stage.race()
    card = stage.lane(0).card
    assert await card.locator("details.thinking[open] .plain").inner_text()
    assert not await stage.lane(0).text()


async def test_why_it_took_that_long_and_how_far_off_we_are_stands_under_a_simulated_answer(stage: Stage) -> None:
    await stage.open(SLOW, max_tokens=40)
    await stage.race()
    card = stage.lane(0).card
    await card.locator(".account summary").click()
    causes = await card.locator(".account-parts dt").all_inner_texts()
    shares = [
        int(text.removesuffix(" %"))
        for text in await card.locator(".account-parts dd:nth-of-type(2)").all_inner_texts()
    ]
    assert causes[0] == "reading weights"
    assert shares == sorted(shares, reverse=True)
    assert 97 <= sum(shares) <= 102
    assert "TTFT +" in await card.locator(".account-truth").inner_text()
    await card.locator('[data-define="truth"]').hover()
    await stage.page.locator("#definition").wait_for(state="visible")


async def test_who_was_first_is_said_while_the_others_still_answer(stage: Stage, held: Held) -> None:
    await stage.open(FAST, held.slug, held.slug, max_tokens=120)
    await stage.run()
    line = stage.page.locator('.verdict-wait:has-text("A done after")')
    await line.wait_for()
    assert (await line.inner_text()).endswith("waiting for B and C")
    held.go()
    await stage.finished()
    assert "A finished" in await stage.verdict()


async def test_a_lane_that_only_thought_is_not_said_to_be_first(stage: Stage, held: Held) -> None:
    await stage.open(THINKING, held.slug, max_tokens=20)
    await stage.run()
    await stage.lane(0).reaches("done")
    assert await stage.page.locator(".verdict-wait").inner_text() == "Racing"
    held.go()
    await stage.finished()
    assert "no other lane finished" in await stage.verdict()


async def test_who_was_first_has_the_letter_of_its_place_when_lanes_are_moved_and_removed(
    stage: Stage, held: Held
) -> None:
    await stage.open(FAST, held.slug, held.slug, max_tokens=120)
    await stage.run()
    await stage.page.wait_for_selector('.verdict-wait:has-text("A done after")')
    await stage.lane(0).press("Move lane A right")
    line = stage.page.locator('.verdict-wait:has-text("B done after")')
    await line.wait_for()
    assert (await line.inner_text()).endswith("waiting for A and C")
    await stage.lane(1).press("Remove lane B")
    await stage.page.wait_for_selector('.verdict-wait:text-is("Racing")')
    held.go()
    await stage.finished()


async def test_a_lane_that_was_removed_has_no_part_in_the_photo_finish(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=40)
    await stage.race()
    await stage.lane(0).press("Remove lane A")
    await stage.stand(SLOW)
    await stage.page.keyboard.press("p")
    await stage.page.wait_for_selector("body[data-replay]")
    assert await stage.page.input_value("#scrub") == "1000", "the end of the lane that is left"


async def test_markdown_is_rendered_once_the_answer_has_ended(stage: Stage) -> None:
    await stage.open(FAST)
    await stage.race()
    assert await stage.lane(0).card.locator(".answer .prose strong").count()
    assert "**" not in await stage.lane(0).text()


async def test_the_next_prompt_goes_on_with_the_conversation_and_a_new_one_forgets_it(stage: Stage) -> None:
    await stage.open(FAST, max_tokens=40)
    await stage.race()
    await stage.page.fill("#prompt", "And in one sentence?")
    await stage.race()
    questions = stage.lane(0).card.locator(".question")
    assert [await questions.nth(i).inner_text() for i in range(2)] == [
        "Explain why latency matters to a voice assistant.",
        "And in one sentence?",
    ]
    await stage.page.get_by_role("button", name="New conversation").click()
    await questions.first.wait_for(state="detached")


async def test_full_length_and_max_tokens_are_what_is_sent(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=33)
    await stage.page.click(".settings-summary")
    await stage.page.check('[name="full_length"]')
    await stage.page.keyboard.press("Escape")
    assert "33 tokens exactly" in await stage.page.inner_text("#settings-words")
    await stage.race()
    assert [await stage.lane(place).figure("output_tokens") for place in (0, 1)] == ["33", "33"]


async def test_an_impossible_setting_is_pointed_at_and_not_sent(stage: Stage) -> None:
    await stage.open(FAST)
    await stage.set("temperature", "9")
    await stage.page.click("#run")
    assert await stage.page.locator(".settings[open] :invalid").count() == 1
    assert not await stage.page.locator("body[data-running]").count()


async def test_number_keys_choose_scenarios_but_not_while_typing(stage: Stage) -> None:
    await stage.open()
    await stage.page.keyboard.press("5")
    await stage.page.wait_for_selector('#scenario-code[aria-pressed="true"]')
    await stage.page.focus("#prompt")
    await stage.page.keyboard.type("1")
    assert "1" in await stage.page.input_value("#prompt")
    assert await stage.page.get_attribute("#scenario-code", "aria-pressed") == "true"


async def test_what_a_run_stood_in_the_way_of_is_said_until_it_is_over(stage: Stage, held: Held) -> None:
    await stage.open(held.slug)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    await stage.page.keyboard.press("3")
    assert "still running" in await stage.notice()
    held.go()
    await stage.finished()
    await stage.page.wait_for_selector(".notice-line", state="detached")


async def test_an_agent_loop_is_shown_step_by_step(stage: Stage) -> None:
    await stage.open(FAST)
    await stage.page.keyboard.press("3")
    await stage.page.wait_for_selector('#scenario-agent[aria-pressed="true"]')
    await stage.race()
    assert await stage.lane(0).figure("step") == "10/10"
    assert await stage.lane(0).card.locator(".step-label").count() == 10


async def test_lanes_one_after_the_other_do_not_overlap(stage: Stage, held: Held) -> None:
    await stage.open(held.slug, SLOW, max_tokens=30)
    await stage.page.click(".settings-summary")
    await stage.page.select_option('[name="order"]', "sequential")
    await stage.page.keyboard.press("Escape")
    await stage.run()
    await stage.lane(0).reaches("streaming")
    assert await stage.lane(1).state() == "waiting"
    held.go()
    await stage.finished()
    assert await stage.lane(1).state() == "done"


async def test_a_reload_finds_the_same_answers(stage: Stage, page: Page) -> None:
    await stage.open(FAST, max_tokens=60)
    await stage.race()
    text = await stage.lane(0).text()
    await page.reload()
    await stage.connected()
    assert await stage.lane(0).text() == text
    await page.wait_for_selector("#replay:enabled")


async def test_what_is_typed_while_lanes_stream_stays_when_they_have_ended(stage: Stage, held: Held) -> None:
    await stage.open(held.slug)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    await stage.page.click(".settings-summary")
    await stage.page.fill('.settings-panel [name="system"]', "Be brief.")
    await stage.page.fill("#prompt", "And the")
    await stage.page.keyboard.press("End")
    held.go()
    await stage.finished()
    await stage.page.get_by_role("button", name="New conversation").wait_for()
    await stage.page.keyboard.type(" second?")
    assert await stage.page.input_value("#prompt") == "And the second?"
    assert await stage.page.input_value('.settings-panel [name="system"]') == "Be brief."
    assert await stage.page.locator(".settings[open]").count(), "the panel was open"


async def test_a_scenario_chosen_again_puts_its_own_prompt_back(stage: Stage) -> None:
    await stage.open()
    await stage.page.click("#scenario-chat")
    await stage.page.wait_for_selector('#scenario-chat[aria-pressed="true"]')
    prompt = await stage.page.input_value("#prompt")
    await stage.page.fill("#prompt", "Something else")
    await stage.page.click("#scenario-chat")
    await stage.page.wait_for_function("(prompt) => document.getElementById('prompt').value === prompt", arg=prompt)


async def test_a_reload_in_the_middle_of_a_run_shows_how_that_run_ended(stage: Stage, endless: str) -> None:
    await stage.open(endless)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    await stage.page.reload()
    await stage.finished()
    assert await stage.lane(0).state() == "stopped"
    assert await stage.verdict() == "Stopped before anyone finished."
