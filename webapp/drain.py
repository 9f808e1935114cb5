"""The end of the process, announced: who wants to know that it began, and who must finish before it is over.

The server (daphne through `webapp.server`, or another one through its lifespan) calls `begin` and `flush`; everybody
else only looks and registers. Standard library only, so that any layer may import it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

C = TypeVar("C")

logger = logging.getLogger(__name__)

_draining = False
_told: dict[object, Callable[[], None]] = {}
_flushed: dict[object, Callable[[], Awaitable[None]]] = {}


def draining() -> bool:
    """Return True from the first stop signal on. Long streams should then end themselves, saying why."""
    return _draining


def on_drain(callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` once, on the event loop, when draining begins (at once if it has begun).

    Returns a function that forgets the callback; connections call it when they close.
    """
    if _draining:
        callback()
        return lambda: None
    return _register(_told, callback)


def on_flush(callback: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Await `callback()` after the last application has ended and before the process exits.

    Meant for the writer. It has about 1.75 s. Returns a function that forgets the callback.
    """
    return _register(_flushed, callback)


async def wait() -> None:
    """Return when draining begins. Belongs to no particular event loop."""
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    forget = on_drain(lambda: None if begun.done() else begun.set_result(None))
    try:
        await begun
    finally:
        forget()


def begin() -> None:
    """Announce the end. For the server alone; a second call does nothing."""
    global _draining
    if _draining:
        return
    _draining = True
    callbacks = list(_told.values())
    _told.clear()
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("A drain callback failed; the others are still told.")


async def flush() -> None:
    """Await every flush callback, all at the same time. A failure is logged and stops no other."""
    callbacks = list(_flushed.values())
    results = await asyncio.gather(*(callback() for callback in callbacks), return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            logger.error("A flush callback failed; what it held may be lost.", exc_info=result)


def reset() -> None:
    """Forget everything. For tests, and for a server that runs more than once in one process."""
    global _draining
    _draining = False
    _told.clear()
    _flushed.clear()


def _register(registry: dict[object, C], callback: C) -> Callable[[], None]:
    key = object()
    registry[key] = callback

    def forget() -> None:
        registry.pop(key, None)

    return forget
