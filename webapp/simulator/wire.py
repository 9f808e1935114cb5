"""The bytes of OpenAI's API: stream events, whole responses, errors. Pure.

An event is put together from parts encoded beforehand, so that a token costs one small format and the
JSON encoding of its own text only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from webapp.core.truth import BLOCK, Emitted
from webapp.simulator.faults import FAULTS
from webapp.simulator.profile import Profile
from webapp.simulator.reply import Chunk, Reply
from webapp.simulator.request import Asked, BadRequest
from webapp.simulator.request_fields import CHAT, TEXT
from webapp.simulator.sequence import Timing

DONE = b"data: [DONE]\n\n"

_OBJECTS = {CHAT: ("chat.completion", "chat.completion.chunk"), TEXT: ("text_completion", "text_completion")}
_IDS = {CHAT: "chatcmpl", TEXT: "cmpl"}


def answer_id(shape: str, token: str) -> str:
    """Return an answer's id, shaped as OpenAI's."""
    return f"{_IDS[shape]}-{token}"


class StreamEncoder:
    """Encodes the events of one stream."""

    def __init__(self, asked: Asked, identity: str, created: int) -> None:
        head = event_head(identity, _OBJECTS[asked.shape][1], created, asked.model)
        self._head = head
        self._chat = asked.shape == CHAT
        if self._chat:
            delta = head + b',"choices":[{"index":0,"delta":{'
            self._empty = delta + b"}"
            self._before = {
                "content": b"data: " + delta + b'"content":',
                "reasoning": b"data: " + delta + orjson.dumps(asked.profile.reasoning_field) + b":",
            }
            self._after = b'},"logprobs":null,"finish_reason":null}],"sim":{"due_us":%d,"sent_ns":%d%b}}\n\n'
        else:
            self._empty = head + b',"choices":[{"index":0,"text":""'
            self._before = {"content": b"data: " + head + b',"choices":[{"index":0,"text":'}
            self._after = b',"logprobs":null,"finish_reason":null}],"sim":{"due_us":%d,"sent_ns":%d%b}}\n\n'

    def role(self, arrived_ns: int) -> bytes:
        """Return the chunk that opens a message, without text; `due_us` counts from its `arrived_ns`.

        Text completions have no such thing: nothing.
        """
        if not self._chat:
            return b""
        return (
            b'data: %b,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}],"sim":{"arrived_ns":%d}}\n\n' % (self._head, arrived_ns)
        )

    def chunk(self, chunk: Chunk, sent_ns: int) -> bytes:
        """Return a chunk of text with its due time, the time at which it is written, and its tokens if several."""
        due_ns, kind, text, tokens = chunk
        several = b',"tokens":%d' % tokens if tokens > 1 else b""
        return self._before[kind] + orjson.dumps(text) + self._after % (due_ns // 1000, sent_ns, several)

    def finish(self, reason: str, extra: Mapping[str, Any]) -> bytes:
        """Return the chunk that says why the text ended; `extra` goes beside its choices."""
        tail = b"," + orjson.dumps(extra)[1:] if extra else b"}"
        return b'data: %b,"logprobs":null,"finish_reason":"%b"}]%b\n\n' % (self._empty, reason.encode(), tail)

    def usage(self, usage: Mapping[str, Any], time_info: Mapping[str, Any]) -> bytes:
        """Return the chunk that carries no text but the counts and the server's own times."""
        tail = orjson.dumps({"usage": usage, "time_info": time_info})[1:]
        return b'data: %b,"choices":[],%b\n\n' % (self._head, tail)


def event_head(identity: str, kind: str, created: int, model: str) -> bytes:
    """Return the JSON object that every event of an answer begins with, still open."""
    return orjson.dumps({"id": identity, "object": kind, "created": created, "model": model})[:-1]


def usage_of(asked: Asked, reply: Reply) -> dict[str, Any]:
    """Return the token counts in OpenAI's shape."""
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": reply.tokens,
        "total_tokens": asked.prompt_tokens + reply.tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    }


def time_info_of(timing: Timing, emitted: Emitted | None = None) -> dict[str, Any]:
    """Return the machine's own times in seconds, named as Cerebras' API names them, and where they went.

    api + queue + prompt + completion = total, and `parts` sum to prompt + completion: they divide the steps since the
    request was admitted, and name what its last token waited in the front end after them. A step is shared, so the
    parts of two requests overlap. `emitted` is what a client can hold its own clock against.
    """
    parts = {name.removesuffix("_ns"): part_ns / 1e9 for name, part_ns in timing.times.split._asdict().items()}
    if timing.hand_out_ns:
        parts["hand_out"] = timing.hand_out_ns / 1e9
    info: dict[str, Any] = {
        "queue_time": timing.times.queue_ns / 1e9,
        "prompt_time": timing.prompt_ns / 1e9,
        "completion_time": timing.completion_ns / 1e9,
        "total_time": timing.last_ns / 1e9,
        "api_time": timing.api_ns / 1e9,
        "parts": parts,
    }
    if emitted is not None:
        info[BLOCK] = asdict(emitted)
    return info


def completion(
    asked: Asked, identity: str, created: int, reply: Reply, chunks: Sequence[Chunk], timing: Timing
) -> bytes:
    """Return the body of an answer that is not streamed."""
    content = _joined(chunks, "content")
    choice: dict[str, Any] = {"index": 0}
    if asked.shape == CHAT:
        message = choice["message"] = {"role": "assistant", "content": content, "refusal": None}
        if asked.profile.reasons:
            message[asked.profile.reasoning_field] = _joined(chunks, "reasoning")
    else:
        choice["text"] = content
    choice |= {"logprobs": None, "finish_reason": reply.finish_reason}
    head = event_head(identity, _OBJECTS[asked.shape][0], created, asked.model)
    rest = {"choices": [choice], "usage": usage_of(asked, reply), "time_info": time_info_of(timing)}
    return head + b"," + orjson.dumps(rest)[1:]


def _joined(chunks: Sequence[Chunk], kind: str) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.kind == kind)


def error_body(problem: BadRequest) -> bytes:
    """Return an error in OpenAI's shape."""
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    return orjson.dumps(
        {
            "error": {
                "message": problem.message,
                "type": "rate_limit_error" if problem.status == 429 else kind,
                "param": problem.param,
                "code": problem.code,
            }
        }
    )


def error_event(message: str, name: str = "") -> bytes:
    """Return an error as servers send it once the status line is out."""
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": 500}}
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: %b\n\n" % orjson.dumps(body)


def model_entry(profile: Profile) -> dict[str, Any]:
    """Return a profile as an entry of /v1/models; `sim` holds all of its figures and their source."""
    return {
        "id": profile.slug,
        "object": "model",
        "created": 1_767_225_600,  # 2026-01-01, a fixed value
        "owned_by": "simulator",
        "max_model_len": profile.context_tokens,
        "sim": {
            "tok_s": profile.tok_s,
            "devices": profile.serving.devices,
            "kw_all_in": profile.kw_all_in,
            **asdict(profile),
        },
    }


def fault_names() -> dict[str, str]:
    """Return every fault that can be asked for and what it does."""
    return {
        fault.name: f"{fault.summary} ({fault.case.upper()})" if fault.case else fault.summary
        for fault in FAULTS.values()
    }
