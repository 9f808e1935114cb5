"""The simulator's HTTP face: OpenAI's API over aiohttp.

The measured bytes do not pass through aiohttp's writer, which wants a task switch for each: once the
headers are out, the driver writes to the transport itself.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import orjson
from aiohttp import HttpVersion11, web

from webapp.simulator.answers import AnswerBook
from webapp.simulator.driver import Driver, api_ns, front_end
from webapp.simulator.emission import Answering, Collection, Stream
from webapp.simulator.engine import Engine
from webapp.simulator.faults import Ending, Fault, Framing
from webapp.simulator.metrics import Metrics, compact, prometheus
from webapp.simulator.openapi import description
from webapp.simulator.pacing import LEAD_NS, Pacer, wall_s
from webapp.simulator.profile import Profile
from webapp.simulator.reply import Reply
from webapp.simulator.request import Asked, BadRequest, parse_chat, parse_text
from webapp.simulator.server_body import read_body
from webapp.simulator.server_connection import OURS, Runner
from webapp.simulator.server_errors import BEGUN, errors, refusal
from webapp.simulator.server_sink import TransportSink, flood, heartbeat, keep_talking, turn_deaf
from webapp.simulator.wire import answer_id, fault_names, model_entry

GOODBYE_S = 0.1  # what open streams get when the server is told to end

PACER = web.AppKey("pacer", Pacer)
DRIVERS = web.AppKey("drivers", dict[str, Driver])
Parse = Callable[[bytes, Mapping[str, Profile], str], Asked]
SSE = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server refuses rather than queues; None: nothing."""

    waiting: int | None = None  # requests in one model's queue; one more is a 429
    open: int | None = None  # requests of all models; one more is a 503


NO_LIMITS = Limits()


class Simulator:
    """The handlers and what they share."""

    def __init__(self, profiles: Mapping[str, Profile], book: AnswerBook, limits: Limits) -> None:
        self._engines = {slug: Engine(profile.serving) for slug, profile in profiles.items()}
        self._profiles = profiles
        self._book = book
        self._limits = limits
        self._open = 0
        self._description = orjson.dumps(description(list(profiles)))
        # Written once: every comparison asks for it to open its connections, and other streams wait meanwhile.
        entries = [model_entry(profile) for profile in profiles.values()]
        self._models = orjson.dumps({"object": "list", "data": entries, "faults": fault_names()})

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """Give every engine its clock for as long as the server runs."""
        pacer = app[PACER] = Pacer(asyncio.get_running_loop(), most_lead_ns=LEAD_NS)
        app[DRIVERS] = {
            slug: Driver(engine, pacer, Metrics(), profile.serving.max_sequences, front_end(profile))
            for (slug, engine), profile in zip(self._engines.items(), self._profiles.values(), strict=True)
        }
        yield
        pacer.close()

    async def health(self, request: web.Request) -> web.Response:
        return _json({"status": "ok", "profiles": list(self._profiles), "streams": self._open})

    async def models(self, request: web.Request) -> web.Response:
        return web.Response(body=self._models, content_type="application/json")

    async def model(self, request: web.Request) -> web.Response:
        slug = request.match_info["slug"]
        if slug not in self._profiles:
            raise BadRequest(f"The model '{slug[:80]}' does not exist.", "model", "model_not_found", 404)
        return _json(model_entry(self._profiles[slug]))

    async def openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self._description, content_type="application/json")

    async def metrics(self, request: web.Request) -> web.Response:
        drivers = request.app[DRIVERS]
        text = prometheus(drivers, request.app[PACER].now_ns())
        kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=text.encode(), headers=kind)

    async def metrics_json(self, request: web.Request) -> web.Response:
        drivers = request.app[DRIVERS]
        return _json(compact(drivers, request.app[PACER].now_ns()))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, parse_chat)

    async def text(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, parse_text)

    async def _complete(self, request: web.Request, parse: Parse) -> web.StreamResponse:
        arrived_ns = request.app[PACER].now_ns()
        fault = request.headers.get("X-Fault", "")
        asked = parse(await read_body(request, fault), self._profiles, fault)
        driver = request.app[DRIVERS][asked.profile.slug]
        if asked.fault.refuses:
            return refusal(asked.fault)
        self._check_room(driver)
        self._open += 1
        try:
            if asked.fault.hangs:
                await asyncio.Event().wait()
            answering = self._answering(asked, arrived_ns)
            del asked  # and the question in it: many may wait
            if answering.asked.stream:
                return await _stream(request, answering, driver)
            return await _whole(request, answering, driver)
        finally:
            self._open -= 1

    def _check_room(self, driver: Driver) -> None:
        most, open_most = self._limits.waiting, self._limits.open
        if open_most is not None and self._open >= open_most:
            raise BadRequest("The server is at its limit of open requests.", code="overloaded", status=503)
        if most is not None and driver.queue_with_one_more() > most:
            raise BadRequest("Too many requests wait for this model.", code="rate_limit_exceeded", status=429)

    def _answering(self, asked: Asked, arrived_ns: int) -> Answering:
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        return Answering(
            asked=replace(asked, question=""),  # it has found its answer
            reply=Reply(asked, self._book),
            arrived_ns=arrived_ns,
            api_ns=api_ns(asked.profile, seed) + asked.fault.first_token_delay_ms * 1_000_000,
            identity=answer_id(asked.shape, secrets.token_hex(12)),
            created=int(wall_s()),
        )


