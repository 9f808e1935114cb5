"""What the server answers when it does not: OpenAI's error objects, and the refusals that faults ask for."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from webapp.simulator.faults import Body, Fault
from webapp.simulator.request import BadRequest
from webapp.simulator.wire import error_body

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_AFTER_S = 1
BEGUN = web.RequestKey("begun", bool)  # set on a request whose answer is on its way: too late for another one
PAGE = "<html><body><h1>{status}</h1><p>upstream unavailable</p></body></html>\n"


def refusal(fault: Fault) -> web.Response:
    """Return what a fault answers instead of generating."""
    headers = dict(fault.headers)
    match fault.body:
        case Body.OPENAI:
            problem = BadRequest(fault.message, code=f"fault_{fault.name}", status=fault.status)
            return error_response(problem, headers)
        case Body.HTML:
            text = PAGE.format(status=fault.status)
            return web.Response(status=fault.status, text=text, content_type="text/html", headers=headers)
    return web.Response(status=fault.status, headers=headers)


def error_response(problem: BadRequest, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error in OpenAI's shape."""
    return web.Response(
        body=error_body(problem),
        status=problem.status,
        headers=headers,
        content_type="application/json",
    )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer everything that goes wrong in OpenAI's shape."""
    try:
        return await handler(request)
    except BadRequest as problem:
        busy = problem.status in (429, 503)
        return error_response(problem, {"Retry-After": str(RETRY_AFTER_S)} if busy else None)
    except web.HTTPNotFound:
        message = f"There is nothing at {request.path[:80]}. Try /v1/models or /v1/chat/completions."
        return error_response(BadRequest(message, code="not_found", status=404))
    except web.HTTPMethodNotAllowed as problem:
        message = f"{request.path[:80]} does not take {request.method}."
        refusal = BadRequest(message, code="method_not_allowed", status=405)
        return error_response(refusal, {"Allow": ", ".join(sorted(problem.allowed_methods))})
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:
        if request.get(BEGUN):
            raise
        _log.exception("%s failed", request.path)
        return error_response(BadRequest("The simulator failed; please report it.", code="internal_error", status=500))
