"""A quick profile without chance in it, requests for it, and a reader of event streams."""

from typing import Any

import aiohttp
import orjson

from webapp.simulator.profile import Profile, from_table
from webapp.simulator.request import Asked, parse_chat

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

TABLE: dict[str, Any] = {
    "slug": "quick",
    "label": "Quick",
    "hardware": "none",
    "family": "m",
    "machine": {
        "label": "none",
        "kind": "latency",
        "memory_gb": 1000.0,
        "source": "this test",
        "date": "2026-11-22",
    },
    "model": {
        "label": "m",
        "parameters_b": 0.001,
        "layers": 1,
        "hidden": 1,
        "attention_width": 1,
        "kv_elements": 1,
        "context_tokens": 131_072,
        "source": "this test",
        "date": "2026-11-22",
    },
    "devices": 1,
    "precision": "fp8",
    "layer_us": 500.0,
    "slots": 1000,
    "prefill_tok_s": 10_000.0,
    "max_sequences": 1000,
    "api_ms": 5.5,
    "jitter_sigma": 0.0,
    "api_sigma": 0.0,
    "source": "this test",
    "date": "2026-11-22",
    "calibrated_on": "nothing",
    "status": "A",
    "error": "none",
    "confidence": "H",
}


def profile(tok_s: float | None = None, kv_tokens: int | None = None, **changes: Any) -> Profile:
    """Return the quick profile, changed; `tok_s` is the pace of one user, `kv_tokens` what the KV cache holds."""
    pace = {} if tok_s is None else {"layer_us": 1e6 / tok_s}
    table = {**TABLE, **pace, **changes}
    if kv_tokens is not None:  # 10 GB, of which 9 are used and 4 reserved; two bytes an element
        table["machine"] = {**table["machine"], "memory_gb": 10.0}
        table["model"] = {**table["model"], "kv_elements": 5_000_000_000 // 2 // kv_tokens}
    return from_table(table, "example")


def thinking(**changes: Any) -> Profile:
    table = {"slug": "thinking", "reasoning_field": "reasoning", "reasoning_tokens": 40, **changes}
    return profile(**table)


PROFILES = {
    example.slug: example
    for example in (
        profile(),
        thinking(),
        thinking(slug="older", reasoning_field="reasoning_content"),
        profile(slug="bursty", chunk_tokens=5),
        profile(slug="slow", tok_s=5.0),
        profile(slug="flood", tok_s=20_000.0),
    )
}


def body(prompt: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "quick", "messages": [{"role": "user", "content": prompt}], **fields}


def asked(prompt: str = "hello", **fields: Any) -> Asked:
    return parse_chat(orjson.dumps(body(prompt, **fields)), PROFILES)


def events(stream: bytes) -> list[Any]:
    """Return the decoded events of a whole stream; the end marker as the text it is."""
    found = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n") if part]
    return ["[DONE]" if part == b"[DONE]" else orjson.loads(part) for part in found]


def text_of(found: list[Any], field: str = "content") -> str:
    return "".join(
        choice["delta"].get(field, "")
        for event in found
        if isinstance(event, dict)
        for choice in event.get("choices", ())
    )


def sims(found: list[Any]) -> list[dict[str, int]]:
    """Return the simulated truth of each text chunk."""
    return [event["sim"] for event in found if isinstance(event, dict) and "due_us" in event.get("sim", {})]


async def stream(client: aiohttp.ClientSession, prompt: str = "Write a haiku", **fields: Any) -> list[Any]:
    async with client.post(CHAT, json=body(prompt, stream=True, **fields)) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Simulated"] == "1"
        return events(await response.read())


async def streams_of(session: aiohttp.ClientSession) -> int:
    async with session.get("/healthz") as response:
        return int((await response.json())["streams"])
