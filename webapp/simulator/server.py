"""The simulator's HTTP face: OpenAI's chat API over aiohttp.

The measured bytes do not pass through aiohttp's writer, which wants a task switch for each: once the
headers are out, the pacer writes to the transport itself.
"""

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import islice
from socket import SO_LINGER, SOL_SOCKET

import orjson
from aiohttp import HttpVersion11, web

from webapp.simulator.answers import AnswerBook
from webapp.simulator.emission import Answering, Collection, Emission
from webapp.simulator.faults import Ending, Fault
from webapp.simulator.machine import plan
from webapp.simulator.pacing import Pacer, wall_s
from webapp.simulator.profile import Profile
from webapp.simulator.reply import Reply, chunks
from webapp.simulator.request import BadRequest, ChatRequest, parse_chat
from webapp.simulator.wire import error_body, fault_names, model_entry

BODY_LIMIT = 1024 * 1024
FULL_BYTES = 64 * 1024  # unsent bytes at which a client counts as not reading
GOODBYE_S = 0.1  # what open streams get when the server is told to end

PACER = web.AppKey("pacer", Pacer)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TransportSink:
    """Writes to the socket of a response whose headers are out."""

    def __init__(self, transport: asyncio.Transport, chunked: bool) -> None:
        self._transport = transport
        self._chunked = chunked

    @property
    def full(self) -> bool:
        return self._transport.get_write_buffer_size() > FULL_BYTES

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class Simulator:
    """The handlers and what they share."""

    def __init__(self, profiles: Mapping[str, Profile], book: AnswerBook) -> None:
        self._profiles = profiles
        self._book = book

    async def health(self, request: web.Request) -> web.Response:
        body = {"status": "ok", "profiles": list(self._profiles), "streams": request.app[PACER].active}
        return _json(body)

    async def models(self, request: web.Request) -> web.Response:
        entries = [model_entry(profile) for profile in self._profiles.values()]
        return _json({"object": "list", "data": entries, "faults": fault_names()})

    async def model(self, request: web.Request) -> web.Response:
        slug = request.match_info["slug"]
        if slug not in self._profiles:
            raise BadRequest(f"The model '{slug[:80]}' does not exist.", "model", "model_not_found", 404)
        return _json(model_entry(self._profiles[slug]))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        pacer = request.app[PACER]
        arrived_ns = pacer.now_ns()
        asked = parse_chat(await request.read(), self._profiles, request.headers.get("X-Fault", ""))
        if asked.fault.status != 200:
            return _refusal(asked.fault)
        answering = self._answer(asked, arrived_ns)
        if asked.stream:
            return await _stream(request, answering, pacer)
        return await _whole(request, answering, pacer)

    def _answer(self, asked: ChatRequest, arrived_ns: int) -> Answering:
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        timetable = plan(asked.profile, asked.prompt_tokens, seed)
        delay_ns = asked.fault.first_token_delay_ms * 1_000_000
        timetable = replace(timetable, queue_ns=timetable.queue_ns + delay_ns)
        reply = Reply(asked, self._book)
        tokens = islice(reply, asked.fault.after_tokens)
        return Answering(
            request=asked,
            plan=timetable,
            reply=reply,
            chunks=chunks(tokens, timetable, asked.profile.chunk_tokens),
            arrived_ns=arrived_ns,
            answer_id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(wall_s()),
        )


async def _stream(request: web.Request, answering: Answering, pacer: Pacer) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
    )
    chunked = request.version >= HttpVersion11
    if chunked:
        response.enable_chunked_encoding()
    await response.prepare(request)
    transport = request.transport
    if transport is None:  # left in the meantime
        return response
    emission = Emission(answering, TransportSink(transport, chunked))
    await pacer.run(emission.first_ns, emission.fire)
    if not transport.is_closing():
        await response.write_eof()
    return response


async def _whole(request: web.Request, answering: Answering, pacer: Pacer) -> web.Response:
    collection = Collection(answering)
    await pacer.run(collection.first_ns, collection.fire)
    match answering.request.fault.ending:
        case Ending.SILENCE:
            await asyncio.Event().wait()
        case Ending.RESET if request.transport is not None:
            TransportSink(request.transport, chunked=False).reset()
        case Ending.EARLY | Ending.ERROR | Ending.GARBAGE:
            raise BadRequest("The engine died while it was answering.", status=500)
    return web.Response(body=collection.body(), content_type="application/json")


def _refusal(fault: Fault) -> web.Response:
    match fault.status:
        case 429:
            problem = BadRequest("Too many requests: retry after 2 s.", code="rate_limited", status=429)
            return _error(problem, {"Retry-After": "2"})
        case 401:
            return _error(BadRequest("The API key is not valid.", code="invalid_api_key", status=401))
    page = "<html><body><h1>Internal Server Error</h1><p>upstream unavailable</p></body></html>\n"
    return web.Response(status=fault.status, text=page, content_type="text/html")


def _json(body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _error(problem: BadRequest, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=error_body(problem),
        status=problem.status,
        headers=headers,
        content_type="application/json",
    )


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer everything that goes wrong in OpenAI's shape."""
    try:
        return await handler(request)
    except BadRequest as problem:
        return _error(problem)
    except web.HTTPRequestEntityTooLarge:
        message = f"The body is longer than {BODY_LIMIT} bytes."
        return _error(BadRequest(message, code="request_too_large", status=413))
    except web.HTTPNotFound:
        message = f"There is nothing at {request.path[:80]}. Try /v1/models or /v1/chat/completions."
        return _error(BadRequest(message, code="not_found", status=404))
    except web.HTTPMethodNotAllowed as problem:
        message = f"{request.path[:80]} does not take {request.method}."
        refusal = BadRequest(message, code="method_not_allowed", status=405)
        return _error(refusal, {"Allow": ", ".join(sorted(problem.allowed_methods))})


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Simulated"] = "1"


async def _pacing(app: web.Application) -> AsyncIterator[None]:
    app[PACER] = Pacer(asyncio.get_running_loop())
    yield
    app[PACER].close()


def build_app(profiles: Mapping[str, Profile], book: AnswerBook) -> web.Application:
    """Return the application."""
    simulator = Simulator(profiles, book)
    app = web.Application(middlewares=[_errors], client_max_size=BODY_LIMIT)
    app.on_response_prepare.append(_mark)
    app.cleanup_ctx.append(_pacing)
    app.router.add_get("/healthz", simulator.health)
    app.router.add_get("/v1/models", simulator.models)
    app.router.add_get("/v1/models/{slug}", simulator.model)
    app.router.add_post("/v1/chat/completions", simulator.chat)
    return app


def build_runner(profiles: Mapping[str, Profile], book: AnswerBook) -> web.AppRunner:
    """Return the application ready to be served; a client that leaves stops its stream at once."""
    return web.AppRunner(
        build_app(profiles, book), handler_cancellation=True, access_log=None, shutdown_timeout=GOODBYE_S
    )
