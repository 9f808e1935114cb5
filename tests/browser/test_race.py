"""The race strip and what can be done with a recorded race: photo finish, any moment, slow motion."""

from __future__ import annotations

import re
from typing import Any

from tests.browser.stage import FAST, SLOW, Stage

# Which columns of the strip's row `place` are painted in its lane's colour, counted from where the time axis begins.
PAINTED = """
([place, count]) => {
  const canvas = document.querySelector(".race-canvas");
  const ratio = canvas.width / canvas.clientWidth;
  const row = (canvas.clientHeight - 22) / count;
  const y = Math.round((22 + row * (place + 0.5) - row * 0.25) * ratio);
  const [left, wide] = [Math.round(210 * ratio), canvas.width - Math.round(300 * ratio)];
  const line = canvas.getContext("2d").getImageData(left, y, wide, 1).data;
  const painted = [];
  for (let i = 0; i < line.length; i += 4) {
    const spread = Math.max(line[i], line[i + 1], line[i + 2]) - Math.min(line[i], line[i + 1], line[i + 2]);
    if (line[i + 3] > 40 && spread > 60) painted.push(i / 4 + left - 200 * ratio);
  }
  return painted;
}
"""


# In how many of `frames` display frames the strip was another picture than in the one before, while lane A streamed.
MOVED = """
(frames) => new Promise((resolve) => {
  const canvas = document.getElementById("race");
  const lane = document.querySelector(".lane");
  let seen = 0;
  let moved = 0;
  let last = "";
  const look = () => {
    const picture = canvas.toDataURL();
    moved += last !== "" && picture !== last;
    last = picture;
    if (seen === frames || lane.dataset.state !== "streaming") resolve({ seen, moved });
    else { seen += 1; requestAnimationFrame(look); }
  };
  requestAnimationFrame(look);
})
"""


# How wide the part of the strip is that PAINTED looks at, as a share of the whole time axis, and where it begins.
LOOKED_AT = """
() => {
  const { clientWidth } = document.querySelector(".race-canvas");
  const plot = clientWidth - 200 - 96;
  return { plot, from: 10, to: 10 + clientWidth - 300 };
}
"""
MARKS = 20  # columns that the first text's ring and the flag at the end may paint


async def race(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=120)
    await stage.race()
    await stage.strip_at_rest()


def columns(record: dict[str, Any], place: int, looked_at: dict[str, int]) -> set[int]:
    """Return the columns in which a text of this lane arrived, by the run's own record."""
    scale = looked_at["plot"] / max(lane["end_us"] for lane in record["lanes"])
    found = {int(delta[0] * scale) for delta in record["lanes"][place]["d"]}
    return {column for column in found if looked_at["from"] <= column < looked_at["to"]}


async def test_every_lane_is_drawn_and_the_slow_one_is_longer(stage: Stage) -> None:
    await race(stage)
    record, looked_at = await stage.record(), await stage.page.evaluate(LOOKED_AT)
    for place in (0, 1):
        drawn, due = len(await stage.page.evaluate(PAINTED, [place, 2])), len(columns(record, place, looked_at))
        assert due <= drawn <= 2 * due + MARKS, "a column for each text, a lone one twice as wide"
    fast, slow = (lane["end_us"] for lane in record["lanes"])
    assert slow > fast


async def test_the_strip_moves_at_display_rate_while_lanes_run(stage: Stage, endless: str) -> None:
    await stage.open(endless)
    await stage.run()
    await stage.lane(0).reaches("streaming")
    found = await stage.page.evaluate(MOVED, 40)
    assert found["seen"] == 40, "it streamed all the while"
    assert found["moved"] >= 20, "in every frame, in every other where the machine does not keep up"
    await stage.page.keyboard.press("Escape")


