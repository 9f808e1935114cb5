"""Bytes of the OpenAI streaming wire, built by hand: the product's own encoder is never its own judge."""

from __future__ import annotations

from typing import Any

import orjson

# One entry is one token; joined they are the answer of every scenario that does not say otherwise.
TOKENS = (
    "Light",
    " needs",
    " a",
    " nanosecond",
    " for",
    " a",
    " foot",
    ";",
    " this",
    " answer",
    " took",
    " longer",
    ".",
)
TEXT = "".join(TOKENS)
REASONING_TOKENS = ("How", " far", " does", " light", " go", "?")
REASONING = "".join(REASONING_TOKENS)
# Two-, three- and four-byte sequences, a combining mark, a joined emoji and right-to-left text.
UNICODE_TOKENS = ("Grüße", " 世界", " 🏁", " e\u0301", " 👩\u200d🚀", " שלום", " \u2028\u2029\u0085|")
UNICODE_TEXT = "".join(UNICODE_TOKENS)
PROMPT_TOKENS = 7
DONE = b"data: [DONE]\n\n"


def usage(completion_tokens: int) -> dict[str, int]:
    total = PROMPT_TOKENS + completion_tokens
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": completion_tokens, "total_tokens": total}


def chunk(delta: dict[str, Any] | None, *, finish: str | None = None, index: int = 0, **extra: Any) -> dict[str, Any]:
    """Return one `chat.completion.chunk`; `delta` None leaves `choices` empty, as the usage chunk does."""
    choices = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1767225600, "model": "scripted"}
    return {**head, "choices": choices, **extra}


def event(payload: Any, end: bytes = b"\n") -> bytes:
    """Return one event whose lines end in `end`. Bytes are taken as they are, anything else becomes JSON."""
    data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return b"data: " + data + end + end


def answer(text: str, completion_tokens: int) -> dict[str, Any]:
    """Return a whole `chat.completion`, as sent where no stream was asked for."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1767225600, "model": "scripted"}
    return {**head, "choices": [choice], "usage": usage(completion_tokens)}


def error(message: str, kind: str = "server_error", code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def head(status: str, headers: dict[str, str], version: str = "HTTP/1.1") -> bytes:
    lines = [f"{version} {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
