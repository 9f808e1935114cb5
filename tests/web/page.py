"""The page's end of its socket, without a browser: it holds what it was sent and fails on any gap or repetition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect

from tests.live import LiveApp

WAIT_S = 60  # only ends what hangs


class Page:
    """One socket. `frames` are all JSON frames, `fragments` all HTML, `deltas` the text of each lane's latest run."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.arena = ""
        self.frames: list[dict[str, Any]] = []
        self.fragments: list[str] = []
        self.deltas: dict[str, list[list[Any]]] = {}
        self._sequence = 0
        self._held: tuple[str, set[str]] = ("", set())

    async def send(self, action: str, **fields: Any) -> None:
        await self.socket.send(orjson.dumps({"action": action, **fields}).decode())

    async def attach(self, *lanes: str, **fields: Any) -> dict[str, Any]:
        """Attach with these backends as lanes and return the answer; the lanes' ids are `page.lanes`.

        With `run` and `have` the text of that run is kept and has to go on where it was.
        """
        self._held = (fields.get("run", ""), {lane for lane, count in fields.get("have", {}).items() if count})
        await self.send("attach", lanes=list(lanes), **fields)
        attached = await self.until("attached")
        self.arena = attached["arena"]
        return attached

    @property
    def have(self) -> dict[str, int]:
        """The numbers of deltas held, as an attach tells them."""
        return {lane: len(deltas) for lane, deltas in self.deltas.items()}

    @property
    def lanes(self) -> list[str]:
        """The ids of the lanes as last told."""
        return [lane["lane"] for lane in self.last("attached")["lanes"]]

    def last(self, kind: str) -> dict[str, Any]:
        return next(frame for frame in reversed(self.frames) if frame["type"] == kind)

    def all(self, kind: str, **match: Any) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind and matches(frame, match)]

    def text(self, lane: str, kind: str = "c") -> str:
        return "".join(delta[2] for delta in self.deltas[lane] if delta[1] == kind)

    async def until(self, kind: str, **match: Any) -> dict[str, Any]:
        """Read on until a frame of this kind with these fields comes, and return it."""
        async with asyncio.timeout(WAIT_S):
            while True:
                frame = await self.read()
                if frame is not None and frame["type"] == kind and matches(frame, match):
                    return frame

    async def fragment(self, part: str) -> str:
        """Return the newest HTML fragment that holds `part`; where there is none yet, read on until it comes."""
        for fragment in reversed(self.fragments):
            if part in fragment:
                return fragment
        async with asyncio.timeout(WAIT_S):
            while True:
                if await self.read() is None and part in self.fragments[-1]:
                    return self.fragments[-1]

    async def run(self, prompt: str = "Hello", **fields: Any) -> str:
        """Run a comparison to its end and return its id."""
        await self.send("run", prompt=prompt, **fields)
        run: str = (await self.until("done"))["run"]
        return run

    async def read(self) -> dict[str, Any] | None:
        """Take one message: a JSON frame is returned, of an HTML fragment None."""
        message = await self.socket.recv()
        assert isinstance(message, str)
        if not message.startswith("{"):
            self.fragments.append(message)
            return None
        frame: dict[str, Any] = orjson.loads(message)
        self.frames.append(frame)
        if frame["type"] == "attached":
            self._sequence = 0
        if frame["type"] == "run":
            run, held = self._held
            kept = held if frame["run"] == run else set()
            self.deltas.update({lane["lane"]: [] for lane in frame["lanes"] if lane["lane"] not in kept})
            self._held = ("", set())
        if frame["type"] == "deltas":
            self._take(frame)
        return frame

    def _take(self, frame: dict[str, Any]) -> None:
        self._sequence += 1
        assert frame["seq"] == self._sequence, "a frame is missing or came twice"
        for lane, part in frame["lanes"].items():
            assert part["from"] == len(self.deltas[lane]), f"lane {lane} has a gap or a repetition"
            self.deltas[lane] += part["d"]


def matches(frame: dict[str, Any], match: dict[str, Any]) -> bool:
    return all(frame.get(name) == value for name, value in match.items())


@asynccontextmanager
async def open_page(app: LiveApp, *lanes: str, **fields: Any) -> AsyncIterator[Page]:
    """Connect as a page of this server does, attach where lanes are named, and leave in good order at the end."""
    async with open_socket(app.ws_url, origin=app.url) as socket:
        page = Page(socket)
        if lanes:
            await page.attach(*lanes, **fields)
        yield page


def open_socket(url: str, origin: str | None, **options: Any) -> connect:
    return connect(url, origin=origin, proxy=None, compression=None, max_size=1 << 24, **options)  # type: ignore[arg-type]


def cut(page: Page) -> None:
    """Lose the connection without a closing handshake, as a network does."""
    page.socket.transport.abort()
