"""What a turn against each scenario must come to. Time limits in the tests must lie well above 40 ms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.upstreams.faults import PARTIAL_TEXT
from tests.upstreams.replay import CAPTURES, DATA, content, output_tokens
from tests.upstreams.streams import FAST_TOKENS, INVALID_TEXT
from tests.upstreams.wire import REASONING, TEXT, TOKENS, UNICODE_TEXT

REST_TEXT = "".join(TOKENS[3:])


@dataclass(frozen=True, slots=True)
class Expected:
    """How the turn ends, the kind of its StreamError ("" for none), the content and reasoning that are kept.

    `output_tokens` is the server's own count where it was asked for `usage`, None where it gives none.
    """

    outcome: str
    kind: str = ""
    text: str = ""
    reasoning: str = ""
    output_tokens: int | None = None


def done(text: str = TEXT, output_tokens: int | None = None, reasoning: str = "") -> Expected:
    return Expected("done", text=text, reasoning=reasoning, output_tokens=output_tokens)


def error(kind: str, text: str = "") -> Expected:
    return Expected("error", kind, text)


def timeout(kind: str, text: str = "") -> Expected:
    return Expected("timeout", kind, text)


def truncated(kind: str, text: str = "") -> Expected:
    return Expected("truncated", kind, text)


N = len(TOKENS)

EXPECTED: dict[str, Expected] = {
    "ok": done(output_tokens=N),
    "ok-reasoning": done(output_tokens=N + 6, reasoning=REASONING),
    "ok-reasoning-content": done(output_tokens=N + 6, reasoning=REASONING),
    "ok-multi": done(output_tokens=N),
    "ok-usage-every": done(output_tokens=N),
    "ok-role-first": done(output_tokens=N),
    "ok-crlf": done(),
    "ok-comments": done(output_tokens=N),
    "ok-llamacpp": done(output_tokens=N),
    "ok-transformers": done(output_tokens=N),
    "ok-nodone": done(),  # with a note: no end marker
    "ok-timings": done(output_tokens=N),
    "ok-timeinfo": done(output_tokens=N),
    "ok-zero": done("", output_tokens=0),  # TTFT is None, not 0
    "ok-thoughts": done("", output_tokens=6, reasoning=REASONING),  # TTFO is None
    "ok-nonstream": error("not_a_stream"),  # where a stream was asked for
    "fault-400": error("bad_request"),
    "fault-422": error("bad_request"),
    "fault-u04": error("auth"),  # the answer repeats the key: the message must not
    "fault-u04-403": error("auth"),
    "fault-u05": error("not_found"),
    "fault-u05-path": error("not_found"),
    "fault-u06": error("rate_limited"),  # retry_after_s 7
    "fault-u06-date": error("rate_limited"),  # retry_after_s about 30
    "fault-u06-absent": error("rate_limited"),  # None
    "fault-u06-absurd": error("rate_limited"),  # None or a sane cap
    "fault-u06-words": error("rate_limited"),  # None
    "fault-u07": error("http_status"),  # HTML with a script and the key in it
    "fault-u07-500": error("http_status"),
    "fault-u07-503": error("http_status"),
    "fault-u07-529": error("http_status"),
    "fault-u08": error("not_a_stream"),
    "fault-u08-html": error("not_a_stream"),
    "fault-u09": error("redirected"),  # and len(up.requests) == 1
    "fault-u09-307": error("redirected"),
    "fault-u09-308": error("redirected"),
    "fault-u10": timeout("first_byte_timeout"),
    "fault-u10-half": timeout("first_byte_timeout"),
    "fault-u11": timeout("first_event_timeout"),
    "fault-u11-comments": timeout("first_event_timeout"),
    "fault-u12": timeout("gap_timeout", PARTIAL_TEXT),
    "fault-u12-role": timeout("first_event_timeout"),  # a role is no text
    "fault-u13": truncated("truncated", PARTIAL_TEXT),  # in a chunked body aiohttp tells no reset from an early end
    "fault-u13-head": truncated("truncated"),
    "fault-u13-early": truncated("reset"),
    "fault-u14": truncated("truncated", PARTIAL_TEXT),
    "fault-u14-close": truncated("truncated", PARTIAL_TEXT),
    "fault-u14-chunks": truncated("truncated", PARTIAL_TEXT),
    "fault-u14-length": truncated("truncated", PARTIAL_TEXT),
    "fault-u15": done(),  # with a note: no end marker
    "fault-u16": done(),  # and the client closes: up.closed()
    "fault-u16-open": done(),  # and the client closes
    "fault-u17": error("upstream_error", PARTIAL_TEXT),
    "fault-u17-done": error("upstream_error", PARTIAL_TEXT),
    "fault-u17-event": error("upstream_error", PARTIAL_TEXT),
    "fault-u17-plain": error("upstream_error", PARTIAL_TEXT),
    "fault-u17-string": error("upstream_error", PARTIAL_TEXT),  # as Transformers does
    "fault-u17-router": error("upstream_error", PARTIAL_TEXT),
    "fault-u18": done(),  # one bad event counted
    "fault-u18-many": error("protocol", PARTIAL_TEXT),  # the sixth bad event ends it
    "fault-u18-shapes": done(),  # five bad events at most
    "fault-u19": done(),
    "fault-u19-tail": done(),
    "fault-u20": done(),
    "fault-u20-cr": done(),
    "fault-u21": done(UNICODE_TEXT),
    "fault-u22": done(UNICODE_TEXT + "\x00|"),
    "fault-u22-invalid": done(PARTIAL_TEXT + INVALID_TEXT + REST_TEXT),
    "fault-u22-surrogate": done(PARTIAL_TEXT + "a\ufffdb" + REST_TEXT),
    "fault-u23": done(),
    "fault-u23-bytes": done(),
    "fault-u24": done(),
    "fault-u24-forever": timeout("gap_timeout", PARTIAL_TEXT),
    "fault-u25": error("too_large", PARTIAL_TEXT),
    "fault-u25-body": error("too_large", PARTIAL_TEXT),
    "fault-u25-events": error("too_large", PARTIAL_TEXT),  # before a gap limit of 0.3 s: lower Limits.events
    "fault-u26": error("encoding"),  # decoded in full is as right: done()
    "fault-u26-members": error("encoding"),
    "fault-u26-deflate": error("encoding"),
    "fault-u26-br": error("encoding"),
    "fault-u27": done(" word" * FAST_TOKENS, output_tokens=FAST_TOKENS),
    "fault-u28": done("", output_tokens=0),
    "fault-u29": done(),
    "fault-u30": done(output_tokens=2 * N),
    "fault-u30-tools": done("", output_tokens=9),
    "fault-u32": done(),  # and up.lost() returns
    "fault-u34-http10": done(),
    "fault-u34-chunks": done(),
    "fault-u34-type": done(),
    "fault-u34-notype": error("not_a_stream"),
    "fault-u34-100": done(output_tokens=N),
    "fault-u34-103": done(output_tokens=N),
}

LLAMA_CPP, TRANSFORMERS = "real-llamacpp-0c1e570", "real-transformers-5.23.0"

EXPECTED |= {
    f"{LLAMA_CPP}-bad-field": error("bad_request"),
    f"{LLAMA_CPP}-bad-json": error("http_status"),  # 500 for our own mistake
    f"{LLAMA_CPP}-too-long": error("bad_request"),
    f"{LLAMA_CPP}-whole": error("not_a_stream"),
    f"{LLAMA_CPP}-wrong-path": error("not_found"),
    f"{TRANSFORMERS}-bad-field": error("http_status"),
    f"{TRANSFORMERS}-bad-json": error("bad_request"),
    f"{TRANSFORMERS}-no-token": error("upstream_error"),
    f"{TRANSFORMERS}-unknown-field": error("bad_request"),
    f"{TRANSFORMERS}-unknown-model": error("http_status"),
    f"{TRANSFORMERS}-whole": error("not_a_stream"),
    f"{TRANSFORMERS}-wrong-path": error("not_found"),
}


def recorded(file: str) -> Expected:
    body = (DATA / file).read_bytes()
    return done(content(body), output_tokens(body), content(body, "reasoning_content"))


EXPECTED |= {
    f"real-{Path(file).stem}": recorded(file) for file in CAPTURES if f"real-{Path(file).stem}" not in EXPECTED
}
