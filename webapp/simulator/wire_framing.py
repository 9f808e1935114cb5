"""From events to the segments that a socket gets: plainly, or as one of the faults wants it. Pure.

A framing returns a list of byte strings, each of them a write (and a chunk of the HTTP body) of its own.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from itertools import cycle

from webapp.simulator.faults import Framing

Frame = Callable[[Sequence[bytes]], Sequence[bytes]]

GATHERED = 16
# The ends of a line and of the blank line after it. A CR before an LF would be a single end.
_PAIRS = (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\r\n\r", b"\n\r", b"\r\r\n")
# Brotli (RFC 7932): a window of 64 kB and an empty metadata block, which fill a byte; a last block that is empty.
_BROTLI_HEAD, _BROTLI_TAIL = b"\x0c", b"\x03"
_BROTLI_BLOCK = 1 << 16  # the most bytes whose number fits into four nibbles


def plain(events: Sequence[bytes]) -> Sequence[bytes]:
    """All events in one write."""
    return (b"".join(events),)


def framing_of(name: Framing) -> Frame:
    """Return a framing; it may hold something back, and belongs to one stream."""
    match name:
        case Framing.NO_SPACE:
            return lambda events: (b"".join(events).replace(b"data: ", b"data:"),)
        case Framing.CR:
            return lambda events: (b"".join(events).replace(b"\n", b"\r"),)
        case Framing.CRLF:
            return lambda events: (b"".join(events).replace(b"\n", b"\r\n"),)
        case Framing.MIXED:
            return _mixed
        case Framing.GATHERED:
            return _gathered()
        case Framing.BYTES:
            return lambda events: [bytes((byte,)) for byte in b"".join(events)]
        case Framing.CRLF_BYTES:
            return lambda events: [bytes((byte,)) for byte in b"".join(events).replace(b"\n", b"\r\n")]
        case Framing.GZIP:
            return _compressed(wbits=31)  # with a gzip header
        case Framing.DEFLATE:
            return _compressed(wbits=15)
        case Framing.GZIP_MEMBERS:
            return lambda events: (gzip.compress(b"".join(events)),)
        case Framing.BROTLI:
            return _brotli()
    return plain


def _mixed(events: Sequence[bytes]) -> Sequence[bytes]:
    """End each event's line and its blank line in another way."""
    ends = cycle(_PAIRS)
    return (b"".join(event[:-2] + next(ends) if event.count(b"\n") == 2 else event for event in events),)


def _gathered() -> Frame:
    held: list[bytes] = []

    def frame(events: Sequence[bytes]) -> Sequence[bytes]:
        held.extend(events)
        if len(held) < GATHERED and not _last(held):
            return ()
        joined = b"".join(held)
        held.clear()
        return (joined,)

    return frame


def _compressed(wbits: int) -> Frame:
    packer = zlib.compressobj(wbits=wbits)  # flushed with each write, or the first token would wait for the last

    def frame(events: Sequence[bytes]) -> Sequence[bytes]:
        data = packer.compress(b"".join(events)) + packer.flush(zlib.Z_SYNC_FLUSH)
        return (data + packer.flush(),) if _last(events) else (data,)

    return frame


def _brotli() -> Frame:
    """Wrap the bytes in uncompressed meta-blocks: valid brotli, whose every write can be decoded by itself."""
    head = _BROTLI_HEAD

    def frame(events: Sequence[bytes]) -> Sequence[bytes]:
        nonlocal head
        data = b"".join(events)
        starts = range(0, len(data), _BROTLI_BLOCK)
        blocks = b"".join(_stored(data[start : start + _BROTLI_BLOCK]) for start in starts)
        framed, head = head + blocks, b""
        return (framed + _BROTLI_TAIL,) if _last(events) else (framed,)

    return frame


def _stored(data: bytes) -> bytes:
    """Return `data` as a meta-block: not the last, four nibbles of length, not compressed (RFC 7932, 9.2)."""
    return ((len(data) - 1) << 3 | 1 << 19).to_bytes(3, "little") + data


def _last(events: Sequence[bytes]) -> bool:
    return events[-1].startswith(b"data: [DONE]")
