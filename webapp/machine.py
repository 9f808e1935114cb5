"""The machine wire: the OpenAI Chat Completions API in front of all backends, on the page's own measuring path.

Plain ASGI, beside Django and not in it: Django holds a thread for every open stream and wraps every piece of it three
times, which is a third of what a forwarded token costs. Cookies mean nothing here, so there is no CSRF to forge; a web
page of another origin is refused by its Origin header, and cannot send JSON without asking first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import orjson
from django.conf import settings
from django.utils import timezone

from webapp import push, queries
from webapp.core.errors import StreamError
from webapp.middleware import HEADERS
from webapp.models import Backend
from webapp.origins import App, Receive, Scope, Send, is_allowed_host, is_own_origin
from webapp.services.database import in_thread
from webapp.services.relays import Relay
from webapp.views import api
from webapp.views.api import Answer, BadRequest

PREFIX = "/v1/"
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class MachineWire:
    """Serves `/v1/`; everything else goes to the application it wraps."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            body = await _body(scope, receive)
        except BadRequest as refused:
            await _send_answer(send, refused.answer())
            return
        if body is not None:
            await _until_gone(_respond(scope, body, send), receive)


async def _respond(scope: Scope, body: bytes, send: Send) -> None:
    try:
        answer = await _answer(scope, body, send)
    except BadRequest as refused:
        answer = refused.answer()
    except StreamError as failed:
        answer = api.failure(failed)
    if answer is not None:
        await _send_answer(send, answer)


async def _answer(scope: Scope, body: bytes, send: Send) -> Answer | None:
    """Return the answer to a request, None where it was streamed."""
    headers = _headers(scope)
    _check_caller(scope, headers)
    route = (scope["method"], scope["path"].rstrip("/"))
    if route == ("GET", "/v1/models"):
        return api.models(await in_thread(queries.all_backends))
    if route == ("POST", "/v1/chat/completions"):
        asked = api.chat_request(headers.get("content-type", ""), body)
        return await _chat(asked, scope, send, keep=headers.get("x-splitsecond-keep") != "0")
    if scope["path"].rstrip("/") in ("/v1/models", "/v1/chat/completions"):
        raise BadRequest(f"{scope['method']} is not allowed here.", status=405)
    raise BadRequest("There is no such path; there are /v1/models and /v1/chat/completions.", status=404)


async def _chat(body: dict[str, object], scope: Scope, send: Send, keep: bool) -> Answer | None:
    backend = await _backend(str(body["model"]))
    options = body.get("stream_options")
    wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    relay = Relay(queries.spec_of(backend), backend.source, api.prompt_of(body), include_usage=wants_usage, keep=keep)
    if (error := await relay.open()) is not None:
        raise error
    headers = {"X-Splitsecond-Turn": relay.turn.id}
    if not body.get("stream"):
        answer = await relay.complete()
        answer.setdefault("created", int(timezone.now().timestamp()))
        return Answer(200, answer, headers)
    await _send_start(send, 200, {**STREAM_HEADERS, **headers})
    async for data in relay.stream(push.of(scope)):
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
    return None


async def _backend(slug: str) -> Backend:
    found = None if "\0" in slug else await in_thread(queries.backend, slug)  # PostgreSQL cannot even look for NUL
    if found is None:
        raise api.unknown_model(slug)
    return found


def _check_caller(scope: Scope, headers: Mapping[str, str]) -> None:
    host = headers.get("host", "")
    if not is_allowed_host(host):
        raise BadRequest("This host name is not served here; see ALLOWED_HOSTS.", status=400)
    if not is_own_origin(headers.get("origin", ""), host, scope.get("scheme", "http")):
        raise BadRequest("Requests from another web page are refused.", status=403)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """Return the request's body, None where the client left before it was whole. Raises BadRequest over the limit."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise BadRequest("The body is too large.", status=413)
        if not message.get("more_body"):
            return bytes(body)


async def _until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Await `work`, and cancel it at once when the client goes away first."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, gone):
            task.cancel()
        results = await asyncio.gather(working, gone, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_answer(send: Send, answer: Answer) -> None:
    data = orjson.dumps(answer.body)
    headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **answer.headers}
    await _send_start(send, answer.status, headers)
    await send({"type": "http.response.body", "body": data})


async def _send_start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in {**HEADERS, **headers}.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
