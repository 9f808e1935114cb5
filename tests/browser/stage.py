"""The arena as a person handles it: what tests press and read, so that they need no selectors of their own.

Whatever is waited for is waited for by condition; times only end what hangs, on a machine however busy.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Locator, Page

FAST = "wse3-llama-70b"
SLOW = "h100x2-llama-70b"
THINKING = "wse3-gpt-oss-120b"
PROMPT = "Explain why latency matters to a voice assistant."
RUN_MS = 120_000
KEPT_S = 60.0

# Whether the race strip has been the same picture in five of 600 display frames in a row: while it glides or has new
# text to draw it changes in every other frame at least.
AT_REST = """
() => new Promise((resolve) => {
  const canvas = document.querySelector(".race-canvas");
  let last = "";
  let same = 0;
  const look = (left) => {
    const picture = canvas.toDataURL();
    same = picture === last ? same + 1 : 1;
    last = picture;
    if (same === 5 || !left) resolve(same === 5);
    else requestAnimationFrame(() => look(left - 1));
  };
  requestAnimationFrame(() => look(600));
})
"""


class Stage:
    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url

    async def open(self, *lanes: str, prompt: str = PROMPT, max_tokens: int | None = None) -> Stage:
        """Open the arena with these backends and this prompt, and wait for its socket."""
        fields = [("lane", slug) for slug in lanes] + ([("prompt", prompt)] if lanes else [])
        await self.page.goto(f"{self.url}/?{urlencode(fields)}")
        await self.connected()
        if max_tokens is not None:
            await self.set("max_tokens", str(max_tokens))
        return self

    async def connected(self) -> None:
        await self.page.wait_for_selector('#link[data-state="live"]')

    async def set(self, name: str, value: str) -> None:
        """Write a setting into its panel."""
        await self.page.click(".settings-summary")
        await self.page.fill(f'.settings-panel [name="{name}"]', value)
        await self.page.keyboard.press("Escape")

    async def run(self) -> None:
        before = await self.page.get_attribute("#arena", "data-run")
        await self.page.click("#run")
        await self.begun(before)

    async def begun(self, before: str | None) -> None:
        """Wait until another run than `before` is on the page; it may be over already."""
        await self.page.wait_for_selector(f'#arena:not([data-run="{before or ""}"])')

    async def finished(self) -> None:
        await self.page.wait_for_selector('#verdict[data-state="final"]', timeout=RUN_MS)
        await self.page.wait_for_selector("body:not([data-running])", timeout=RUN_MS)

    async def race(self) -> None:
        """Run and wait until the verdict is there."""
        await self.run()
        await self.finished()

    async def strip_at_rest(self) -> None:
        """Wait until the race strip has drawn everything and its axis glides no more."""
        assert await self.page.evaluate(AT_REST)

    async def record(self) -> dict[str, Any]:
        """Return what is kept of the run on the page, which has ended; its rows are written after its answer."""
        path = f"{self.url}/runs/{await self.page.get_attribute('#arena', 'data-run')}/record.json"
        async with asyncio.timeout(KEPT_S):
            while True:
                kept = await self.page.request.get(path)
                if kept.ok and (found := await kept.json())["lanes"]:
                    return dict(found)
                await asyncio.sleep(0.02)

    def lane(self, place: int) -> LaneView:
        return LaneView(self.page, self.page.locator(".lane").nth(place))

    async def stand(self, *backends: str) -> None:
        """Wait until the lanes stand in this order."""
        await self.page.wait_for_function(
            "(wanted) => [...document.querySelectorAll('.lane select')].map((one) => one.value).join() === wanted",
            arg=",".join(backends),
        )

    async def lanes(self) -> list[str]:
        """Return the backends of the lanes, in their order."""
        chosen: list[str] = await self.page.eval_on_selector_all(".lane select", "(all) => all.map((one) => one.value)")
        return chosen

    async def verdict(self) -> str:
        return await self.page.inner_text(".verdict-line")

    async def notice(self) -> str:
        await self.page.wait_for_selector(".notice-line")
        return await self.page.inner_text(".notice-line span")


class LaneView:
    def __init__(self, page: Page, card: Locator) -> None:
        self.page, self.card = page, card

    async def id(self) -> str:
        return await self.card.get_attribute("data-lane") or ""

    async def state(self) -> str:
        return await self.card.locator(".state-word").inner_text()

    async def reaches(self, *states: str) -> None:
        """Wait for one of these states."""
        lane = await self.id()
        wanted = ", ".join(f'.lane[data-lane="{lane}"][data-state="{state}"]' for state in states)
        await self.page.wait_for_selector(wanted, timeout=RUN_MS)

    async def text(self) -> str:
        """Return the answer without its thinking."""
        parts = await self.card.locator(".answer .prose, .answer > .plain, .answer .step > .plain").all_text_contents()
        return "".join(parts)

    async def figure(self, key: str) -> str:
        """Return a figure's digits and unit as they stand."""
        shown = await self.card.locator(f'.figure[data-key="{key}"] .figure-value').all_text_contents()
        return shown[0]

    async def milliseconds(self, key: str) -> float:
        found = re.fullmatch(r"([\d.]+)(ms|s)", await self.figure(key))
        assert found, await self.figure(key)
        return float(found[1]) * (1000 if found[2] == "s" else 1)

    async def estimated(self, key: str) -> bool:
        return await self.card.locator(f'.figure[data-key="{key}"]').get_attribute("data-estimated") is not None

    async def press(self, title: str) -> None:
        await self.card.get_by_role("button", name=title).click()
