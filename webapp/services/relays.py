"""The machine wire's part: one request of an OpenAI client, measured like a lane and passed through.

The backend's events are forwarded as they came, several of one read together; what a client did not ask for (the
usage) is left out, and whatever goes wrong after the first byte is said inside the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack
from typing import Any

import orjson

from webapp import drain
from webapp.core import openai
from webapp.core.errors import Outcome, StreamError
from webapp.core.openai import Chunk
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.core.sse import encode_event
from webapp.push import Push
from webapp.services import store
from webapp.services.looplag import loop_lag
from webapp.services.runs import Ask, Run, entries_for
from webapp.services.turns import LiveTurn, run_turn
from webapp.services.upstreams import upstreams

log = logging.getLogger(__name__)

DONE_EVENT = encode_event(openai.DONE)
# Two seconds of the fastest backend there is. A client that is further behind makes the backend wait: what it does not
# read would otherwise be kept for it here, without a limit.
MOST_UNSENT_BYTES = 1 << 20
SLOW_CLIENT = "the client read too slowly and made the backend wait: the times hold its pauses"


class Relay:
    """One request on its way. `open` it, then take its bytes from `stream` or its whole answer from `complete`.

    Cancelling whoever awaits either closes the upstream connection at once and stores what had arrived.
    """

    def __init__(
        self, spec: BackendSpec, source: str, prompt: PromptSpec, *, include_usage: bool, keep: bool = True
    ) -> None:
        self.turn = LiveTurn(spec, prompt)
        self._include_usage = include_usage
        self._chunks: list[Chunk] = []
        self.turn.meter.chunks = self._chunks
        self._taken_bytes = 0  # of what the backend sent
        self._push: Push | None = None
        self._refused = b""
        self._changed = asyncio.Event()
        self._room: asyncio.Event | None = None  # only while the backend is made to wait
        self._streaming = False
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._run = Run(Ask(prompt=_last_user_text(prompt)), entries_for([(spec, source)]), "api", keep)
        self._forget_drain = drain.on_drain(self._interrupt)
        self._watching = ExitStack()

    async def open(self) -> StreamError | None:
        """Send the request; return None once the backend has accepted it, else the error that ended it.

        The relay is closed at the latest when the calling task ends: a client that leaves before the first byte of
        `stream` was asked for would otherwise leave nobody to close it.
        """
        if drain.draining():
            return _interrupted()
        store.begin(self._run)
        if (caller := asyncio.current_task()) is not None:
            caller.add_done_callback(self._abandon)
        self._watching.enter_context(loop_lag.watching())
        work = run_turn(self.turn, upstreams.client(self.turn.spec), self._arrived)
        self._task = asyncio.get_running_loop().create_task(work, name="relay")
        self._task.add_done_callback(lambda _: self._changed.set())
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            await self.close()
            raise
        if self._task.done() and not self.turn.meter.deltas and self.turn.error is not None:
            await self.close()
            return self.turn.error
        return None

    async def stream(self, push: Push | None = None) -> AsyncIterator[bytes]:
        """Yield the answer as server-sent events, each read's at once, ending with [DONE] whatever happened.

        What can be pushed is not yielded: the read that brought it has sent it on already.
        """
        assert self._task is not None
        self._streaming = True
        try:
            while True:
                self._changed.clear()
                finished = self._task.done()
                data = self._unsent()
                if self._room is not None:
                    self._room.set()
                if data:
                    yield data
                if finished:
                    break
                if not self._changed.is_set():
                    self._push = push
                    await self._changed.wait()
                    self._push = None
            yield self._ending()
        finally:
            self._push = None
            await self.close()

    async def complete(self) -> dict[str, Any]:
        """Return the whole answer in the shape of a chat completion; raise StreamError where it failed."""
        assert self._task is not None
        try:
            await asyncio.wait([self._task])
        finally:
            await self.close()
        if self.turn.error is not None:
            raise self.turn.error
        if self.turn.outcome is not Outcome.DONE:
            raise _interrupted()
        return openai.assemble(self._chunks)

    async def close(self) -> None:
        """Leave nothing running and store the turn. A second call does nothing."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._forget_drain()
        task.cancel()
        for result in await asyncio.gather(task, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("a request failed through a defect of ours", exc_info=result)
        self._watching.close()
        self._run.lanes[0].hold([self.turn], self.turn.marks.intended or 0)
        self.turn.note_lag(loop_lag)
        store.finish(self._run)

    def _abandon(self, _: asyncio.Task[None]) -> None:
        if self._task is not None:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    def _arrived(self) -> Awaitable[object] | None:
        if self._push is not None:
            data = self._unsent()
            if not data or self._push(data):
                return None
            self._push, self._refused = None, data
        self._changed.set()
        if not self._streaming or self.turn.meter.received_bytes - self._taken_bytes <= MOST_UNSENT_BYTES:
            return None
        if SLOW_CLIENT not in self.turn.notes:
            self.turn.notes.append(SLOW_CLIENT)
        self._room = asyncio.Event()
        return self._room.wait()

    def _unsent(self) -> bytes:
        """Return what has arrived since the last call, as it is passed on."""
        wanted = [chunk.wire or encode_event(self._body(chunk)) for chunk in self._chunks if self._wanted(chunk)]
        data, self._refused = b"".join([self._refused, *wanted]), b""
        self._chunks.clear()
        self._taken_bytes = self.turn.meter.received_bytes
        return data

    def _wanted(self, chunk: Chunk) -> bool:
        if chunk.done:
            return False  # sent by `_ending`, after a possible error
        return self._include_usage or chunk.usage is None or chunk.has_choices

    def _body(self, chunk: Chunk) -> bytes:
        """Return an event's data, without the counts that some servers put beside the text of who did not ask."""
        if chunk.usage is None or self._include_usage:
            return chunk.data
        try:
            body = orjson.loads(chunk.data)
        except orjson.JSONDecodeError:  # broken UTF-8, which the meter has read all the same
            return chunk.data
        body.pop("usage", None)
        return orjson.dumps(body)

    def _ending(self) -> bytes:
        error = self.turn.error
        if error is None and self.turn.outcome is not Outcome.DONE:
            error = _interrupted()
        if error is None:
            return DONE_EVENT
        return encode_event(orjson.dumps(error_body(error))) + DONE_EVENT

    def _interrupt(self) -> None:
        self.turn.if_cancelled = Outcome.INTERRUPTED
        if self._task is not None:
            self._task.cancel()


def error_body(error: StreamError) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    return {"error": {"message": error.message, "type": "upstream_error", "param": None, "code": error.kind}}


def _interrupted() -> StreamError:
    return StreamError("interrupted", "The server is shutting down and had to end this answer; ask again shortly.")


def _last_user_text(prompt: PromptSpec) -> str:
    for message in reversed(prompt.messages):
        if message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) else orjson.dumps(content).decode()
    return ""
