"""For everybody: by keyboard alone, by ear, with little contrast vision, without motion."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Held
from tests.browser.stage import FAST, SLOW, Stage

# Contrast of two custom properties in the theme that is on, as WCAG 2.2 computes it.
CONTRAST = """
([front, back]) => {
  const probe = document.createElement("span");
  document.body.append(probe);
  const light = (name) => {
    probe.style.color = `var(--${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((v) => {
      const c = v / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
  probe.remove();
  return (a + 0.05) / (b + 0.05);
}
"""
NAMELESS = """
() => [...document.querySelectorAll("button, a[href], input:not([type=hidden]), select, textarea, summary, [tabindex]")]
  .filter((node) => !(node.textContent.trim() || node.getAttribute("aria-label") || node.getAttribute("aria-labelledby")
    || node.labels?.[0]?.textContent.trim()))
  .map((node) => node.outerHTML.slice(0, 120))
"""
DOUBLE_IDS = """
() => [...document.querySelectorAll("[id]")].map((node) => node.id).filter((id, i, all) => all.indexOf(id) !== i)
"""
UNDEFINED = """
() => [...document.querySelectorAll("[data-define]")].map((node) => node.dataset.define)
  .filter((key) => !document.getElementById(`def-${key}`))
"""
LISTEN = """
() => {
  const region = document.getElementById("announcer");
  window.said = [];
  new MutationObserver(() => said.push(region.textContent))
    .observe(region, {childList: true, characterData: true, subtree: true});
}
"""
COUNT_REFRESHES = """
() => {
  window.refreshes = 0;
  new MutationObserver(() => { refreshes += 1; })
    .observe(document.querySelector(".figures-main"), {characterData: true, childList: true, subtree: true});
}
"""
INKS = ("ink", "ink-2", "ink-muted", "danger", "warn", "good")
LETTERS = "abcdefgh"


@pytest.mark.parametrize("theme", ["dark", "light"])
async def test_words_and_lane_colours_stand_out_from_the_paper(stage: Stage, theme: str) -> None:
    await stage.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    await stage.open()
    words = [(ink, paper) for ink in INKS for paper in ("paper", "surface")]
    words += [("ink", "surface-2"), ("ink-muted", "surface-2"), ("primary-ink", "primary")]
    words += [(f"lane-{letter}-ink", f"lane-{letter}") for letter in LETTERS]
    weak = {pair: ratio for pair in words if (ratio := await stage.page.evaluate(CONTRAST, list(pair))) < 4.5}
    assert not weak
    marks = [(f"lane-{letter}-line", "surface") for letter in LETTERS]
    marks += [("focus", "paper"), ("line-strong", "surface")]
    faint = {pair: ratio for pair in marks if (ratio := await stage.page.evaluate(CONTRAST, list(pair))) < 3}
    assert not faint


async def test_every_control_has_a_name_and_every_id_is_one(stage: Stage) -> None:
    for path in ("/", "/runs/", "/backends/", "/backends/add/", "/help/"):
        await stage.page.goto(stage.url + path)
        assert await stage.page.evaluate(NAMELESS) == [], path
        assert await stage.page.evaluate(DOUBLE_IDS) == [], path


async def test_a_whole_comparison_needs_no_mouse(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=40)
    for _ in range(80):
        await stage.page.keyboard.press("Tab")
        if await stage.page.evaluate("document.activeElement.id") == "prompt":
            break
    await stage.page.keyboard.press("Control+a")
    await stage.page.keyboard.type("How fast is fast?")
    await stage.page.keyboard.press("Control+Enter")
    await stage.finished()
    await stage.page.keyboard.press("Tab")
    await stage.page.keyboard.press("p")
    await stage.page.wait_for_selector("body[data-replay]")


async def test_a_swap_keeps_the_focus_on_the_same_control(stage: Stage) -> None:
    await stage.open(FAST, SLOW, FAST)
    move = f"lane-right-{await stage.lane(0).id()}"
    await stage.page.focus(f"#{move}")
    await stage.page.keyboard.press("Enter")
    await stage.stand(SLOW, FAST, FAST)
    assert await stage.page.evaluate("document.activeElement.id") == move


async def test_the_focus_stays_with_what_was_pressed(stage: Stage, endless: str) -> None:
    await stage.open(endless, endless, FAST)
    focused = "(id) => document.activeElement.id === id"
    lane = await stage.lane(0).id()
    await stage.page.focus("#run")
    await stage.page.keyboard.press("Enter")
    await stage.lane(0).reaches("streaming")
    assert await stage.page.evaluate(focused, "run")
    await stage.page.focus(f"#lane-stop-{lane}")
    await stage.page.keyboard.press("Enter")
    await stage.page.wait_for_function(focused, arg=f"lane-rerun-{lane}")
    await stage.page.focus("#stop")
    await stage.page.keyboard.press("Enter")
    await stage.finished()
    assert await stage.page.evaluate(focused, "stop")
    await stage.page.focus(f"#lane-remove-{lane}")
    await stage.page.keyboard.press("Enter")
    await stage.stand(endless, FAST)
    await stage.page.wait_for_function(focused, arg=f"text-{await stage.lane(0).id()}")


async def test_a_key_opens_the_settings_and_tab_goes_on_into_them(stage: Stage) -> None:
    await stage.open(FAST)
    await stage.page.keyboard.press("s")
    await stage.page.keyboard.press("Tab")
    assert await stage.page.evaluate("document.activeElement.name") == "system"


async def test_the_live_region_tells_what_happened_and_not_every_token(stage: Stage, held: Held) -> None:
    await stage.open(FAST, held.slug, max_tokens=100)
    await stage.page.evaluate(LISTEN)
    await stage.run()
    await stage.page.wait_for_function("() => said.join(' ').includes('Lane A finished after')")
    held.go()
    await stage.finished()
    verdict = await stage.verdict()
    await stage.page.wait_for_function("(verdict) => said.join(' ').includes(verdict)", arg=verdict)
    said: list[str] = await stage.page.evaluate("said")
    assert 2 <= len(said) <= 6
    assert "Lane B finished after" in " ".join(said)


async def test_a_figure_opens_its_definition_by_hover_by_focus_and_by_key(stage: Stage) -> None:
    await stage.open(FAST)
    label = stage.lane(0).card.locator('[data-define="ttft"]')
    popover = stage.page.locator("#definition")
    await label.hover()
    await popover.wait_for(state="visible")
    assert "Time to first token" in await popover.inner_text()
    await stage.page.keyboard.press("Escape")
    await popover.wait_for(state="hidden")
    await stage.page.mouse.move(2, 2)
    await label.focus()
    await stage.page.keyboard.press("?")
    await popover.wait_for(state="visible")
    for word in ("Formula", "Clock", "From", "To", "Error"):
        assert word in await popover.inner_text()


async def test_a_definition_stays_open_while_its_figure_is_refreshed(stage: Stage, endless: str) -> None:
    await stage.open(endless)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    await stage.lane(0).card.locator('[data-define="tok_s"]').hover()
    await stage.page.locator("#definition").wait_for(state="visible")
    await stage.page.evaluate(COUNT_REFRESHES)
    await stage.page.wait_for_function("() => refreshes >= 3")
    assert await stage.page.locator("#definition").is_visible()
    await stage.page.keyboard.press("Escape")
    await stage.page.keyboard.press("Escape")
    await stage.finished()


async def test_every_figure_on_the_page_has_a_definition(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=40)
    await stage.race()
    missing = await stage.page.evaluate(UNDEFINED)
    assert missing == []


async def test_question_mark_opens_the_keys_and_escape_closes_them_without_stopping_a_run(stage: Stage) -> None:
    await stage.open(SLOW, max_tokens=100)
    await stage.run()
    await stage.page.keyboard.press("?")
    assert await stage.page.locator("#help").evaluate("(dialog) => dialog.open")
    await stage.page.keyboard.press("Escape")
    assert not await stage.page.locator("#help").evaluate("(dialog) => dialog.open")
    await stage.finished()
    assert await stage.lane(0).state() == "done"


async def test_single_keys_can_be_switched_off(stage: Stage) -> None:
    await stage.open()
    await stage.page.click("#help-open")
    await stage.page.uncheck("#single-keys")
    await stage.page.keyboard.press("Escape")
    await stage.page.keyboard.press("5")
    await stage.page.wait_for_timeout(200)
    assert await stage.page.get_attribute("#scenario-code", "aria-pressed") == "false"


async def test_the_theme_is_kept_and_there_before_the_first_paint(stage: Stage) -> None:
    await stage.open()
    await stage.page.keyboard.press("t")
    assert await stage.page.get_attribute("html", "data-theme") == "dark"
    await stage.page.keyboard.press("t")
    assert await stage.page.get_attribute("html", "data-theme") == "light"
    await stage.page.reload(wait_until="commit")
    await stage.page.wait_for_selector("body", state="attached")
    assert await stage.page.get_attribute("html", "data-theme") == "light"


async def test_nothing_glides_for_who_asked_for_less_motion(stage: Stage) -> None:
    await stage.page.emulate_media(reduced_motion="reduce")
    await stage.open()
    assert await stage.page.locator(".button").first.evaluate("(b) => getComputedStyle(b).transitionDuration") == "0s"
