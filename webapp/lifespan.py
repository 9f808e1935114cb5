"""What a serving process does when it starts and when it ends, under our daphne and under any other ASGI server."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

from webapp import drain
from webapp.core.errors import Outcome
from webapp.origins import Receive, Scope, Send
from webapp.services import load, store
from webapp.services.arenas import arenas
from webapp.services.database import in_thread
from webapp.services.upstreams import upstreams
from webapp.services.writer import writer

log = logging.getLogger(__name__)

# How long a thread may hold the interpreter while the event loop waits for it. Python's own 5 ms would show in the
# arrival times of a fast lane while a row is being written.
SWITCH_S = 0.0005
FLUSH_S = 1.5


def start() -> None:
    """Prepare this process: end what dead processes left running, and be told when the end comes."""
    sys.setswitchinterval(SWITCH_S)
    # What was loaded stays for good: a full collection would look at it again, for 50 ms in which nothing is stamped.
    gc.collect()
    gc.freeze()
    store.end_orphans()
    load.end_orphans()
    drain.on_drain(_interrupt)
    drain.on_flush(_finish)


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI lifespan protocol, for servers that speak it (uvicorn); our daphne calls `start` itself."""
    while True:
        message: dict[str, Any] = await receive()
        if message["type"] == "lifespan.startup":
            await in_thread(start)
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            drain.begin()
            await drain.flush()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _interrupt() -> None:
    for arena in arenas:
        if arena.running and arena.run is not None:
            arena.run.stop(Outcome.INTERRUPTED)


async def _finish() -> None:
    for arena in arenas:
        if arena.run is not None:
            await arena.run.wait()
    await upstreams.close()
    if not await writer.flushed(FLUSH_S):
        log.error("%d rows could not be saved before the end: the database did not take them.", writer.backlog + 1)
