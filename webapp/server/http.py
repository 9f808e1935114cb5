"""HTTP/1.1: daphne's request on Twisted's channel, with limits before anything is stored and plain error answers."""

import asyncio
import io
import json
from http import HTTPStatus
from typing import Any

from daphne.http_protocol import HTTPFactory, WebRequest
from twisted.web import http

from webapp import drain
from webapp.server.flow import Gate

SHUTTING_DOWN = "The server is shutting down; try again in a moment."

# A refused client is mostly still sending. Closing at once would reset the connection and take our answer with it.
_LINGER_S = 2.0
_LENGTH_LINE_BYTES = 64


class Channel(http.HTTPChannel):
    """One HTTP connection: requests one after the other.

    A refused request is answered and the connection half closed; what still arrives is thrown away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.refused = False
        self._linger: Any = None

    def connectionMade(self) -> None:
        limits = self.factory.server.limits
        self.maxHeaders = limits.header_lines
        self.totalHeadersSize = self.MAX_LENGTH = limits.header_bytes
        self.body_bytes = limits.body_bytes
        super().connectionMade()
        # Twisted makes the channel the transport's producer; the channel passes pause and resume on to the gate.
        self.registerProducer(self.gate, True)

    def connectionLost(self, reason: Any) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self.gate.stopProducing()
        super().connectionLost(reason)

    def writeSequence(self, iovec: Any) -> None:
        self.transport.write(b"".join(iovec))

    # Time: a request must have arrived as a whole within the time-out, however slowly it trickles.

    def resetTimeout(self) -> None:
        """Do nothing: Twisted would grant more time for each byte."""

    def request_began(self) -> None:
        self.setTimeout(self.timeOut)

    def timeoutConnection(self) -> None:
        if self.requests:
            self.refuse(408, "The request did not arrive in time.")
        else:
            self.loseConnection()

    # Size

    def allHeadersReceived(self) -> None:
        if drain.draining():
            self.refuse(503, SHUTTING_DOWN)
        elif self.length is not None and self.length > self.body_bytes:
            self.refuse_body()
        else:
            super().allHeadersReceived()

    def headerReceived(self, line: bytes) -> bool:
        if line[:15].lower() == b"content-length:" and len(line) > _LENGTH_LINE_BYTES:
            self._respondToBadRequestAndDisconnect()  # Python refuses to convert thousands of digits
            return False
        return bool(super().headerReceived(line))

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(431, "The request line or a header is too long.")

    def refuse_body(self) -> None:
        self.refuse(413, f"The request body is larger than the {self.body_bytes} bytes that this server accepts.")

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400, "The request is not valid HTTP.")

    def refuse(self, status: int, sentence: str) -> None:
        """Answer the request that is arriving with an error and take no more from this connection."""
        if self.refused:
            return
        self.refused = True
        self.setTimeout(None)
        body = error_body(status, sentence)
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._networkProducer.unregisterProducer()
        self.transport.write(head.encode() + body)
        self.transport.loseWriteConnection()
        self._linger = asyncio.get_running_loop().call_later(_LINGER_S, self.transport.abortConnection)

    def lineReceived(self, line: bytes) -> None:
        if not self.refused:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if not self.refused:
            super().allContentReceived()


class Request(WebRequest):
    """One HTTP request and its answer, or the upgrade to a WebSocket."""

    def __init__(self, channel: Channel, queued: object) -> None:
        # Twisted would parse forms into `args`, which nobody reads here.
        super().__init__(channel, queued, parsePOSTFormSubmission=False)
        self.gate = channel.gate
        channel.request_began()

    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()  # never a file: the channel refuses what does not fit

    def handleContentChunk(self, data: bytes) -> None:
        if self.channel.refused:
            return
        if self.content.tell() + len(data) > self.channel.body_bytes:
            self.channel.refuse_body()
        else:
            self.content.write(data)

    def process(self) -> Any:
        # Daphne would take the root path from this header, whoever sends it.
        self.requestHeaders.removeHeader(b"daphne-root-path")
        return super().process()

    def push(self, body: bytes) -> bool:
        """Send a later piece of a streamed answer at once; False, and nothing sent, where that is not possible now."""
        if not self.chunked or self.gate.closed or self.finished or self.channel is None:
            return False
        self.sentLength += len(body)
        self.channel.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def handle_reply(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and self.method == b"HEAD":
            message = {**message, "body": b""}
        super().handle_reply(message)

    def application_ended(self, exception: BaseException | None) -> None:
        """End the answer of an application that is gone, so that the client does not wait for the rest for ever."""
        if self.finished or self.channel is None:
            return
        if self._response_started:
            self.channel.loseConnection()  # without the last chunk, so that it looks as cut as it is
        elif drain.draining():
            self.basic_error(503, b"Service Unavailable", SHUTTING_DOWN)
        else:
            self.basic_error(500, b"Internal Server Error", "The server failed to answer; its log says why.")

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        content = error_body(status, body)
        headers = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(content)).encode())]
        self.handle_reply({"type": "http.response.start", "status": status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": content})


class Factory(HTTPFactory):
    """Builds our channels. HTTP/2 would need TLS, which is the proxy's work, so the channel stands alone."""

    protocol = Channel

    def buildProtocol(self, addr: Any) -> Any:
        channel = super().buildProtocol(addr)
        channel.requestFactory = Request
        return channel

    def log(self, request: Any) -> None:
        """Format no access line: Twisted would for each request, for a log that nobody reads."""


def error_body(status: int, sentence: str) -> bytes:
    """Return an error in the shape that OpenAI clients read and people can."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": sentence, "type": kind, "code": status}}).encode() + b"\n"
