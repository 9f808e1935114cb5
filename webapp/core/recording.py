"""A recorded answer as data: what to send and when, so that it can be played again with its true timing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from webapp.core.sse import encode_event

VERSION = 1
FIELD_OF_KIND = {"content": "content", "reasoning": "reasoning"}


@dataclass(frozen=True, slots=True)
class Recording:
    """One finished answer. `pieces` are `(ns after the request was sent, kind, text)`; counts are the server's own."""

    model: str
    headers_ns: int
    pieces: tuple[tuple[int, str, str], ...]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str = "stop"

    def to_json(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return orjson.dumps({"splitsecond_recording": VERSION, **fields})

    def schedule(self) -> Iterator[tuple[int, bytes]]:
        """Yield `(due, bytes)`: due in ns after the request was sent, bytes of an event stream in OpenAI's shape."""
        last_ns = self.headers_ns
        for due_ns, kind, text in self.pieces:
            last_ns = max(last_ns, due_ns)
            yield last_ns, self._event({FIELD_OF_KIND.get(kind, "content"): text}, None)
        yield last_ns, self._event({}, self.finish_reason)
        if self.completion_tokens is not None:
            usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
            yield last_ns, encode_event(orjson.dumps({"choices": [], "usage": usage}))
        yield last_ns, encode_event(b"[DONE]")

    def _event(self, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        body = {"object": "chat.completion.chunk", "model": self.model, "choices": [choice]}
        return encode_event(orjson.dumps(body))


def from_json(data: bytes) -> Recording:
    """Return the recording in `data`; raise ValueError, in one sentence, where it is none or not well formed."""
    try:
        body: Any = orjson.loads(data)
        if not isinstance(body, dict) or body.get("splitsecond_recording") != VERSION:
            raise ValueError("This file is not a recording of this version.")
        pieces = tuple((int(at), str(kind), str(text)) for at, kind, text in body["pieces"])
        if any(later[0] < earlier[0] for earlier, later in pairwise(pieces)):
            raise ValueError("The recording's times run backwards.")
        return Recording(
            model=str(body["model"]),
            headers_ns=int(body["headers_ns"]),
            pieces=pieces,
            prompt_tokens=body.get("prompt_tokens"),
            completion_tokens=body.get("completion_tokens"),
            finish_reason=str(body.get("finish_reason") or "stop"),
        )
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError("The recording is not well formed.") from error
