"""Answers as well-behaved servers give them, one coroutine per habit that real servers have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson

from tests.upstreams import wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.wire import REASONING_TOKENS, TOKENS

Scenario = Callable[[Exchange], Awaitable[None]]

ROLE = wire.event(wire.chunk({"role": "assistant", "content": ""}))
ROLE_FIRST_S = 0.15

# llama.cpp's server puts this block into its last chunk; times in ms.
TIMINGS = {
    "prompt_n": 7,
    "prompt_ms": 12.5,
    "prompt_per_token_ms": 1.79,
    "prompt_per_second": 560.0,
    "predicted_n": 13,
    "predicted_ms": 65.0,
    "predicted_per_token_ms": 5.0,
    "predicted_per_second": 200.0,
}
# Cerebras' block; times in seconds.
TIME_INFO = {"queue_time": 0.0002, "prompt_time": 0.0016, "completion_time": 0.0061, "total_time": 0.0105}


async def ok(x: Exchange) -> None:
    """As vLLM: role chunk right before the first text, one token per chunk, finish, usage if asked for."""
    await x.begin()
    await x.send(ROLE)
    await x.tokens(TOKENS)
    await x.finish(len(TOKENS))


def thinking(key: str) -> Scenario:
    """Return an answer whose reasoning comes first, in the delta field `key`."""

    async def scenario(x: Exchange) -> None:
        await x.begin()
        await x.send(ROLE)
        await x.tokens(REASONING_TOKENS, key)
        await x.tokens(TOKENS)
        await x.finish(len(REASONING_TOKENS) + len(TOKENS))

    return scenario


async def multi(x: Exchange) -> None:
    """Four tokens in each chunk, and the role in the first of them."""
    await x.begin()
    for start in range(0, len(TOKENS), 4):
        text = "".join(TOKENS[start : start + 4])
        role = {} if start else {"role": "assistant"}
        await x.send(wire.event(wire.chunk({**role, "content": text})), text)
        await x.pause()
    await x.finish(len(TOKENS))


async def usage_every(x: Exchange) -> None:
    """A running `usage` in every chunk (vLLM's continuous_usage_stats)."""
    await x.begin()
    await x.send(wire.event(wire.chunk({"role": "assistant", "content": ""}, usage=wire.usage(0))))
    for count, token in enumerate(TOKENS, 1):
        await x.send(wire.event(wire.chunk({"content": token}, usage=wire.usage(count))), token)
        await x.pause()
    await x.finish(len(TOKENS), usage=wire.usage(len(TOKENS)))


async def role_first(x: Exchange) -> None:
    """The role chunk at once, the first text ROLE_FIRST_S later: a role is not a first token."""
    await x.begin()
    await x.send(ROLE)
    await asyncio.sleep(ROLE_FIRST_S)
    await x.tokens(TOKENS)
    await x.finish(len(TOKENS))


async def crlf(x: Exchange) -> None:
    """Every line of the stream ends in CRLF."""
    await x.begin()
    await x.send(ROLE.replace(b"\n", b"\r\n"))
    for token in TOKENS:
        await x.send(wire.event(wire.chunk({"content": token}), b"\r\n"), token)
        await x.pause()
    await x.send(wire.event(wire.chunk({}, finish="stop"), b"\r\n"))
    await x.send(wire.DONE.replace(b"\n", b"\r\n"))
    await x.end()


async def comments(x: Exchange) -> None:
    """Keep-alive comments before and between the tokens (OpenRouter)."""
    await x.begin()
    await x.send(b": OPENROUTER PROCESSING\n\n")
    await x.send(ROLE)
    for token in TOKENS:
        await x.send(b": ping\n\n")
        await x.send(wire.event(wire.chunk({"content": token})), token)
        await x.pause()
    await x.finish(len(TOKENS))


async def llama_cpp(x: Exchange) -> None:
    """llama.cpp's server: the role chunk's content is null, and it shares one write with the first text."""
    await x.begin()
    role = wire.event(wire.chunk({"role": "assistant", "content": None}))
    await x.send(role + wire.event(wire.chunk({"content": TOKENS[0]})), TOKENS[0])
    await x.pause()
    await x.tokens(TOKENS[1:])
    await x.finish(len(TOKENS))


async def transformers(x: Exchange) -> None:
    """Transformers' server: role without content, no finish_reason until there is one, usage unasked, no marker."""
    await x.begin()
    for delta in ({"role": "assistant"}, *({"content": token} for token in TOKENS)):
        payload = {"object": "chat.completion.chunk", "choices": [{"delta": delta, "index": 0}]}
        await x.send(wire.event(payload), delta.get("content", ""))
        await x.pause()
    last = {"choices": [{"delta": {}, "index": 0, "finish_reason": "stop"}], "usage": wire.usage(len(TOKENS))}
    await x.send(wire.event(last))
    await x.end()


async def no_done(x: Exchange) -> None:
    """A finish reason, then the end of the body: no end marker."""
    await x.begin()
    await x.send(ROLE)
    await x.tokens(TOKENS)
    await x.send(wire.event(wire.chunk({}, finish="stop")))
    await x.end()


async def timings(x: Exchange) -> None:
    """llama.cpp's server: its own times in the very last chunk, be that the finish or the usage chunk."""
    await x.begin()
    await x.send(ROLE)
    await x.tokens(TOKENS)
    if x.wants_usage:
        await x.send(wire.event(wire.chunk({}, finish="stop")))
        await x.send(wire.event(wire.chunk(None, usage=wire.usage(len(TOKENS)), timings=TIMINGS)))
    else:
        await x.send(wire.event(wire.chunk({}, finish="stop", timings=TIMINGS)))
    await x.send(wire.DONE)
    await x.end()


async def time_info(x: Exchange) -> None:
    """Cerebras: finish reason, usage and its own times together in one last chunk."""
    await x.begin()
    await x.send(ROLE)
    await x.tokens(TOKENS)
    usage = wire.usage(len(TOKENS))
    await x.send(wire.event(wire.chunk({}, finish="stop", usage=usage, time_info=TIME_INFO)))
    await x.send(wire.DONE)
    await x.end()


async def zero(x: Exchange) -> None:
    """No token at all, and a proper end."""
    await x.begin()
    await x.send(ROLE)
    await x.finish(0)


async def thoughts(x: Exchange) -> None:
    """Reasoning up to the limit of tokens, and no answer."""
    await x.begin()
    await x.send(ROLE)
    await x.tokens(REASONING_TOKENS, "reasoning")
    await x.finish(len(REASONING_TOKENS), "length")


async def whole(x: Exchange) -> None:
    """The whole answer as one JSON document, whatever was asked for."""
    await x.reply("200 OK", orjson.dumps(wire.answer(wire.TEXT, len(TOKENS))))


GOOD: dict[str, Scenario] = {
    "ok": ok,
    "ok-reasoning": thinking("reasoning"),
    "ok-reasoning-content": thinking("reasoning_content"),
    "ok-multi": multi,
    "ok-usage-every": usage_every,
    "ok-role-first": role_first,
    "ok-crlf": crlf,
    "ok-comments": comments,
    "ok-llamacpp": llama_cpp,
    "ok-transformers": transformers,
    "ok-nodone": no_done,
    "ok-timings": timings,
    "ok-timeinfo": time_info,
    "ok-zero": zero,
    "ok-thoughts": thoughts,
    "ok-nonstream": whole,
}
