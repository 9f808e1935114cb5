"""Server-sent events, bytes in and bytes out.

The rules are those of the WHATWG HTML standard, section "Server-sent events" (event stream interpretation), with two
differences. `data` stays bytes, so that JSON inside it is decoded once, by the JSON parser; and lines end at CR, LF or
CRLF only, never at U+2028, U+2029 or U+0085, at which str.splitlines would cut a token in two. `id` and `retry` steer a
browser's reconnection, which a measured request never does, so they are read and dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from webapp.core.errors import StreamError

_BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 1 << 20


class SSEEvent(NamedTuple):
    """One dispatched event: its name ("" where the stream named none) and its data lines joined by LF."""

    name: str
    data: bytes


class SSEDecoder:
    """Turn the bytes of an event stream into events, whatever the sizes in which they arrive.

    A line over `max_line_bytes` raises StreamError("too_large"): memory stays bounded whatever a server sends.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._name = ""
        self._data: list[bytes] = []
        self._at_start = True
        self._skip_lf = False  # the last read ended in CR: an LF that opens the next belongs to it
        self.comments = 0

    def feed(self, data: bytes) -> Iterator[SSEEvent]:
        """Yield the events that `data` completes, in order; often none, sometimes several.

        An iterator, so that events ahead of an over-long line in the same read are out before it raises.
        """
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 0x0A:
                data = data[1:]
        if self._at_start:
            data = bytes(self._rest) + data
            self._rest.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._rest += data
                return
            data = data.removeprefix(_BOM)
            self._at_start = False
        if self._is_one_event(data):
            yield SSEEvent("", data[6:-2])
            return
        for line in self._split(data):
            if line:
                self._take(line)
            elif self._data:
                event = SSEEvent(self._name, b"\n".join(self._data))
                self._data = []
                self._name = ""
                yield event
            else:
                self._name = ""
        if len(self._rest) > self._max_line_bytes:
            raise self._too_large()

    def whole_events(self, data: bytes) -> bytes:
        """Return the events that `data` completes as the bytes they came in, b"" where that is not simple to say.

        Nothing is taken: `feed` follows as if this had not been called, or `skip` where the events have been read.
        """
        if self._at_start or self._skip_lf or self._data or self._name:
            return b""
        if not self._rest and data.endswith(b"\n\n"):
            return data
        end = data.rfind(b"\n\n") + 2
        return bytes(self._rest) + data[:end] if end > 1 else b""

    def skip(self, data: bytes) -> None:
        """Take `data` whose `whole_events` have been read elsewhere; what follows them is kept for the next read."""
        if self._rest or not data.endswith(b"\n\n"):
            self._rest = bytearray(data[data.rfind(b"\n\n") + 2 :])

    def _is_one_event(self, data: bytes) -> bool:
        """Return whether this read is one event of one line of data and nothing else, as most reads are."""
        return (
            data.startswith(b"data: ")
            and data.find(b"\n") == len(data) - 2
            and data.endswith(b"\n")
            and b"\r" not in data
            and len(data) <= self._max_line_bytes
            and not (self._rest or self._data or self._name)
        )

    def _split(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes and keep the unfinished rest."""
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._rest += data  # grows in place: a line that comes byte by byte is not copied again for each byte
            return []
        lines = (bytes(self._rest) + head if self._rest else head).split(b"\n")
        self._rest = bytearray(tail)
        return lines

    def _take(self, line: bytes) -> None:
        if len(line) > self._max_line_bytes:
            raise self._too_large()
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif not field:
            self.comments += 1

    def _too_large(self) -> StreamError:
        return StreamError(
            "too_large",
            f"The backend sent one line of over {self._max_line_bytes // 1024} KiB; the answer was stopped there.",
            permanent=True,
        )


def encode_event(data: bytes, name: str = "") -> bytes:
    """Return the event as bytes that every SSE decoder reads back as the same `data` and `name`.

    Raises ValueError for what the format cannot carry: CR in `data`, a line end in `name`.
    """
    if b"\r" in data or "\r" in name or "\n" in name:
        raise ValueError("an event cannot carry CR in its data or a line end in its name")
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"
