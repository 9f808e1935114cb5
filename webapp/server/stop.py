"""A clean end, step by step: no new connections, a word in every stream, close frames, then the writer.

Each step waits as long as there is something to wait for, and no longer than `StopTimes` says.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from webapp import drain
from webapp.server.http import Request
from webapp.server.limits import StopTimes
from webapp.server.websocket import WebSocket

logger = logging.getLogger(__name__)

# RFC 6455's registry: Service Restart. Pages reconnect after it.
SERVICE_RESTART = 1012
_POLL_S = 0.01

Connections = dict[Any, dict[str, Any]]


async def stop_cleanly(connections: Connections, listener: Any, times: StopTimes) -> None:
    """End every connection and its application, then flush. Raises nothing for what does not end in time."""
    drain.begin()
    listener.stopListening()
    await until(lambda: not websockets(connections), times.websocket_grace_s)
    for websocket in websockets(connections):
        websocket.leave(SERVICE_RESTART)
    await until(lambda: not busy(connections), times.stream_grace_s)
    for request in running(connections):
        if isinstance(request, Request):
            request.send_disconnect()
    await until(lambda: not busy(connections), times.leave_s)
    await cancel_the_rest(connections, times.cancel_s)
    try:
        async with asyncio.timeout(times.flush_s):
            await drain.flush()
    except TimeoutError:
        logger.error("The writer did not finish within %g s; what it held may be lost.", times.flush_s)
    await asyncio.sleep(_POLL_S)  # let the last bytes reach the kernel


async def cancel_the_rest(connections: Connections, seconds: float) -> None:
    """Cancel the applications that did not take the hint, and give their `finally` blocks time to run."""
    tasks = list(running(connections).values())
    if not tasks:
        return
    logger.warning("%d applications did not end by themselves and were cancelled.", len(tasks))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=seconds)


def websockets(connections: Connections) -> list[WebSocket]:
    """Return the sockets that are not closed yet."""
    return [protocol for protocol in connections if isinstance(protocol, WebSocket)]


def running(connections: Connections) -> dict[Any, "asyncio.Task[None]"]:
    """Return the connections that still have an application, with its task."""
    found = {protocol: details.get("application_instance") for protocol, details in connections.items()}
    return {protocol: task for protocol, task in found.items() if task is not None}


def busy(connections: Connections) -> bool:
    """Return True while an application runs or a closing handshake is under way."""
    return bool(running(connections) or websockets(connections))


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when `condition()` holds, or after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 (a poll of a second at most, once in a process's life)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        return
