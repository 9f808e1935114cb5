"""Clients made of plain sockets, so that a test decides when something is read and when not."""

import asyncio
import json
import os
import socket
import struct
from typing import Any


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    """Return a connected blocking socket; a small receive buffer makes a reader that stalls soon."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)  # only ends what hangs
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


def request_bytes(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode()


def upgrade_bytes(path: str) -> bytes:
    return request_bytes(
        path,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )


def open_websocket(port: int, path: str, receive_buffer: int | None = None) -> socket.socket:
    """Return a socket on which the opening handshake has been done and nothing after it was read."""
    sock = connect(port, receive_buffer)
    sock.sendall(upgrade_bytes(path))
    head = read_head(sock)
    assert head.startswith(b"HTTP/1.1 101"), head
    return sock


def read_head(sock: socket.socket) -> bytes:
    """Read up to the blank line, byte by byte so that nothing behind it is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            break
        head += byte
    return head


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def frame(payload: bytes, opcode: int = 1, final: bool = True) -> bytes:
    """Return a masked frame (RFC 6455 5.2) as a client sends it, with a mask of zeros."""
    size = len(payload)
    first = (0x80 if final else 0) | opcode
    if size < 126:
        header = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        header = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        header = struct.pack("!BBQ", first, 0x80 | 127, size)
    return header + bytes(4) + payload


def read_frame(sock: socket.socket) -> tuple[int, bytes]:
    """Return opcode and payload of the next frame from the server."""
    first, size = read_exactly(sock, 2)
    if size == 126:
        (size,) = struct.unpack("!H", read_exactly(sock, 2))
    elif size == 127:
        (size,) = struct.unpack("!Q", read_exactly(sock, 8))
    return first & 0x0F, read_exactly(sock, size)


def read_close_code(sock: socket.socket) -> int:
    """Skip frames up to the close frame and return its code."""
    while True:
        opcode, payload = read_frame(sock)
        if opcode == 8:
            return int(struct.unpack("!H", payload[:2])[0])


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError(f"closed after {len(data)} of {size} bytes")
        data += part
    return data


def reset(sock: socket.socket) -> None:
    """Close with a TCP reset instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def send_until_blocked(sock: socket.socket, data: bytes) -> int:
    """Send `data` until the server stops taking it; return how many bytes went out."""
    sock.settimeout(0.3)
    sent, view = 0, memoryview(data)
    try:
        while sent < len(view):
            sent += sock.send(view[sent : sent + 65536])
    except TimeoutError:
        pass
    sock.settimeout(60)
    return sent


def body_of(answer: bytes) -> bytes:
    """Return a response's body, chunked or not."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return body
    parts, at = [], 0
    while at < len(body):
        end = body.index(b"\r\n", at)
        length = int(body[at:end], 16)
        parts.append(body[end + 2 : end + 2 + length])
        at = end + 2 + length + 2
    return b"".join(parts)


def get(port: int, path: str) -> Any:
    """Return a JSON answer."""
    with connect(port) as sock:
        sock.sendall(request_bytes(path, "Connection: close"))
        return json.loads(body_of(read_all(sock)))


async def aget(port: int, path: str) -> bytes:
    """Return an answer's body, read as it comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes(path, "Connection: close"))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return body_of(answer)


def here(name: str) -> str:
    """Return a stream name of this test process's own."""
    return f"{name}-{os.urandom(4).hex()}"
