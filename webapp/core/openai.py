"""The OpenAI Chat Completions API as this program speaks it: the request body out, stream chunks in.

Servers differ in everything the specification leaves open; what was met is handled here and kept in tests as recorded
byte streams (tests/data). `Any` ends in this module: what leaves it is typed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from webapp.core.errors import StreamError
from webapp.core.spec import PromptSpec
from webapp.core.sse import SSEEvent

DONE = b"[DONE]"

# Names under which servers report their own clocks, and whose they are. Values are shown apart, never mixed with ours:
# vendors start and stop these clocks at different events. Groq's stand one level deeper, beside its token counts.
SERVER_TIMES = {"time_info": "Cerebras", "timings": "llama.cpp", "x_groq": "Groq", "metrics": "vLLM"}

REASONING_FIELDS = ("reasoning_content", "reasoning")  # as `_text_of` reads them, the first before the other


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the server billed them. `completion_tokens` includes reasoning; None where it did not say."""

    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class Chunk(NamedTuple):
    """One event of a stream. Empty strings and None where the event carried nothing of the kind.

    Or several events that hold nothing but text, read together: then `data` is empty, `wire` their bytes as they came,
    and `content` or `reasoning` their whole text. A tuple for the reason that `Delta` is one: many are made.
    """

    data: bytes
    content: str = ""
    reasoning: str = ""
    tool: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    server_times: tuple[tuple[str, dict[str, Any]], ...] = ()
    has_choices: bool = False
    done: bool = False
    wire: bytes = b""


def plain_chunk(kind: str, text: str, wire: bytes) -> Chunk:
    """Return the chunk for whole events that hold nothing but `text`, of `kind` "content" or "reasoning"."""
    if kind == "content":
        return Chunk(b"", text, has_choices=True, wire=wire)
    return Chunk(b"", "", text, has_choices=True, wire=wire)


