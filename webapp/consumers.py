"""The page's socket: parses what comes in, calls one verb of the arena, and lets a follower send what is new.

Tokens pass from the arena to the socket directly, never over a channel layer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from channels.generic.websocket import AsyncWebsocketConsumer

from webapp import queries
from webapp.core.spec import BackendSpec
from webapp.forms import AskForm
from webapp.services.arena import MAX_LANES, Arena, Refused
from webapp.services.arenas import arenas
from webapp.services.database import in_thread
from webapp.services.opening import open_arena
from webapp.services.scenarios import scenarios
from webapp.views.follower import Follower

log = logging.getLogger(__name__)

ACTIONS = (
    "attach", "run", "rerun", "stop", "lane.add", "lane.remove", "lane.swap", "lane.move", "scenario", "new",
)  # fmt: skip
MAX_STRIKES = 20
TOO_MANY_BAD_FRAMES = 4008
FOLLOWING_FAILED = 1011
# Close codes of a peer that left on purpose (a closed tab, a finished script). Others are lost connections, and
# a page gets this long to come back to its running answer before that is stopped.
LEFT = (1000, 1001, 1005)
GRACE_S = 20.0


class BadFrame(Exception):
    """A frame that is not of the wire's form; its text says what is wrong with it."""


class ArenaConsumer(AsyncWebsocketConsumer):
    """One socket. Handlers return at once; what lasts runs in the follower's task or in the arena's run."""

    arena: Arena | None = None
    _follower: Follower | None = None
    _task: asyncio.Task[None] | None = None
    _closing: asyncio.Task[None] | None = None
    _strikes = 0

    async def dispatch(self, message: dict[str, Any]) -> None:
        # Channels closes old database connections before every message, in the one thread that all sockets share;
        # nothing here uses that thread's connection.
        handler = getattr(self, message["type"].replace(".", "_"))
        await handler(message)

    async def connect(self) -> None:
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            await self._act(_parsed(text_data))
        except BadFrame as error:
            await self._strike(str(error))
        except Refused as error:
            await self._error(str(error))

    async def disconnect(self, code: int) -> None:
        await self._leave(lost=code not in LEFT)

    async def _act(self, message: dict[str, Any]) -> None:
        action = message.get("action")
        if action == "attach":
            await self._attach(message)
            return
        if self.arena is None:
            await self._attach({})
        assert self.arena is not None
        lane = str(message.get("lane", ""))
        if action == "run":
            await self._run(self.arena, message)
        elif action == "rerun":
            self.arena.rerun(lane, str(message.get("key", "")))
        elif action == "stop":
            self.arena.stop(lane)
        elif action == "lane.add":
            spec, source = await self._backend(str(message.get("backend", "")))
            self.arena.add(spec, source)
        elif action == "lane.remove":
            self.arena.remove(lane)
        elif action == "lane.swap":
            spec, source = await self._backend(str(message.get("backend", "")))
            self.arena.swap(lane, spec, source)
        elif action == "lane.move":
            self.arena.move(lane, -1 if str(message.get("by")).startswith("-") else 1)
        elif action == "scenario":
            slug = str(message.get("scenario", ""))
            if slug and slug not in scenarios():
                raise Refused("There is no such scenario.")
            self.arena.choose(scenarios().get(slug))
        elif action == "new":
            self.arena.new()
        else:
            raise BadFrame(f"Unknown action; there are {', '.join(ACTIONS)}.")

    async def _attach(self, message: dict[str, Any]) -> None:
        """Follow an arena: the one the page names, or a new one with the lanes it names.

        A page says with `html` whether it wants every fragment again now, and with `version` how old it is: one that
        the browser kept, or that changed before its socket was there, gets them too. A script says nothing and gets
        JSON only.
        """
        arena_id, fragments = str(message.get("arena") or ""), bool(message.get("html"))
        arena = arenas.find(arena_id) if arena_id else None
        specs = await in_thread(_specs)
        if arena is None:
            arena = await open_arena(_strings(message.get("lanes")), arena_id)
            fragments = True
            if message.get("run"):
                text = "The server was restarted; what it had kept is under Runs."
                await self._send_json({"type": "reset", "message": text})
        fragments = fragments or message.get("version") not in (None, str(arena.version))
        if self.arena is arena:
            await self._unfollow()
        else:
            await self._leave(lost=False)
        self.arena = arena
        self._follower = Follower(arena, self._send, specs, html="html" in message)
        have = message.get("have")
        counts = {str(k): v for k, v in have.items() if isinstance(v, int) and v >= 0} if isinstance(have, dict) else {}
        following = self._follower.run(counts, str(message.get("run") or ""), fragments)
        self._task = asyncio.get_running_loop().create_task(following, name="follower")
        self._task.add_done_callback(self._followed)

    async def _run(self, arena: Arena, message: dict[str, Any]) -> None:
        fields = {name: message[name] for name in AskForm.base_fields if name in message}
        form = AskForm(fields, scenarios())
        if not form.is_valid():
            raise Refused(form.problem())
        key = str(message.get("key", ""))
        wanted = _strings(message.get("backend"))
        chosen = [await self._backend(slug) for slug in wanted[: MAX_LANES + 1]]
        if arena.has_started(key):
            return
        if chosen:
            arena.set_lanes(chosen)
        arena.begin(form.ask(), key, keep=str(message.get("keep", "")) != "0")

    async def _backend(self, slug: str) -> tuple[BackendSpec, str]:
        """Return a backend by its slug; the next one not on the page where none is named."""
        rows = await in_thread(queries.all_backends)
        if self._follower is not None:
            self._follower.specs = [queries.spec_of(row) for row in rows]
        taken = {slot.spec.slug for slot in self.arena.slots} if self.arena else set()
        free = [row for row in rows if row.slug == slug] if slug else [row for row in rows if row.slug not in taken]
        if not free and not slug:
            free = rows
        if not free:
            raise Refused("There is no such backend." if slug else "There is no backend yet; add one under Backends.")
        return queries.spec_of(free[0]), free[0].source

    async def _leave(self, *, lost: bool) -> None:
        """Follow the arena no longer. A run that nobody follows then ends: at once, or when a lost page stays away."""
        await self._unfollow()
        arena = self.arena
        if arena is None or arena.followers or not arena.running:
            return
        if lost:
            arena.losses += 1
            asyncio.get_running_loop().call_later(GRACE_S, _stop_if_alone, arena, arena.losses)
        else:
            arena.stop()

    async def _unfollow(self) -> None:
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _followed(self, task: asyncio.Task[None]) -> None:
        """Close the socket of a page that cannot be followed on, so that it comes back instead of standing still."""
        if task.cancelled() or task.exception() is None:
            return
        if not isinstance(task.exception(), OSError):  # that is a client that has gone, under servers that say so
            log.error("a page could not be followed", exc_info=task.exception())
        self._closing = asyncio.get_running_loop().create_task(self.close(code=FOLLOWING_FAILED))

    async def _strike(self, text: str) -> None:
        self._strikes += 1
        if self._strikes == 1:
            log.info("bad frame: %s", text)
        if self._strikes > MAX_STRIKES:
            await self.close(code=TOO_MANY_BAD_FRAMES)
        else:
            await self._error(text)

    async def _error(self, text: str) -> None:
        await self._send_json({"type": "error", "message": text})

    async def _send(self, text: str) -> None:
        await self.send(text_data=text)

    async def _send_json(self, message: dict[str, Any]) -> None:
        await self._send(orjson.dumps(message).decode())


def _parsed(text: str | None) -> dict[str, Any]:
    if text is None:
        raise BadFrame("This socket takes text frames only.")
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadFrame("This is not JSON.") from None
    if not isinstance(message, dict):
        raise BadFrame("A message is a JSON object with an action.")
    return message


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value] if isinstance(value, str) and value else []
    return [item for item in values if isinstance(item, str)]


def _specs() -> list[BackendSpec]:
    return [queries.spec_of(row) for row in queries.all_backends()]


def _stop_if_alone(arena: Arena, losses: int) -> None:
    """Stop the run of a page that stayed away; where it came and was lost again, that loss has a timer of its own."""
    if not arena.followers and arena.losses == losses:
        arena.stop()