async def test_photo_finish_freezes_every_lane_at_the_instant_the_fastest_ended(stage: Stage) -> None:
    await race(stage)
    whole = await stage.lane(1).card.locator(".answer").text_content()
    final = [await stage.lane(place).figure("e2e") for place in (0, 1)]
    await stage.page.keyboard.press("p")
    await stage.page.wait_for_selector("body[data-replay]")
    frozen = [await stage.lane(0).milliseconds("e2e"), await stage.lane(1).milliseconds("elapsed")]
    skew = await stage.page.inner_text(".verdict .skew")  # each lane's figure begins when its own request left
    apart_ms = float(re.search(r"[\d.]+", skew)[0])
    assert abs(abs(frozen[0] - frozen[1]) - apart_ms) < 20, "both lanes stand at one instant"
    assert await stage.lane(0).figure("e2e") == final[0], "the fastest has ended there"
    notes = await stage.page.locator(".replay-note").all_inner_texts()
    assert notes[0] == "finished"
    assert notes[1].endswith("% of its answer") or notes[1] == "nothing yet"
    shown = "".join(await stage.lane(1).card.locator(".replay-text .plain").all_text_contents())
    first, other = (await stage.record())["lanes"]
    assert shown == "".join(text for at_us, _, text, *_ in other["d"] if at_us <= first["end_us"])
    assert shown != whole
    assert await stage.page.get_attribute("#photo", "aria-pressed") == "true"
    await stage.page.keyboard.press("l")
    assert [await stage.lane(place).figure("e2e") for place in (0, 1)] == final
    assert await stage.lane(1).card.locator(".answer").is_visible()


async def test_figures_at_a_moment_are_marked_as_estimates_and_unknown_ones_are_empty(stage: Stage) -> None:
    await race(stage)
    await stage.page.locator("#scrub").fill("900")
    assert await stage.lane(1).estimated("tok_s")
    assert await stage.lane(1).figure("icl_p99") == "–"
    assert await stage.lane(1).milliseconds("ttft") > 0


async def test_a_replay_runs_in_slow_motion_and_can_be_paused(stage: Stage) -> None:
    await race(stage)
    clock, moment = stage.page.clock, stage.page.locator("#scrub")
    await stage.page.select_option("#replay-speed", "0.5")
    await clock.install()
    await clock.pause_at(await stage.page.evaluate("Date.now() + 1000"))
    await stage.page.click("#replay")
    await clock.run_for(500)
    icon = stage.page.locator("#replay use")
    assert await icon.get_attribute("href") == "#i-pause"
    await stage.page.keyboard.press("r")
    assert await icon.get_attribute("href") == "#i-play"
    at = await moment.get_attribute("aria-valuetext") or ""
    assert 230 <= float(at.removesuffix(" ms")) <= 250, "half a second at half speed, less a frame"
    await clock.run_for(200)
    assert await moment.get_attribute("aria-valuetext") == at
    assert await stage.page.inner_text("#replay-word") == "Replay"


async def test_photo_finish_works_while_the_slow_lane_still_runs(stage: Stage, endless: str) -> None:
    await stage.open(FAST, endless, max_tokens=20)
    await stage.run()
    await stage.lane(0).reaches("done")
    await stage.page.keyboard.press("p")
    card = stage.lane(1).card
    before = await card.locator(".replay-text").text_content() or ""
    arrived = len(await card.locator(".answer").text_content() or "")
    await stage.page.wait_for_function(
        "([id, more]) => document.getElementById(id).textContent.length > more",
        arg=[f"answer-{await stage.lane(1).id()}", arrived + len(before) + 100],
    )
    assert await card.locator(".replay-text").text_content() == before
    assert await card.get_attribute("data-state") == "streaming"
    await stage.page.keyboard.press("Escape")
    await stage.finished()
    await stage.page.keyboard.press("l")
    assert len(await stage.lane(1).text()) > len(before), "what came meanwhile is there"


async def test_the_strip_can_be_read_where_the_system_sets_the_colours(stage: Stage) -> None:
    await stage.page.emulate_media(forced_colors="active")
    await stage.open(FAST, max_tokens=40)
    await stage.race()
    await stage.strip_at_rest()
    assert await stage.page.evaluate(PAINTED, [0, 1]), "the lane's own colour"


async def test_the_photo_finish_moves_no_button_and_escape_leaves_it(stage: Stage) -> None:
    await stage.open(FAST, SLOW, max_tokens=40)
    await stage.race()
    place = await stage.page.locator("#photo").bounding_box()
    await stage.page.click("#photo")
    await stage.page.wait_for_selector("#live:visible")
    assert await stage.page.locator("#photo").bounding_box() == place, "the next click finds what the first has pressed"
    await stage.page.keyboard.press("Escape")
    await stage.page.wait_for_selector("body:not([data-replay])")


