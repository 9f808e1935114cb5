"""One user request of a load run: its marks and ending, as it is kept in requests.jsonl.

Marks are ns of the generator's clock after the run's start; in the file they are µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CATEGORIES = ("refused", "timeout", "4xx", "429", "5xx", "truncated", "protocol")

_CATEGORY_OF_KIND = {
    "refused": "refused",
    "dns": "refused",
    "tls": "refused",
    "unreachable": "refused",
    "rate_limited": "429",
    "bad_request": "4xx",
    "auth": "4xx",
    "not_found": "4xx",
    "upstream_error": "5xx",
    "interrupted": "5xx",
    "internal": "5xx",
    "reset": "truncated",
    "truncated": "truncated",
}


def category(kind: str, status: int = 0) -> str:
    """Return the class of an error in the taxonomy, from its kind and, where that leaves it open, the HTTP status."""
    if kind.endswith("timeout"):
        return "timeout"
    if kind in _CATEGORY_OF_KIND:
        return _CATEGORY_OF_KIND[kind]
    if status == 429:
        return "429"
    if 400 <= status < 600:
        return "4xx" if status < 500 else "5xx"
    return "protocol"


@dataclass(slots=True)
class Record:
    """One user request. Marks are ns after the run's start; None has not happened.

    `outcome`: done, failed, left (the user's patience ended) or interrupted (the run was stopped). `gaps_ns` are the
    inter-chunk gaps; `late_ns` is by how much the generator itself was late to begin it.
    """

    backend: str
    number: int
    outcome: str
    intended: int
    sent: int | None = None
    marks: dict[str, int | None] = field(default_factory=dict)
    gaps_ns: tuple[int, ...] = ()
    output_tokens: int | None = None
    input_tokens: int | None = None
    tokens_source: str = "estimate"
    tpot_ns: int | None = None
    late_ns: int = 0
    error_kind: str = ""
    error: str = ""
    status: int = 0
    user: int = 0
    turn: int = 0
    pair: int | None = None
    text: str = ""
    server_ms: dict[str, Any] | None = None

    @property
    def end(self) -> int:
        return self.marks.get("end") or self.intended

    def since(self, mark: str, start: int | None) -> int | None:
        at = self.marks.get(mark)
        return None if at is None or start is None else at - start

    def figures_ns(self) -> dict[str, int | None]:
        """Return the figures of a finished request from sending; icl is its longest gap."""
        return {
            "ttft": self.since("first_token", self.sent),
            "ttfo": self.since("first_output", self.sent),
            "tpot": self.tpot_ns,
            "icl": max(self.gaps_ns, default=None),
            "e2e": self.since("last_token", self.sent),
        }

    def as_data(self, detail: str = "chunks") -> dict[str, Any]:
        """Return the record as one JSON object, times in µs; `detail` "marks" leaves the gaps out."""
        data: dict[str, Any] = {
            "backend": self.backend,
            "number": self.number,
            "user": self.user,
            "turn": self.turn,
            "outcome": self.outcome,
            "marks_us": {"intended": _us(self.intended), "sent": _us(self.sent)}
            | {name: _us(at) for name, at in self.marks.items()},
            "late_us": _us(self.late_ns),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "tokens_source": self.tokens_source,
            "tpot_us": None if self.tpot_ns is None else self.tpot_ns / 1000,
        }
        if detail != "marks":
            data["gaps_us"] = [_us(gap) for gap in self.gaps_ns]
        if self.pair is not None:
            data["pair"] = self.pair
        if self.error_kind:
            data |= {"error_kind": self.error_kind, "category": category(self.error_kind, self.status)}
            data |= {"error": self.error, "status": self.status}
        if self.server_ms:
            data["server_ms"] = self.server_ms
        if detail == "text":
            data["text"] = self.text
        return data


def record_from_data(data: Mapping[str, Any]) -> Record:
    """Return the record that a line of requests.jsonl tells of, to the µs."""
    marks = {name: _ns(at) for name, at in data["marks_us"].items()}
    tpot_us = data.get("tpot_us")
    return Record(
        backend=data["backend"],
        number=data["number"],
        outcome=data["outcome"],
        intended=marks.pop("intended") or 0,
        sent=marks.pop("sent"),
        marks=marks,
        gaps_ns=tuple(gap * 1000 for gap in data.get("gaps_us", ())),
        output_tokens=data["output_tokens"],
        input_tokens=data["input_tokens"],
        tokens_source=data["tokens_source"],
        tpot_ns=None if tpot_us is None else round(tpot_us * 1000),
        late_ns=(data.get("late_us") or 0) * 1000,
        error_kind=data.get("error_kind", ""),
        error=data.get("error", ""),
        status=data.get("status", 0),
        user=data.get("user", 0),
        turn=data.get("turn", 0),
        pair=data.get("pair"),
        server_ms=data.get("server_ms"),
    )


def _us(value: int | None) -> int | None:
    return None if value is None else round(value / 1000)


def _ns(value: int | None) -> int | None:
    return None if value is None else value * 1000
