"""The socket's end of a stream, and what some faults do there."""

import asyncio
import struct
from socket import SO_LINGER, SOL_SOCKET

from webapp.simulator import faults_events as odd

FULL_BYTES = 64 * 1024  # unsent bytes at which a client counts as not reading
HEARTBEAT_S = 1.0
TALK_S = 0.05
FLOOD_BYTES = 100 * 1024 * 1024


class TransportSink:
    """Writes to the socket of a response whose headers are out."""

    __slots__ = ("_chunked", "_extension", "_transport")

    def __init__(self, transport: asyncio.Transport, chunked: bool, extensions: bool = False) -> None:
        self._transport = transport
        self._chunked = chunked
        self._extension = b";flavour=odd" if extensions else b""

    @property
    def full(self) -> bool:
        return self._transport.get_write_buffer_size() > FULL_BYTES

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if not data or self._transport.is_closing():
            return
        self._transport.write(b"%x%b\r\n%b\r\n" % (len(data), self._extension, data) if self._chunked else data)

    def reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def cut(self) -> None:
        """Close within the response: no last chunk."""
        self._transport.close()


async def heartbeat(sink: TransportSink) -> None:
    """Send a comment every second until the client leaves."""
    while not sink.closed:
        sink.write(odd.HEARTBEAT)
        await asyncio.sleep(HEARTBEAT_S)


async def flood(sink: TransportSink) -> None:
    """Send text as fast as it is read, more than anybody should take."""
    left = FLOOD_BYTES
    while left > 0 and not sink.closed:
        if sink.full:
            await asyncio.sleep(0.001)
        else:
            sink.write(odd.FLOOD)
            left -= len(odd.FLOOD)
            await asyncio.sleep(0)


class Deaf(asyncio.Protocol):
    """Stands before a connection's protocol and does not pass on that the client has said goodbye."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, problem: Exception | None) -> None:
        self._protocol.connection_lost(problem)

    def eof_received(self) -> bool:
        return True  # keeps the connection open to write


def turn_deaf(transport: asyncio.Transport) -> None:
    """Go on whatever the client says; only a connection that is gone ends it."""
    protocol = transport.get_protocol()
    assert isinstance(protocol, asyncio.Protocol)
    transport.set_protocol(Deaf(protocol))


async def keep_talking(sink: TransportSink) -> None:
    """Send an event every 50 ms until the connection is gone."""
    while not sink.closed:
        sink.write(odd.AFTER_DONE)
        await asyncio.sleep(TALK_S)
