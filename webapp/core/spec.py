"""What was asked of whom: values that cross from services to backends and into recordings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Time and size limits of one request. Times in seconds, sizes in bytes.

    `gap_s` runs between text deltas, not between bytes: keep-alive comments hold a connection, not a token clock.
    """

    connect_s: float = 5.0
    write_s: float = 10.0
    first_byte_s: float = 60.0
    gap_s: float = 30.0
    total_s: float = 600.0
    line_bytes: int = 1 << 20
    body_bytes: int = 64 << 20
    events: int = 200_000


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A backend as the network sees it. The key is named (`env:NAME`, `file:PATH`), never held."""

    slug: str
    label: str
    base_url: str
    model: str
    kind: str = "openai"
    badge: str = "LIVE"
    key_ref: str = ""
    model_family: str = ""
    price_in_usd_per_mtok: float | None = None
    price_out_usd_per_mtok: float | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """One request's content: chat messages (`{"role", "content"}`) and sampling settings. None means "not sent".

    `ignore_eos` asks for the full `max_tokens`, a vLLM extension that OpenAI's own API does not know, so it is sent
    only when wanted. `extra` is passed through untouched (the machine wire's own fields).
    """

    messages: tuple[dict[str, Any], ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    ignore_eos: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