Listening = TypeVar("Listening", Stream, Collection)


async def _answer(answering: Answering, driver: Driver, listen: Callable[[Callable[[], None]], Listening]) -> Listening:
    """Let the engine answer whom `listen` makes, given what to call at the end; when cancelled, free what was held."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # an Event would take 0.7 kB more
    listener = listen(lambda: None if over.done() else over.set_result(None))
    due_ns = answering.arrived_ns + answering.api_ns
    ask_id = driver.submit(due_ns, answering.asked.prompt_tokens, answering.tokens, listener)
    try:
        await over
    except asyncio.CancelledError:  # the client has left
        driver.metrics.count("abort")
        raise
    finally:
        listener.close()
        driver.cancel(ask_id)
    if listener.times is not None:
        reply = answering.reply
        driver.metrics.answered(listener.timing(), reply.finish_reason, reply.tokens)
    return listener


async def _stream(request: web.Request, answering: Answering, driver: Driver) -> web.StreamResponse:
    fault, transport = answering.asked.fault, request.transport
    if transport is None:  # left in the meantime
        return web.Response()
    if fault.interim:
        transport.write(fault.interim)
    response = web.StreamResponse(headers={**SSE, **dict(fault.headers)})
    chunked = request.version >= HttpVersion11
    if fault.framing == Framing.HTTP10:
        chunked = False
        response.force_close()
        transport.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\nX-Simulated: 1\r\n\r\n")
    else:
        if chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
    request[BEGUN] = True
    sink = TransportSink(transport, chunked, fault.framing == Framing.EXTENSIONS)
    if fault.opening:
        sink.write(fault.opening)
    if fault.ending == Ending.DEAF:
        turn_deaf(transport)
    later = request.app[PACER].call
    await _answer(answering, driver, lambda done: Stream(answering, sink, later, done))
    await _after(fault, sink)
    if response.prepared and not transport.is_closing():
        await response.write_eof()
    elif not response.prepared:
        transport.close()
    return response


async def _after(fault: Fault, sink: TransportSink) -> None:
    """Do what a fault does once its stream has ended."""
    match fault.ending:
        case Ending.SILENCE | Ending.LINGER:
            await asyncio.Event().wait()
        case Ending.HEARTBEAT:
            await heartbeat(sink)
        case Ending.DEAF:
            await keep_talking(sink)
        case Ending.FLOOD:
            await flood(sink)
        case Ending.RESET:
            sink.reset()
        case Ending.CUT:
            sink.cut()


async def _whole(request: web.Request, answering: Answering, driver: Driver) -> web.Response:
    collection = await _answer(answering, driver, lambda done: Collection(answering, done))
    match answering.asked.fault.ending:
        case Ending.SILENCE | Ending.HEARTBEAT | Ending.FLOOD:
            await asyncio.Event().wait()
        case Ending.RESET if request.transport is not None:
            TransportSink(request.transport, chunked=False).reset()
        case Ending.CUT if request.transport is not None:
            request.transport.close()
        case Ending.EARLY | Ending.ERROR | Ending.ERROR_EVENT | Ending.GARBAGE:
            raise BadRequest("The engine died while it was answering.", status=500)
    return web.Response(body=collection.body(), content_type="application/json")


def _json(body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(OURS)
    if not response.headers.get("Content-Type", "-"):  # the fault that says nothing of its type
        del response.headers["Content-Type"]


def build_app(profiles: Mapping[str, Profile], book: AnswerBook, limits: Limits) -> web.Application:
    """Return the application."""
    simulator = Simulator(profiles, book, limits)
    app = web.Application(middlewares=[errors])
    app.on_response_prepare.append(_mark)
    app.cleanup_ctx.append(simulator.run)
    for path, handler in (
        ("/healthz", simulator.health),
        ("/health", simulator.health),  # vLLM's name, which load generators ask before they begin
        ("/metrics", simulator.metrics),
        ("/metrics.json", simulator.metrics_json),
        ("/openapi.json", simulator.openapi),
        ("/v1/models", simulator.models),
        ("/v1/models/{slug}", simulator.model),
    ):
        app.router.add_get(path, handler)
    app.router.add_post("/v1/chat/completions", simulator.chat)
    app.router.add_post("/v1/completions", simulator.text)
    return app


def build_runner(profiles: Mapping[str, Profile], book: AnswerBook, limits: Limits = NO_LIMITS) -> web.AppRunner:
    """Return the application ready to be served; a client that leaves stops its stream at once."""
    return Runner(build_app(profiles, book, limits), shutdown_timeout=GOODBYE_S)