async def test_a_new_run_leaves_the_replay(stage: Stage) -> None:
    await race(stage)
    await stage.page.keyboard.press("p")
    await stage.race()
    assert await stage.page.locator("body[data-replay]").count() == 0
    assert await stage.lane(0).card.locator(".answer").is_visible()


async def test_a_talk_is_shown_as_it_is_spoken(stage: Stage) -> None:
    await stage.open(FAST)
    await stage.page.keyboard.press("2")
    await stage.page.wait_for_selector("#scenario-translation[aria-pressed=true]")
    await stage.run()
    await stage.page.wait_for_function("() => /^Good morning/.test(document.querySelector('.spoken')?.textContent)")
    await stage.page.keyboard.press("Escape")
    await stage.finished()
    assert "Good morning" not in await stage.verdict()


async def test_the_limit_of_a_voice_turn_is_on_the_strip_however_early_the_answer_ends(stage: Stage) -> None:
    await stage.open(FAST)
    await stage.page.keyboard.press("4")
    await stage.page.wait_for_selector("#scenario-voice[aria-pressed=true]")
    await stage.race()
    await stage.strip_at_rest()
    record, looked_at = await stage.record(), await stage.page.evaluate(LOOKED_AT)
    (lane,) = record["lanes"]
    ends = lane["end_us"] / max(lane["end_us"], 1.06 * record["budget_us"]) * looked_at["plot"]
    assert ends <= max(await stage.page.evaluate(PAINTED, [0, 1])) <= ends + MARKS, "it ends that far left of the limit"


# What a strip paints where lane A's total stands, and between the two lanes, where A ends 55 ms before a limit.
AT_A_LIMIT = """
async (budget_us) => {
  const { RaceStrip } = await import("/static/js/race.js");
  const { Recording } = await import("/static/js/recording.js");
  const lanes = [["a", 745000], ["b", 2000000]].map(([lane, end_us]) => (
    { lane, states: [[0, "prefill", 0]], d: [[100000, "c", "text", 0]], end_us, took_us: end_us, outcome: "done" }
  ));
  const canvas = document.createElement("canvas");
  canvas.className = "race-canvas";
  canvas.dataset.rows = "2";
  document.body.append(canvas);
  const rows = [{ id: "a", letter: "A", label: "" }, { id: "b", letter: "B", label: "" }];
  const strip = new RaceStrip(canvas, Recording.from({ run: "r", budget_us, lanes }), () => rows);
  strip.resize();
  const [left, y] = [Math.round(strip.x(745000)) + 15, Math.round(22 + strip.row / 2)];
  const paint = (top, tall) => [...strip.c.getImageData(left, top, 55, tall).data].join();
  return [paint(y - 7, 14), paint(y + 9, 4)];
}
"""


async def test_a_limit_goes_behind_the_total_that_it_would_strike_through(stage: Stage) -> None:
    await stage.page.emulate_media(reduced_motion="reduce")
    await stage.open(FAST)
    total, between = await stage.page.evaluate(AT_A_LIMIT, 800_000)
    alone, empty = await stage.page.evaluate(AT_A_LIMIT, 0)
    assert between != empty, "the limit's line is there"
    assert total == alone


# Keeps every text that is written on a canvas.
WRITTEN = """
  const fill = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    (window.written ??= new Set()).add(text);
    return fill.call(this, text, ...rest);
  };
"""


def spaced(figure: str) -> str:
    """Return a read-out's "94ms" as the strip writes it."""
    return re.sub(r"(?<=\d)(?=m?s$)", " ", figure)


async def test_the_strip_and_the_read_out_name_the_same_total(stage: Stage) -> None:
    await stage.page.add_init_script(WRITTEN)
    await race(stage)
    for place in (0, 1):
        total = spaced(await stage.lane(place).figure("e2e"))
        assert total in await stage.page.evaluate("[...written]")


async def test_they_do_so_of_an_agent_loop_too(stage: Stage) -> None:
    await stage.page.add_init_script(WRITTEN)
    await stage.open(FAST)
    await stage.page.keyboard.press("3")
    await stage.page.wait_for_selector("#scenario-agent[aria-pressed=true]")
    await stage.race()
    await stage.strip_at_rest()
    assert spaced(await stage.lane(0).figure("elapsed")) in await stage.page.evaluate("[...written]")
