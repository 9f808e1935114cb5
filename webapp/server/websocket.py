"""WebSocket: daphne's protocol on autobahn, with a cheaper way out, a bounded way in, and close codes that arrive."""

import logging
import struct
from typing import Any

from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol

from webapp.server.flow import Gate, Inbox

logger = logging.getLogger(__name__)

# RFC 6455 7.4.1 and the IANA registry: what an endpoint may put into a close frame.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_POLICY_VIOLATION = 1008
_NO_CODE = 1005


class WebSocket(WebSocketProtocol):
    """One WebSocket connection."""

    application_queue: Inbox | None = None

    def connectionMade(self) -> None:
        self.gate = Gate(on_resume=self._pay_owed_pong)
        self._owed_pong: bytes | None = None
        self._held = False
        self._message_frames = 0
        super().connectionMade()

    def onOpen(self) -> None:
        # Until here the HTTP channel was the transport's producer; it has no further part in this connection.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.gate, True)
        super().onOpen()

    def onClose(self, wasClean: bool, code: int | None, reason: Any) -> None:
        self.gate.stopProducing()
        super().onClose(wasClean, code or _NO_CODE, reason)

    # Out

    def handle_reply(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if self.state == self.STATE_CONNECTING or kind not in ("websocket.send", "websocket.close"):
            super().handle_reply(message)
        elif self.state != self.STATE_OPEN:
            return
        elif kind == "websocket.send":
            text = message.get("text")
            payload = message.get("bytes") or b"" if text is None else text.encode()
            self.transport.write(frame_header(2 if text is None else 1, len(payload)) + payload)
        else:
            self.close_with(message.get("code") or 1000, message.get("reason") or "")

    def close_with(self, code: int, reason: str = "") -> None:
        """Send a close frame with any code that the registry knows; autobahn's own call refuses most of them."""
        if code not in _CLOSE_CODES and not 3000 <= code <= 4999:
            raise ValueError(f"{code} may not be sent in a close frame.")
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode()[:123])

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        if self.failedByMe and self.state == self.STATE_OPEN:
            why = (reasonUtf8 or b"").decode(errors="replace")
            logger.warning("WebSocket of %s closed with %s: %s", self.client_addr, code, why)
        super().sendCloseFrame(code=code, reasonUtf8=reasonUtf8, isReply=isReply)

    def leave(self, code: int) -> None:
        """Close from our side and tell the application at once, without waiting for the client's answer."""
        if self.state == self.STATE_OPEN:
            self.close_with(code)
            if self.application_queue is not None:
                self.application_queue.put_nowait({"type": "websocket.disconnect", "code": code})
            self.muted = True
        elif self.state == self.STATE_CONNECTING and hasattr(self, "handshake_deferred"):
            self.serverReject()

    def application_ended(self, exception: BaseException | None) -> None:
        """Close a socket whose application is gone; nobody would ever read from it again."""
        if hasattr(self, "handshake_deferred"):
            self.handle_exception(exception)
        elif self.state == self.STATE_OPEN:
            self.close_with(1000 if exception is None else 1011)

    # In

    def consumeData(self) -> None:
        """Handle received frames one by one, and leave the rest where it is while the application is behind."""
        if self.state not in (self.STATE_OPEN, self.STATE_CLOSING):
            if not hasattr(self, "handshake_deferred"):  # else the application is still deciding
                super().consumeData()
            return
        while not self._held and self.processData() and self.state != self.STATE_CLOSED:
            pass

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.state == self.STATE_CONNECTING and len(self.data) > self.factory.server_class.limits.message_bytes:
            self.dropConnection(abort=True)  # floods before it was even let in

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self._message_frames += 1
        if self._message_frames > self.factory.server_class.limits.message_frames and not self.failedByMe:
            self._fail_connection(_POLICY_VIOLATION, "too many frames in one message")

    def onMessageEnd(self) -> None:
        self._message_frames = 0
        super().onMessageEnd()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        super().onMessage(payload, isBinary)
        inbox = self.application_queue
        if inbox is not None and inbox.crowded and not self._held:
            self._held = True
            inbox.on_room = self._release
            self.transport.pauseProducing()

    def _release(self) -> None:
        self._held = False
        if self.state != self.STATE_CLOSED:
            self.consumeData()
        if not self._held:
            self.transport.resumeProducing()

    # Ping and pong

    def onPing(self, payload: bytes) -> None:
        # RFC 6455 5.5.3 lets us answer only the latest of several pings, so that pongs cannot pile up unread.
        if self.gate.closed:
            self._owed_pong = payload
        else:
            super().onPing(payload)

    def _pay_owed_pong(self) -> None:
        payload, self._owed_pong = self._owed_pong, None
        if payload is not None:
            self.sendPong(payload)

    def onAutoPingTimeout(self) -> None:
        # Silence proves nothing while data waits before our ping (there the limit on stalled readers decides), nor
        # while we do not read ourselves.
        self.autoPingTimeoutCall = None
        if not self.transport.waiting and not self._held:
            super().onAutoPingTimeout()


class Factory(WebSocketFactory):
    """Builds our WebSockets."""

    protocol = WebSocket


def frame_header(opcode: int, payload_bytes: int) -> bytes:
    """Return the header of a final, unmasked frame (RFC 6455 5.2)."""
    if payload_bytes < 126:
        return bytes((0x80 | opcode, payload_bytes))
    if payload_bytes < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, payload_bytes)
    return struct.pack("!BBQ", 0x80 | opcode, 127, payload_bytes)
