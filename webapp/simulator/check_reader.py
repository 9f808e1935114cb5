"""The client of the pace's check: it asks once on a connection of its own, and only reads."""

import asyncio
import re
from dataclasses import dataclass

import orjson

from webapp.simulator.pacing import monotonic_ns
from webapp.simulator.text import estimate_tokens

PROMPT = "Measure the pace."
PROMPT_TOKENS = estimate_tokens(len(PROMPT))
READ_S = 30.0  # for the streams of one row; a pace shows in what has come by then
_SIM = re.compile(rb'"due_us":(\d+),"sent_ns":(\d+)')
_ARRIVED = re.compile(rb'"arrived_ns":(\d+)')


class NotMeasured(Exception):
    """Why nothing is known of a pace: one sentence that begins with the model's name."""


@dataclass(slots=True)
class Trace:
    """The tokens of one stream: when each was due, when it was written, and when it came, ns."""

    due_ns: list[int]
    sent_ns: list[int]
    came_ns: list[int]


class Reader(asyncio.Protocol):
    """One request and its answer, read as the socket delivers it. `done` ends with [DONE], or raises NotMeasured."""

    def __init__(self, model: str, tokens: int, prompt: str = PROMPT) -> None:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "max_tokens": tokens,
            "ignore_eos": True,
            "seed": 1,
        }
        text = orjson.dumps(body)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: check\r\nContent-Length: %d\r\n\r\n" % len(text)
        self._request = head + text
        self._model = model
        self._rest = b""
        self._accepted = False
        self._arrived_ns = 0
        self.trace = Trace([], [], [])
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        came_ns = monotonic_ns()
        data = self._rest + data
        if not self._accepted and not self._is_accepted(data):
            self._rest = data
            return
        cut = data.rfind(b"\n\n") + 2
        events, self._rest = data[:cut], data[cut:]
        if not self._arrived_ns and (found := _ARRIVED.search(events)):
            self._arrived_ns = int(found[1])
        for due_us, sent_ns in _SIM.findall(events):
            self.trace.due_ns.append(self._arrived_ns + int(due_us) * 1000)
            self.trace.sent_ns.append(int(sent_ns))
            self.trace.came_ns.append(came_ns)
        if b"[DONE]" in events and not self.done.done():
            self.done.set_result(None)

    def _is_accepted(self, data: bytes) -> bool:
        """Return whether a stream follows; where something else does, say so: it has no [DONE] to wait for."""
        head, ended, body = data.partition(b"\r\n\r\n")
        status = head[9:12].decode("ascii", "replace")
        self._accepted = bool(ended) and status == "200"
        if ended and not self._accepted:
            self._fail(f"the simulator answered {status}{_reason(body)}")
        return self._accepted

    def connection_lost(self, problem: Exception | None) -> None:
        self._fail("the simulator ended the stream early")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(NotMeasured(f"{self._model}: {why}"))


def _reason(body: bytes) -> str:
    """Return what an error says, as the end of a sentence; nothing where it has not come whole."""
    try:
        return f": {orjson.loads(body)['error']['message']}"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


async def read(port: int, model: str, streams: int, tokens: int, most_s: float = READ_S) -> list[Trace]:
    """Return what so many streams at once gave until they ended, or within `most_s`.

    Raises NotMeasured where one was refused or broke, or gave less than a pace shows in.
    """
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Reader(model, tokens), "127.0.0.1", port) for _ in range(streams)]
    await asyncio.wait([reader.done for _, reader in opened], timeout=most_s)
    problems = [reader.done.exception() for _, reader in opened if reader.done.done()]
    for transport, reader in opened:
        reader.done.cancel()
        transport.abort()
    if broken := next(filter(None, problems), None):
        raise broken
    traces = [reader.trace for _, reader in opened]
    for trace in traces:
        if len(set(trace.due_ns)) < 2 or len(set(trace.came_ns)) < 2:
            raise NotMeasured(f"{model}: no pace shows in what came within {most_s:g} s ({len(trace.came_ns)} chunks)")
    return traces
