"""Reading text events without parsing each: what a server repeats around its text is parsed once.

Most servers send thousands of events that differ in nothing but the text. An event with the same bytes before and after
the text, and between them nothing that JSON would escape, is that same JSON with another string in it: no guess, and
several times cheaper than parsing. Whatever else comes is left to the parser.
"""

from __future__ import annotations

import re

from webapp.core import openai
from webapp.core.openai import Chunk
from webapp.core.sse import SSEEvent

# Neither a quote nor a backslash nor a control character: the bytes of a JSON string as they are.
_NOT_PLAIN = re.compile(rb'["\\\x00-\x1f]')
_PROBE = "what stands here is the text"
# A server that varies something in every event (a count, a time, padding) has no stencil. It is given up on after this
# many that never matched.
_MOST_IN_VAIN = 8


class Stencil:
    """The bytes around the text in the events of one stream: `learn` them from one, read others with `pieces`.

    `kind` is "content" or "reasoning".
    """

    __slots__ = ("_head", "_in_vain", "_tail", "kind")

    def __init__(self) -> None:
        self.kind = ""
        self._head = self._tail = b""
        self._in_vain = 0

    def learn(self, chunk: Chunk) -> None:
        """Take the shape of an event that was parsed, where it holds text and nothing else."""
        if self._in_vain >= _MOST_IN_VAIN or not _holds_only_text(chunk):
            return
        self._in_vain += 1
        text = (chunk.content or chunk.reasoning).encode("utf-8", "surrogatepass")
        before, quoted, after = chunk.data.partition(b'"%b"' % text)
        if not quoted or quoted in after or _NOT_PLAIN.search(text) or b"\n" in chunk.data:
            return
        if not _is_the_text(before, after, chunk):
            return
        self.kind = "content" if chunk.content else "reasoning"
        self._head = b'data: %b"' % before
        self._tail = b'"%b\n\n' % after

    def pieces(self, events: bytes) -> list[bytes] | None:
        """Return the text of each of these whole events, as UTF-8; None where one of them is of another shape."""
        head, tail = self._head, self._tail
        if not (head and events.startswith(head) and events.endswith(tail)) or len(events) < len(head) + len(tail):
            return None
        text = events[len(head) : -len(tail)]
        if not _NOT_PLAIN.search(text):
            pieces = [text]
        else:
            pieces = text.split(tail + head)
            if _NOT_PLAIN.search(b"".join(pieces)):
                return None
        if not events.isascii():
            try:
                for piece in pieces:
                    piece.decode()
            except UnicodeDecodeError:
                return None
        self._in_vain = 0
        return pieces


def _holds_only_text(chunk: Chunk) -> bool:
    rest = chunk._replace(content="", reasoning="")
    return bool(chunk.content) != bool(chunk.reasoning) and rest == Chunk(chunk.data, has_choices=True)


def _is_the_text(before: bytes, after: bytes, chunk: Chunk) -> bool:
    """Return whether a string between `before` and `after` is read as the chunk's text, and as nothing else."""
    data = b'%b"%b"%b' % (before, _PROBE.encode(), after)
    try:
        found = openai.parse(SSEEvent("", data))
    except ValueError:
        return False
    content, reasoning = (_PROBE, "") if chunk.content else ("", _PROBE)
    return found == Chunk(data, content, reasoning, has_choices=True)
