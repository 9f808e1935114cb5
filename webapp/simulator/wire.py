"""The bytes of OpenAI's chat API: stream events, whole responses, errors. Pure.

An event is put together from parts encoded beforehand, so that a token costs one small format and the
JSON encoding of its own text only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from webapp.simulator.faults import FAULTS
from webapp.simulator.machine import Plan
from webapp.simulator.profile import Profile
from webapp.simulator.reply import Chunk, Reply
from webapp.simulator.request import BadRequest, ChatRequest

DONE = b"data: [DONE]\n\n"
GARBAGE = b'data: {"choices":[{"index":0,"delta":{"content":"\n\n'


class StreamEncoder:
    """Encodes the events of one stream."""

    def __init__(self, request: ChatRequest, answer_id: str, created: int) -> None:
        self._head = event_head(answer_id, "chat.completion.chunk", created, request.model)
        delta = self._head + b',"choices":[{"index":0,"delta":{'
        self._before = {
            "content": b"data: " + delta + b'"content":',
            "reasoning": b"data: " + delta + orjson.dumps(request.profile.reasoning_field) + b":",
        }
        self._delta = delta

    def role(self, arrived_ns: int) -> bytes:
        """Return the chunk that opens a message, without text; `due_us` counts from its `arrived_ns`."""
        return (
            b'data: %b"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
            b'"sim":{"arrived_ns":%d}}\n\n' % (self._delta, arrived_ns)
        )

    def chunk(self, chunk: Chunk, sent_ns: int) -> bytes:
        """Return a chunk of text with its due time and the time at which it is written."""
        return b'%b%b},"logprobs":null,"finish_reason":null}],"sim":{"due_us":%d,"sent_ns":%d}}\n\n' % (
            self._before[chunk.kind],
            orjson.dumps(chunk.text),
            chunk.due_ns // 1000,
            sent_ns,
        )

    def finish(self, reason: str) -> bytes:
        """Return the chunk that says why the text ended."""
        return b'data: %b},"logprobs":null,"finish_reason":"%b"}]}\n\n' % (self._delta, reason.encode())

    def usage(self, usage: Mapping[str, Any], time_info: Mapping[str, Any]) -> bytes:
        """Return the chunk that carries no text but the counts and the server's own times."""
        tail = orjson.dumps({"usage": usage, "time_info": time_info})[1:]
        return b'data: %b,"choices":[],%b\n\n' % (self._head, tail)


def event_head(answer_id: str, kind: str, created: int, model: str) -> bytes:
    """Return the JSON object that every event of an answer begins with, still open."""
    return orjson.dumps({"id": answer_id, "object": kind, "created": created, "model": model})[:-1]


def usage_of(request: ChatRequest, reply: Reply) -> dict[str, Any]:
    """Return the token counts in OpenAI's shape."""
    return {
        "prompt_tokens": request.prompt_tokens,
        "completion_tokens": reply.tokens,
        "total_tokens": request.prompt_tokens + reply.tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    }


def time_info_of(plan: Plan, last_ns: int) -> dict[str, float]:
    """Return the machine's own times in seconds, named as Cerebras' API names them."""
    return {
        "queue_time": plan.queue_ns / 1e9,
        "prompt_time": plan.prompt_ns / 1e9,
        "completion_time": (last_ns - plan.first_ns) / 1e9,
        "total_time": last_ns / 1e9,
    }


def completion(
    request: ChatRequest, answer_id: str, created: int, reply: Reply, chunks: Sequence[Chunk], plan: Plan
) -> bytes:
    """Return the body of an answer that is not streamed."""
    content = "".join(chunk.text for chunk in chunks if chunk.kind == "content")
    reasoning = "".join(chunk.text for chunk in chunks if chunk.kind == "reasoning")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if request.profile.reasons:
        message[request.profile.reasoning_field] = reasoning
    last_ns = chunks[-1].due_ns if chunks else plan.first_ns
    head = event_head(answer_id, "chat.completion", created, request.model)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    rest = {
        "choices": [choice],
        "usage": usage_of(request, reply),
        "time_info": time_info_of(plan, last_ns),
    }
    return head + b"," + orjson.dumps(rest)[1:]


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


def error_event(message: str) -> bytes:
    """Return an error as servers send it once the status line is out."""
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": 500}}
    return b"data: %b\n\n" % orjson.dumps(body)


def model_entry(profile: Profile) -> dict[str, Any]:
    """Return a profile as an entry of /v1/models; `sim` holds all of its figures and their source."""
    return {
        "id": profile.slug,
        "object": "model",
        "created": 1_767_225_600,  # 2026-01-01, a fixed value
        "owned_by": "simulator",
        "sim": asdict(profile),
    }


def fault_names() -> dict[str, str]:
    """Return every fault that can be asked for and what it does."""
    return {fault.name: fault.summary for fault in FAULTS.values()}
