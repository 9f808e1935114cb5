"""Read a request's body: bounded in size and time, and as slowly as a fault wants it."""

import asyncio
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from webapp.simulator.faults import find_fault
from webapp.simulator.request import BadRequest

BODY_LIMIT = 1024 * 1024
BODY_S = 30
SLOW_BYTES = 4096  # taken at a time by the fault that reads slowly,
SLOW_S = 0.25  # and the pause after each: 16 kB/s
Sleep = Callable[[float], Awaitable[None]]
_SUFFIX = re.compile(rb'"model"\s*:\s*"[^"+]*\+([^"]{1,40})"')


async def read_body(request: web.Request, fault_header: str, sleep: Sleep = asyncio.sleep) -> bytes:
    """Return the body. Unlike `request.read`, keep no copy: a request may wait long, and its prompt be long.

    Raises BadRequest where it is too long, too slow, or not what its headers say.
    """
    try:
        async with asyncio.timeout(BODY_S) as limit:
            return await _read(request, fault_header, limit, sleep)
    except TimeoutError:
        raise BadRequest(f"The body did not come within {BODY_S} s.", code="request_timeout", status=408) from None
    except web.RequestPayloadError:
        raise BadRequest("The body is not what its headers say: compression or framing is broken.") from None


async def _read(request: web.Request, fault_header: str, limit: asyncio.Timeout, sleep: Sleep) -> bytes:
    parts: list[bytes] = []
    size, slow = 0, False
    while part := await (request.content.read(SLOW_BYTES) if slow else request.content.readany()):
        size += len(part)
        if size > BODY_LIMIT:
            message = f"The body is longer than {BODY_LIMIT} bytes."
            raise BadRequest(message, code="request_too_large", status=413)
        if not parts and _reads_slowly(part, fault_header):
            slow = True
            limit.reschedule(None)
        parts.append(part)
        if slow:
            await sleep(SLOW_S)
    return b"".join(parts)


def _reads_slowly(first: bytes, fault_header: str) -> bool:
    """Return whether such a fault is asked for, by header or in what has come of the body so far."""
    suffix = _SUFFIX.search(first)
    fault = find_fault(suffix[1].decode("utf-8", "replace") if suffix else fault_header)
    return fault is not None and fault.reads_slowly
