"""What is measured of one answer, and how each figure follows from the marks.

Marks are monotonic nanoseconds of one clock; figures are milliseconds and tokens per second. A figure that the stream
does not support is None, never 0. What a person reads about them in the page is in `definitions.toml`, and a
test holds the two together. Sources: aiperf (TTFT, TTFO, ICL, TPOT as its inter-token latency), vLLM (TPOT), MLPerf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from operator import sub
from typing import Any

from webapp.core.deltas import Delta, Deltas
from webapp.core.openai import Usage
from webapp.core.stats import Summary, summarise
from webapp.core.tokens import CHARS_PER_TOKEN

NS_PER_MS = 1_000_000
SHORT_WINDOW_NS = 50 * NS_PER_MS
SHORT_TOKENS = 20


@dataclass(slots=True)
class Marks:
    """The raw instants of one request, monotonic ns. None: it has not happened, or cannot be known.

    `connect` and `connected` stay None where a kept-alive connection was used again. `sent` is when the
    request was about to be written to an open connection: set-up lies before it, and whatever holds us up in the write,
    which already wakes the server, is in the times counted from it.
    """

    intended: int | None = None
    connect: int | None = None
    connected: int | None = None
    sent: int | None = None
    headers: int | None = None
    first_event: int | None = None
    first_token: int | None = None
    first_output: int | None = None
    last_token: int | None = None
    usage: int | None = None
    end: int | None = None

    def since(self, start_ns: int) -> dict[str, int | None]:
        """Return every mark as ns after `start_ns`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: None if at is None else at - start_ns for name, at in values.items()}


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one answer. Milliseconds, tokens, tokens per second, US dollars; None is "n/a".

    `tokens_source` is "usage" (the server's own count) or "estimate" (from the text); `tpot_estimated` is True where
    the token count, or the number of tokens in the first chunk, had to be estimated; `short` marks a decode window
    under 50 ms or 20 tokens, whose rate says little.
    """

    connect_ms: float | None
    headers_ms: float | None
    ttft_ms: float | None
    ttfo_ms: float | None
    thinking_ms: float | None
    tpot_ms: float | None
    tok_s: float | None
    tok_s_e2e: float | None
    e2e_ms: float | None
    icl_ms: Summary | None
    chunks: int
    tokens_per_chunk: float | None
    output_tokens: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    tokens_source: str
    tpot_estimated: bool
    short: bool
    cost_usd: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(
    marks: Marks,
    deltas: Sequence[Delta],
    usage: Usage | None,
    prices_usd_per_mtok: tuple[float | None, float | None] = (None, None),
    *,
    chars: int | None = None,
    live: bool = False,
    icl: bool = True,
) -> Figures:
    """Return the figures of an answer from its raw marks.

    `prices_usd_per_mtok` are the input and output price in US dollars per million tokens. `chars` is the number of
    characters in `deltas` where the caller has kept count. `live` leaves out what takes a look at every delta (TPOT,
    inter-chunk latency): read-outs are made several times a second while others are being measured. Without `icl` only
    the inter-chunk latency is left out, for callers that keep the gaps themselves.
    """
    exact = counted(usage, len(deltas))
    if chars is None:
        chars = sum(len(delta.text) for delta in deltas)
    tokens = exact if exact is not None else estimate_tokens(len(deltas), chars)
    source = "usage" if exact is not None else "estimate"
    in_first, first_known = (0, False) if live else _tokens_in_first(deltas, tokens, chars)
    tpot_ms = None if live else _tpot_ms(marks, tokens, in_first)
    e2e_ms = _ms(marks.sent, marks.last_token)
    window_ns = (marks.last_token or 0) - (marks.first_token or 0)
    return Figures(
        connect_ms=_ms(marks.connect, marks.connected),
        headers_ms=_ms(marks.sent, marks.headers),
        ttft_ms=_ms(marks.sent, marks.first_token),
        ttfo_ms=_ms(marks.sent, marks.first_output),
        thinking_ms=_thinking_ms(marks, deltas),
        tpot_ms=tpot_ms,
        tok_s=1000 / tpot_ms if tpot_ms else None,
        tok_s_e2e=tokens / e2e_ms * 1000 if tokens and e2e_ms else None,
        e2e_ms=e2e_ms,
        icl_ms=summarise(gaps_ms(deltas)) if icl and not live else None,
        chunks=len(deltas),
        tokens_per_chunk=tokens / len(deltas) if deltas and tokens else None,
        output_tokens=tokens if deltas or exact is not None else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        reasoning_tokens=usage.reasoning_tokens if usage else None,
        tokens_source=source,
        tpot_estimated=source == "estimate" or not first_known,
        short=bool(deltas) and (window_ns < SHORT_WINDOW_NS or tokens < SHORT_TOKENS),
        cost_usd=_cost_usd(usage, exact, prices_usd_per_mtok),
    )


def gaps_ms(deltas: Sequence[Delta]) -> list[float]:
    """Return the inter-chunk latencies: differences of arrival of neighbouring chunks, in ms."""
    times_ns = deltas.times_ns if isinstance(deltas, Deltas) else [delta.at_ns for delta in deltas]
    return [gap_ns / NS_PER_MS for gap_ns in map(sub, islice(times_ns, 1, None), times_ns)]


def counted(usage: Usage | None, chunks: int) -> int | None:
    """Return the server's own count of output tokens, None where it gave none; 0 beside `chunks` of text is none."""
    count = usage.completion_tokens if usage is not None else None
    return count if count or not chunks else None


def estimate_tokens(chunks: int, chars: int) -> int:
    """Return a token count for a stream whose server has reported none so far.

    Chunks of up to two tokens' worth of characters on average are taken for one token each, as most servers send
    them; in longer ones the characters are counted, four to a token.
    """
    if chars <= 2 * CHARS_PER_TOKEN * chunks:
        return chunks
    return round(chars / CHARS_PER_TOKEN)


def _tokens_in_first(deltas: Sequence[Delta], tokens: int, chars: int) -> tuple[int, bool]:
    """Return how many tokens the first chunk held and whether that is known rather than shared out by characters."""
    if not deltas:
        return 0, True
    if deltas[0].tokens:  # 0 beside text is no count
        return deltas[0].tokens, True
    if tokens <= len(deltas):
        return 1, True
    share = round(tokens * len(deltas[0].text) / chars) if chars else 1
    return min(max(1, share), tokens - len(deltas) + 1), False  # each later chunk holds one at least


def _tpot_ms(marks: Marks, tokens: int, in_first: int) -> float | None:
    span_ms = _ms(marks.first_token, marks.last_token)
    if not span_ms or tokens <= in_first:
        return None
    return span_ms / (tokens - in_first)


def _thinking_ms(marks: Marks, deltas: Sequence[Delta]) -> float | None:
    if not deltas or deltas[0].kind != "reasoning":
        return None
    return _ms(marks.first_token, marks.first_output)


def _cost_usd(
    usage: Usage | None, output_tokens: int | None, prices: tuple[float | None, float | None]
) -> float | None:
    price_in, price_out = prices
    if usage is None or usage.prompt_tokens is None or output_tokens is None:
        return None
    if price_in is None or price_out is None:
        return None
    return (usage.prompt_tokens * price_in + output_tokens * price_out) / 1e6


def _ms(start_ns: int | None, end_ns: int | None) -> float | None:
    if start_ns is None or end_ns is None:
        return None
    return (end_ns - start_ns) / NS_PER_MS
