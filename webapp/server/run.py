"""The server itself: daphne's `Server` with its applications watched one by one, and `serve`, which runs it."""

import asyncio
import errno
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import daphne.server
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.logger import globalLogBeginner

from webapp import push
from webapp.server import http, websocket
from webapp.server.flow import Inbox
from webapp.server.limits import DEFAULT_LIMITS, DEFAULT_STOP_TIMES, ServerLimits, StopTimes
from webapp.server.stop import stop_cleanly
from webapp.server.transport import Port

logger = logging.getLogger(__name__)

_TICK_S = 1.0
_BODY_PART_BYTES = 64 * 1024


class CannotListen(Exception):
    """The address cannot be listened on. The message is one sentence that says what to do."""


class Server(daphne.server.Server):
    """Serves one ASGI application on one address until it is told to stop.

    `connections` maps each open protocol (a request or a WebSocket) to a dict with `application_instance` (the task,
    while it runs), `disconnected` (True once the client is gone) and `killer` (the timer that follows from both).
    """

    def __init__(
        self,
        application: Any,
        host: str,
        port: int,
        *,
        limits: ServerLimits = DEFAULT_LIMITS,
        stop_times: StopTimes = DEFAULT_STOP_TIMES,
    ) -> None:
        super().__init__(
            application,
            endpoints=[f"tcp:{port}:interface={host}"],
            signal_handlers=False,
            request_buffer_size=_BODY_PART_BYTES,
            websocket_timeout=-1,
            websocket_connect_timeout=limits.handshake_s,
            websocket_handshake_timeout=limits.handshake_s,
            ping_interval=limits.ping_interval_s,
            ping_timeout=limits.ping_timeout_s,
            application_close_timeout=limits.application_close_s,
            server_name="",
        )
        self.host, self.port = host, port
        self.limits, self.stop_times = limits, stop_times
        self.connections: dict[Any, dict[str, Any]] = {}
        self.loop = daphne.server.twisted_loop
        self._signals: set[int] = set()
        self._stopping: asyncio.Task[None] | None = None

    # Life

    def run(self, ready: Callable[[str, int], None] | None = None) -> None:
        """Listen, call `ready(host, port)` with the real port, and serve until a stop signal has been obeyed.

        A Twisted reactor runs once in a process, so this does too. Raises CannotListen.
        """
        globalLogBeginner.beginLoggingTo([report_failure], redirectStandardIO=False, discardBuffer=True)
        asyncio.set_event_loop(self.loop)
        self.ws_factory = websocket.Factory(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,  # origins are the application's business
            openHandshakeTimeout=self.websocket_handshake_timeout,
            maxMessagePayloadSize=self.limits.message_bytes,
            maxFramePayloadSize=self.limits.message_bytes,
            failByDrop=False,  # say why in a close frame
        )
        factory = http.Factory(self)
        factory.timeOut = self.limits.arrival_s
        self.http_factory = factory
        self.listener = Port(self.port, factory, self.limits, self.host, reactor)
        try:
            self.listener.startListening()
        except CannotListenError as error:
            raise refused_address(self.host, self.port, error.socketError) from error
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.obey, number)
        self.loop.call_later(_TICK_S, self.timeout_checker)
        if ready is not None:
            real_port = self.listener.getHost().port
            self.loop.call_soon(ready, self.host, real_port)
        reactor.run(installSignalHandlers=False)

    def obey(self, number: int) -> None:
        """Begin a clean end at the first stop signal; leave at once when the same signal comes again.

        The same, because Ctrl-C reaches a process twice over when its supervisor passes it on as SIGTERM.
        """
        if number in self._signals:
            os._exit(128 + number)
        self._signals.add(number)
        if self._stopping is None:
            force_exit_after(self.stop_times.forced_s)
            self._stopping = self.loop.create_task(self._stop())

    async def _stop(self) -> None:
        try:
            await stop_cleanly(self.connections, self.listener, self.stop_times)
        except Exception:
            logger.exception("The clean end failed half-way.")
        finally:
            reactor.stop()

    def timeout_checker(self) -> None:
        self.loop.call_later(_TICK_S, self.timeout_checker)
        for protocol in list(self.connections):
            protocol.check_timeouts()

    # Connections and their applications

    def protocol_disconnected(self, protocol: Any) -> None:
        details = self.connections.get(protocol)
        if details is None or "disconnected" in details:
            return
        if "application_instance" not in details:
            del self.connections[protocol]
            return
        details["disconnected"] = True
        details["killer"] = self.loop.call_later(self.application_close_timeout, self._kill, protocol)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Inbox | None:
        """Start the application for a connection and return its inbox, or None if the client has already gone."""
        details = self.connections.get(protocol)
        if details is None:
            return None
        inbox = Inbox(self.limits.inbox_messages, self.limits.inbox_bytes)
        scope.setdefault("asgi", {"version": "3.0"})
        if isinstance(protocol, http.Request):
            scope["extensions"] = {push.EXTENSION: protocol.push}

        async def send(message: dict[str, Any]) -> None:
            await self.handle_reply(protocol, message)

        task = asyncio.ensure_future(self.application(scope, inbox.get, send), loop=self.loop)
        details["application_instance"] = task
        task.add_done_callback(lambda task: self._application_done(protocol, task))
        return inbox

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Pass a message on to the client, then wait until the connection wants more.

        To a client that has gone nothing is sent and nothing is raised: the application learns it from `receive`.
        """
        details = self.connections.get(protocol)
        if details is None or "disconnected" in details:
            await asyncio.sleep(0)  # an application that only ever sends must not keep the loop
        elif message["type"] in ("websocket.send", "http.response.body"):
            protocol.handle_reply(message)
            await protocol.gate.passed()
        else:
            await super().handle_reply(protocol, message)

    def _application_done(self, protocol: Any, task: asyncio.Task[None]) -> None:
        details = self.connections[protocol]
        exception = None if task.cancelled() else task.exception()
        if exception is not None:
            logger.error("Exception inside application: %s", exception, exc_info=exception)
        del details["application_instance"]
        if "disconnected" in details:
            details["killer"].cancel()
            del self.connections[protocol]
        else:
            protocol.application_ended(exception)

    def _kill(self, protocol: Any) -> None:
        task = self.connections[protocol]["application_instance"]
        logger.warning(
            "An application went on for %g s after its client had left and was cancelled: %r",
            self.application_close_timeout,
            protocol,
        )
        task.cancel()


def serve(
    application: Any,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    ready: Callable[[str, int], None] | None = None,
    limits: ServerLimits = DEFAULT_LIMITS,
    stop_times: StopTimes = DEFAULT_STOP_TIMES,
) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT, then end cleanly and return. Once per process.

    `ready(host, port)` is called on the event loop when connections are accepted; port 0 lets the system choose.
    Raises CannotListen. Prints nothing.
    """
    raise_open_file_limit()
    server = Server(application, host, port, limits=limits, stop_times=stop_times)
    server.run(ready)


