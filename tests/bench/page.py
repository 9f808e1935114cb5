"""P8: the page itself, in Chromium: four lanes of 3,000 tokens a second.

Frames are the distances between `requestAnimationFrame` callbacks. The paint lag of a token is the time from its
emission, which stands in its text, to the first task after the frame in which that text was in the document.

While it streams nobody is attached to the browser: a driver has every message of the page's socket told to it again,
which took a tenth of the two cores that are measured. The page starts and stops its own recording. Each figure is the
median of three runs: one slow second of the host moves every figure of its run.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Page, Playwright, async_playwright

from tests.bench.processes import END_S, RELAY_CORE, START_S, Process, free_port, python_module, wait_for_port
from tests.bench.streams import quantile
from tests.bench.table import Row, missing
from tests.bench.world import LOAD_CORE, World, add_backend, ending
from tests.chromium import ARGUMENTS, find

LANES, RATE = 4, 3000
SIZE = "1600,900"
IDLE_S, LEAVE_S, RUN_S = 2.0, 1.0, 5.0
RUNS = 3
CALIBRATIONS = 30

# Promises in window[`name`] what it records in `seconds`. What it finds in the document at first is left out: nobody
# saw when it was painted.
RECORD = """
const record = (name, seconds, baseUs) => {
  const panes = [...document.querySelectorAll(".lane-text")].map((pane) => ({
    blocks: pane.getElementsByClassName("block"), index: 0, offset: 0, rest: "",
  }));
  const found = { frames: [], lags: [], chars: 0 };
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
      found.chars += text.length - pane.rest.length;
      for (const [, stamp] of text.matchAll(/@(\\d{19}) /g)) {
        found.lags.push(now - (Number(stamp.slice(0, -3)) - baseUs) / 1000);
      }
      const cut = text.lastIndexOf("@");
      pane.rest = cut >= 0 && text.length - cut < 21 ? text.slice(cut) : "";
    }
  };
  panes.forEach(newText);
  const channel = new MessageChannel();
  channel.port1.onmessage = look;
  const until = performance.now() + 1000 * seconds;
  window[name] = new Promise((resolve) => {
    const frame = (at) => {
      if (at > until) { resolve(found); return; }
      found.frames.push(at);
      channel.port2.postMessage(0);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
};
"""
AT_REST = f"([seconds, baseUs]) => {{ {RECORD} record('rest', seconds, baseUs); }}"
# Leaves the driver time to go, runs, and records from when every lane has text.
RACE = f"""
([lanes, seconds, baseUs, leaveMs]) => {{
  {RECORD}
  const begin = () => {{
    if (document.querySelectorAll(".lane-text .block").length < lanes) requestAnimationFrame(begin);
    else record("race", seconds, baseUs);
  }};
  setTimeout(() => {{ document.getElementById("run").click(); begin(); }}, leaveMs);
}}
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
            url = f"http://127.0.0.1:{world.app.port}/"
            runs = [await _in_browser(chromium, url, world.directory / f"chromium-{number}") for number in range(RUNS)]
        finally:
            os.sched_setaffinity(0, {LOAD_CORE})
    return _rows(figure, runs)


async def _in_browser(chromium: str, url: str, profile: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was recorded on the page at rest and while it streamed."""
    async with async_playwright() as playwright:
        with _browser(chromium, profile) as port:
            async with _page(playwright, port) as page:
                await _prepare(page, url)
                base_us = await _clock_base_us(page)
                await page.evaluate(AT_REST, [IDLE_S, base_us])
                rest = await page.evaluate("window.rest")
                await page.evaluate(RACE, [LANES, RUN_S, base_us, LEAVE_S * 1000])
            await asyncio.sleep(LEAVE_S + RUN_S + 0.5)
            async with _page(playwright, port) as page:
                return rest, await page.evaluate("window.race")


@contextmanager
def _browser(chromium: str, profile: Path) -> Iterator[int]:
    """A browser that outlives its driver; yields the port at which it takes one."""
    port = free_port()
    own = [f"--remote-debugging-port={port}", f"--user-data-dir={profile}", f"--window-size={SIZE}"]
    with profile.with_suffix(".log").open("ab") as log:
        child = subprocess.Popen([chromium, *ARGUMENTS, *own, "--headless", "--no-first-run"], stdout=log, stderr=log)
    try:
        wait_for_port(port, START_S)
        yield port
    finally:
        child.terminate()
        child.wait(END_S)


@asynccontextmanager
async def _page(playwright: Playwright, port: int) -> AsyncIterator[Page]:
    """The browser's one page, with a driver attached to it for as long as this lasts."""
    driver = await playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
    try:
        yield driver.contexts[0].pages[0]
    finally:
        await driver.close()


async def _prepare(page: Page, url: str) -> None:
    query = urlencode([("lane", "prose")] * LANES + [("prompt", "Tell the time.")])
    await page.goto(f"{url}?{query}")
    await page.wait_for_selector('#link[data-state="live"]')
    await page.click(".settings-summary")
    await page.fill('.settings-panel [name="max_tokens"]', "32768")
    await page.keyboard.press("Escape")


async def _clock_base_us(page: Page) -> float:
    """Return the monotonic µs at which the page's clock stood at 0, from the fastest of several round trips."""
    found = []
    for _ in range(CALIBRATIONS):
        before_ns = time.monotonic_ns()
        page_ms = await page.evaluate("performance.now()")
        after_ns = time.monotonic_ns()
        found.append((after_ns - before_ns, (before_ns + after_ns) / 2000 - page_ms * 1000))
    return min(found)[1]


def _rows(figure: str, runs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Row]:
    """Return the rows for what was recorded at rest and while it streamed, run by run."""
    if not all(len(race["frames"]) > 1 and race["lags"] for _, race in runs):
        return [missing("P8", figure, "n/a: nothing was painted")]
    gaps = [_gaps(race) for _, race in runs]
    p95s, longest = [quantile(sorted(each), 0.95) for each in gaps], [max(each) for each in gaps]
    lags = [quantile(sorted(race["lags"]), 0.95) for _, race in runs]
    rest = median(quantile(sorted(_gaps(rest)), 0.95) for rest, _ in runs)
    chars = median(race["chars"] / (sum(each) / 1000) / LANES for (_, race), each in zip(runs, gaps, strict=True))
    note = (
        f"{min(map(len, gaps))} frames or more, {chars:,.0f} characters/s in each lane; page at rest: p95 {rest:.1f} ms"
    )
    return [
        _row(f"{figure}: frames p95", p95s, 33.5, 17, reference="60 Hz 16.7 ms", note=note),
        _row("  longest frame", longest, 50.5, 33.5),
        _row("  paint lag p95", lags, 66, 33),
    ]


def _gaps(record: dict[str, Any]) -> list[float]:
    return [b - a for a, b in pairwise(record["frames"])]


def _row(
    figure: str, each: Sequence[float], target: float, beyond: float, *, reference: str = "", note: str = ""
) -> Row:
    """Return the row of a figure's median over the runs, ms."""
    value = median(each)
    seen = "each run: " + ", ".join(f"{one:.0f}" for one in each) + " ms"
    return Row(
        "P8", figure, f"{value:.1f} ms", reference, value, f"{value:.0f} ms", target, beyond,
        note="; ".join(filter(None, [seen, note])),
    )  # fmt: skip
