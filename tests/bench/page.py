"""P8: the page itself, in Chromium: four lanes of 3,000 tokens a second.

Frames are the distances between `requestAnimationFrame` callbacks. The paint lag of a token is the time from its
emission, which stands in its text, to the first task after the frame in which that text was in the document.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Page, async_playwright

from tests.bench.processes import RELAY_CORE, Process, python_module
from tests.bench.streams import quantile
from tests.bench.table import Row, missing
from tests.bench.world import LOAD_CORE, World, add_backend, ending
from tests.chromium import ARGUMENTS, find

LANES, RATE = 4, 3000
IDLE_S, RUN_S = 2.0, 5.0
CALIBRATIONS = 30

# Records until it is evaluated again. What is in the document at its first look was painted at unknown times.
RECORD = """
(baseUs) => {
  const panes = [...document.querySelectorAll(".lane-text")].map((pane) => ({
    blocks: pane.getElementsByClassName("block"), index: 0, offset: 0, rest: "",
  }));
  const record = window.bench = { frames: [], lags: [], chars: 0 };
  const newText = (pane) => {
    let text = "";
    while (pane.index < pane.blocks.length) {
      const node = pane.blocks[pane.index].firstChild;
      text += node.substringData(pane.offset, node.length - pane.offset);
      pane.offset = node.length;
      if (pane.index === pane.blocks.length - 1) break;
      pane.index += 1;
      pane.offset = 0;
    }
    return text;
  };
  const look = () => {
    const now = performance.now();
    for (const pane of panes) {
      const text = pane.rest + newText(pane);
      record.chars += text.length - pane.rest.length;
      for (const [, stamp] of text.matchAll(/@(\\d{19}) /g)) {
        record.lags.push(now - (Number(stamp.slice(0, -3)) - baseUs) / 1000);
      }
      const cut = text.lastIndexOf("@");
      pane.rest = cut >= 0 && text.length - cut < 21 ? text.slice(cut) : "";
    }
  };
  panes.forEach(newText);
  const channel = new MessageChannel();
  channel.port1.onmessage = look;
  const frame = (at) => {
    if (window.bench !== record) return;
    record.frames.push(at);
    channel.port2.postMessage(0);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
"""


async def p8(world: World) -> list[Row]:
    figure = f"page, {LANES} lanes × {RATE:,} tok/s"
    chromium = find()
    if not chromium:
        return [missing("P8", figure, "n/a: no Chromium")]
    prose = Process(
        python_module("tests.bench.prose"),
        core=LOAD_CORE,
        ready=r"reference http://127\.0\.0\.1:(\d+)",
        log=world.directory / "prose.log",
    )
    with ending(prose):
        add_backend(world.directory, "prose", f"ref-{RATE}x{round((RUN_S + 3) * RATE)}", prose.port)
        os.sched_setaffinity(0, {RELAY_CORE, LOAD_CORE})  # the browser takes what it finds, as it would
        try:
            idle, run = await _in_browser(chromium, f"http://127.0.0.1:{world.app.port}/")
        finally:
            os.sched_setaffinity(0, {LOAD_CORE})
    return _rows(figure, idle, run)


async def _in_browser(chromium: str, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was recorded on the page at rest and while it streamed."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = await browser.new_page(viewport={"width": 1600, "height": 900})
        query = urlencode([("lane", "prose")] * LANES + [("prompt", "Tell the time.")])
        await page.goto(f"{url}?{query}")
        await page.wait_for_selector('#link[data-state="live"]')
        await page.click(".settings-summary")
        await page.fill('.settings-panel [name="max_tokens"]', "32768")
        await page.keyboard.press("Escape")
        base_us = await _clock_base_us(page)
        idle = await _record(page, base_us, IDLE_S)
        await page.click("#run")
        await page.locator(".lane-text .block").nth(LANES - 1).wait_for()
        run = await _record(page, base_us, RUN_S)
        await page.click("#stop")
        await browser.close()
    return idle, run


async def _record(page: Page, base_us: float, seconds: float) -> dict[str, Any]:
    await page.evaluate(RECORD, base_us)
    await asyncio.sleep(seconds)
    found: dict[str, Any] = await page.evaluate("() => window.bench")
    return found


async def _clock_base_us(page: Page) -> float:
    """Return the monotonic µs at which the page's clock stood at 0, from the fastest of several round trips."""
    found = []
    for _ in range(CALIBRATIONS):
        before_ns = time.monotonic_ns()
        page_ms = await page.evaluate("performance.now()")
        after_ns = time.monotonic_ns()
        found.append((after_ns - before_ns, (before_ns + after_ns) / 2000 - page_ms * 1000))
    return min(found)[1]


def _rows(figure: str, idle: dict[str, Any], run: dict[str, Any]) -> list[Row]:
    gaps, still = ([b - a for a, b in zip(r["frames"], r["frames"][1:], strict=False)] for r in (run, idle))
    if not gaps or not run["lags"]:
        return [missing("P8", figure, "n/a: nothing was painted")]
    p95, longest = quantile(sorted(gaps), 0.95), max(gaps)
    lag = quantile(sorted(run["lags"]), 0.95)
    rest = f"page at rest: p95 {quantile(sorted(still), 0.95):.1f} ms" if still else ""
    share = run["chars"] / (sum(gaps) / 1000) / LANES
    note = f"{len(gaps)} frames, {share:,.0f} characters/s in each lane; {rest}"
    return [
        Row("P8", f"{figure}: frames p95", f"{p95:.1f} ms", "60 Hz 16.7 ms", p95, f"{p95:.0f} ms", 33.5, 17, note=note),
        Row("P8", "  longest frame", f"{longest:.1f} ms", "", longest, f"{longest:.0f} ms", 50.5, 33.5),
        Row("P8", "  paint lag p95", f"{lag:.1f} ms", "", lag, f"{lag:.0f} ms", 66, 33),
    ]