def refused_address(host: str, port: int, error: OSError) -> CannotListen:
    """Return the exception, with its sentence, for an address that could not be bound."""
    if error.errno == errno.EADDRINUSE:
        return CannotListen(f"Port {port} is in use; stop the other program or choose another with --port.")
    if error.errno == errno.EACCES:
        return CannotListen(f"Port {port} needs more rights than this program has; choose one above 1023 with --port.")
    return CannotListen(f"Cannot listen on {host}:{port} ({error.strerror or error}); choose another with --host.")


def raise_open_file_limit(wanted: int = 65536) -> None:
    """Allow more open files where the system lets us: a live stream holds two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError):
            logger.info("The limit of %d open files could not be raised.", soft)


def force_exit_after(seconds: float) -> None:
    """Leave the process after `seconds` even if the event loop or a worker thread hangs."""

    def leave() -> None:
        time.sleep(seconds)
        logger.error("The clean end took longer than %g s; leaving without it.", seconds)
        os._exit(1)

    threading.Thread(target=leave, name="force-exit", daemon=True).start()


def report_failure(event: dict[str, Any]) -> None:
    """Log what went wrong inside Twisted or autobahn; everything else they say is of no use here."""
    failure = event.get("log_failure")
    if failure is not None:
        logger.error(
            "Unhandled error in a connection", exc_info=(failure.type, failure.value, failure.getTracebackObject())
        )
