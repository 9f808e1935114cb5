"""A client's connection, below the routes: what is no request gets an error of OpenAI's shape too, and what never
becomes one is not held for ever. Nothing of what a client sent stands in such an answer: it may be a key.
"""

import asyncio
from typing import Any

from aiohttp import http_exceptions, web

from webapp.simulator.request import BadRequest
from webapp.simulator.server_errors import error_response

HEAD_S = 30.0  # from connecting to the end of the first request's headers
KEEP_S = 75.0  # from an answer to the end of the next request's headers
OURS = {"X-Simulated": "1", "Server": "splitsecond-simulator"}  # headers of every answer

# What aiohttp's parser finds wrong; the first that fits.
_FOUND: tuple[tuple[type[BaseException], str], ...] = (
    (http_exceptions.LineTooLong, "The request line or a header is longer than 8,190 bytes."),
    (http_exceptions.InvalidURLError, "The address in the request line cannot be read."),
    (http_exceptions.BadHttpMethod, "The request line does not begin with a method of HTTP."),
    (http_exceptions.BadStatusLine, "The request line is not one of HTTP."),
)
_OTHER = "The request is not HTTP: its headers contradict each other, or it is not framed as they say."


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_no_head",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._no_head = asyncio.get_running_loop().call_later(HEAD_S, self._close_without_head)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._no_head.cancel()
        super().connection_lost(exc)

    def _close_without_head(self) -> None:
        if not self._request_count:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refuses, and what fails outside the handlers. Raises ConnectionError where an answer
        is on its way already.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way: too late for another one")
        if status >= 500:
            self.log_exception("a request failed", exc_info=exc)
            problem = BadRequest("The simulator failed; please report it.", code="internal_error", status=status)
        else:
            found = next((text for kind, text in _FOUND if isinstance(exc, kind)), _OTHER)
            problem = BadRequest(found, code="invalid_http", status=status)
        response = error_response(problem, OURS)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer. The one to an unknown `Expect` is made before any handler or middleware is asked."""
        if isinstance(resp, web.HTTPExpectationFailed):
            problem = BadRequest("The only Expect that is understood is 100-continue.", code="expectation", status=417)
            resp = error_response(problem)
        return await super().finish_response(request, resp, start_time)


class Connections(web.Server):
    """Makes a Connection of each."""

    def __call__(self) -> Connection:
        no_log: Any = None  # aiohttp takes it, though its types do not
        return Connection(self, loop=asyncio.get_running_loop(), access_log=no_log, keepalive_timeout=KEEP_S)


class Runner(web.AppRunner):
    """Serves an application through such connections; a client that leaves stops its stream at once."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return Connections(made.request_handler, request_factory=made.request_factory, handler_cancellation=True)