def request_body(model: str, prompt: PromptSpec) -> bytes:
    """Return the JSON body of a streaming chat request. Settings that are None are left out, not defaulted."""
    body: dict[str, Any] = dict(prompt.extra)
    body.update(model=model, messages=list(prompt.messages), stream=True, stream_options={"include_usage": True})
    if prompt.extra.get("stream_options"):
        body["stream_options"] = {**prompt.extra["stream_options"], "include_usage": True}
    optional = {
        "max_tokens": prompt.max_tokens,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "seed": prompt.seed,
        "ignore_eos": prompt.ignore_eos or None,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    return orjson.dumps(body)


def parse(event: SSEEvent) -> Chunk:
    """Read one event.

    Raises StreamError("upstream_error") for an error event or object, whatever its shape, and ValueError for data
    that is not a JSON object: the caller decides how many of those it forgives. Only the first choice (index 0) is
    read; the text of others would be another answer's.
    """
    data = event.data
    if data.strip() == DONE:
        return Chunk(data, done=True)
    if event.name == "error":
        raise upstream_error(_loads_or_text(data))
    body = _loads(data)
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    if body.get("error") or body.get("object") == "error":
        raise upstream_error(body)
    choice = _first_choice(body)
    content, reasoning, tool = _text_of(choice.get("delta"))
    finish_reason = choice.get("finish_reason")
    return Chunk(
        data,
        content,
        reasoning,
        tool,
        finish_reason if isinstance(finish_reason, str) else None,
        _usage(body),
        _server_times(body),
        bool(body.get("choices")),
    )


def reasoning_fields(chunk: Chunk) -> list[str]:
    """Return the names under which a parsed chunk brought reasoning, none where it brought none.

    For whoever asks afterwards: which name it was changes nothing that is measured.
    """
    delta = _first_choice(_loads(chunk.data)).get("delta") if chunk.reasoning and chunk.data else None
    if not isinstance(delta, dict):
        return []
    return [name for name in REASONING_FIELDS if delta.get(name)] or ["content"]  # a typed part of it (Mistral)


def _loads(data: bytes) -> Any:
    """Parse JSON; where a server broke UTF-8 or sent half a surrogate pair, keep the text with U+FFFD in its place."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            repaired = json.dumps(json.loads(data.decode("utf-8", "replace")), ensure_ascii=False)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return orjson.loads(repaired.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _loads_or_text(data: bytes) -> Any:
    try:
        return _loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def _first_choice(body: dict[str, Any]) -> dict[str, Any]:
    """Return the event's first choice where that is choice 0, else nothing."""
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and not choices[0].get("index"):
        return choices[0]
    return {}


def _text_of(delta: Any) -> tuple[str, str, str]:
    if not isinstance(delta, dict):
        return "", "", ""
    content = delta.get("content") or delta.get("refusal")
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(content, list):
        content, reasoning = _joined(content, "text"), reasoning or _joined(content, "thinking")
    tool = ""
    if "tool_calls" in delta:
        tool = "".join(name + arguments for name, arguments in map(_function, _calls(delta)))
    return _text(content), _text(reasoning), tool


def _joined(parts: Any, kind: str) -> str:
    """Join the text of typed parts, in which Mistral sends content and thinking."""
    found = (part.get(kind) for part in parts if isinstance(part, dict) and part.get("type") == kind)
    return "".join(_joined(value, "text") if isinstance(value, list) else _text(value) for value in found)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _calls(delta: Any) -> list[dict[str, Any]]:
    calls = delta.get("tool_calls") if isinstance(delta, dict) else None
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _function(call: dict[str, Any]) -> tuple[str, str]:
    """Return the pieces of name and arguments that a piece of a tool call brings."""
    function = call.get("function")
    if not isinstance(function, dict):
        return "", ""
    return _text(function.get("name")), _text(function.get("arguments"))


def _usage(body: dict[str, Any]) -> Usage | None:
    usage = body.get("usage") or _groq(body).get("usage")
    if not isinstance(usage, dict):
        return None
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _detail(usage, "completion_tokens_details", "reasoning_tokens"),
        _detail(usage, "prompt_tokens_details", "cached_tokens"),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _detail(usage: dict[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else None


def _server_times(body: dict[str, Any]) -> tuple[tuple[str, dict[str, Any]], ...]:
    if SERVER_TIMES.keys().isdisjoint(body):
        return ()
    blocks = [(vendor, body[name]) for name, vendor in SERVER_TIMES.items() if name in body]
    blocks = [(vendor, _groq(body).get("usage") if vendor == "Groq" else block) for vendor, block in blocks]
    return tuple((vendor, block) for vendor, block in blocks if isinstance(block, dict))


def _groq(body: dict[str, Any]) -> dict[str, Any]:
    block = body.get("x_groq")
    return block if isinstance(block, dict) else {}


def error_text(body: Any) -> str:
    """Return the message inside an error body of any common shape, at most 300 characters, "" where there is none."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("error") or ""
    if isinstance(error, list):  # FastAPI: one entry for each field that is wrong
        error = "; ".join(_text(entry.get("msg")) for entry in error if isinstance(entry, dict))
    text = error if isinstance(error, str) else ""
    return " ".join(text.split())[:300]


def upstream_error(body: Any) -> StreamError:
    """Return the error that a server put into the middle of its stream."""
    text = error_text(body)
    said = f": “{text}”" if text else ""
    return StreamError("upstream_error", f"The backend reported an error in the middle of its answer{said}.")


def unasked_encoding(content_encoding: str) -> StreamError | None:
    """Return what is wrong with a stream that bears this Content-Encoding, None where that is nothing.

    We ask for `identity`: decompressing would take time of ours, and what a compressor holds back has no time at all.
    """
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    return StreamError(
        "encoding", f"The backend compressed its stream ({encoding[:40]}) although asked not to.", permanent=True
    )


def assemble(chunks: Sequence[Chunk]) -> dict[str, Any]:
    """Return the chunks of one finished stream as the body of a non-streaming answer."""
    bodies = [_loads(chunk.data) for chunk in chunks if not (chunk.done or chunk.wire)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(chunk.content for chunk in chunks)}
    if reasoning := "".join(chunk.reasoning for chunk in chunks):
        message["reasoning"] = reasoning
    if calls := _tool_calls(bodies):
        message["tool_calls"] = calls
    finish = next((chunk.finish_reason for chunk in reversed(chunks) if chunk.finish_reason), None)
    head = bodies[0] if bodies else {}
    answer = {name: head[name] for name in ("id", "created", "model", "system_fingerprint") if name in head}
    answer["object"] = "chat.completion"
    answer["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    for body in bodies:
        answer.update({name: body[name] for name in ("usage", *SERVER_TIMES) if body.get(name) is not None})
    return answer


def _tool_calls(bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the pieces in which a stream delivers tool calls; each piece names its call by index."""
    calls: dict[int, dict[str, Any]] = {}
    for body in bodies:
        for piece in _calls(_first_choice(body).get("delta")):
            empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            call = calls.setdefault(_count(piece.get("index")) or 0, empty)
            call["id"] = _text(piece.get("id")) or call["id"]
            name, arguments = _function(piece)
            call["function"]["name"] += name
            call["function"]["arguments"] += arguments
    return [calls[index] for index in sorted(calls)]
