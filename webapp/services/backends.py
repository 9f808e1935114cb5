"""What can be done with a backend: add, edit, remove, seed, and test with one real request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import slugify

from webapp.backends import KINDS, keys
from webapp.backends.recording import PREFIX
from webapp.core.errors import Outcome
from webapp.core.openai import reasoning_fields
from webapp.core.recording import Recording
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.models import Backend, Turn
from webapp.services.turns import LiveTurn, run_turn
from webapp.services.upstreams import upstreams
from webapp.simulator.profile import Profile, load_all

EDITABLE_KINDS = tuple(kind for kind in KINDS if kind != "recording")  # recordings are made from a turn
PROBE_PROMPT = "Count from one to twenty in words."
PROBE_TOKENS = 64
PROBE_S = 20.0
# The four that the page opens with: two of them the same model, so that one comparison is fair from the start.
FIRST_LANES = ("wse3-gpt-oss-120b", "b200-gpt-oss-120b", "h100x2-gpt-oss-120b", "h100x2-llama-70b")


def check_url(url: str) -> str:
    """Return `url` without a trailing slash; raise ValidationError with one sentence where it cannot be used."""
    cleaned = url.strip().rstrip("/")
    try:
        parts = urlsplit(cleaned)
        port = parts.port
    except ValueError:
        raise ValidationError(f"{url!r} is not a URL; it looks like http://127.0.0.1:8080/v1.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValidationError("The URL has to begin with http:// or https:// and name a host.")
    if parts.username or parts.password or parts.query or parts.fragment or re.search(r"[\s\\\x00-\x1f]", cleaned):
        raise ValidationError("The URL may hold no user name, password, query, fragment, space or backslash.")
    if cleaned.endswith("/chat/completions"):
        raise ValidationError("Give the API's base URL, which ends before /chat/completions (mostly in /v1).")
    return cleaned


def check_kind(kind: str) -> str:
    """Return `kind`; raise ValidationError with one sentence where an operator cannot choose it."""
    if kind not in EDITABLE_KINDS:
        raise ValidationError(f"There is no kind {kind!r}; there are: {', '.join(EDITABLE_KINDS)}.")
    return kind


def check_key(reference: str) -> str:
    """Return `reference`; raise ValidationError with one sentence where it names no place of a key."""
    try:
        keys.check_reference(reference)
    except ValueError as error:
        raise ValidationError(str(error)) from None
    return reference


def save(backend: Backend) -> Backend:
    """Check and save a backend, new or edited.

    A key belongs to the host it was given for: where the URL's scheme, host or port changes and the reference to the
    key does not, the reference is cleared, so that nobody can send a key elsewhere by editing an address.
    Raises ValidationError with all that is wrong, each by its field.
    """
    checks = {"kind": check_kind, "key_ref": check_key, "base_url": check_url}
    if backend.badge == "SIMULATED" and not backend.base_url:
        del checks["base_url"]
    wrong = {}
    for field, check in checks.items():
        try:
            setattr(backend, field, check(getattr(backend, field)))
        except ValidationError as error:
            wrong[field] = error.messages
    if wrong:
        raise ValidationError(wrong)
    before = Backend.objects.filter(pk=backend.pk).first() if backend.pk else None
    if before and _origin(before.base_url) != _origin(backend.base_url) and before.key_ref == backend.key_ref:
        backend.key_ref = ""
    backend.full_clean()
    backend.save()
    return backend


def record(turn: Turn) -> Backend:
    """Keep a finished answer as a backend of its own: a lane that plays it again with its timing, badge RECORDED.

    Raises ValidationError for an answer that did not reach its end, or one that was not live or simulated itself.
    """
    if turn.outcome != Outcome.DONE or not turn.deltas or turn.marks_ns.get("sent") is None:
        raise ValidationError("Only an answer that reached its end can be recorded.")
    sent_ns = turn.marks_ns["sent"]
    usage = turn.usage or {}
    recording = Recording(
        model=turn.model,
        headers_ns=(turn.marks_ns.get("headers") or sent_ns) - sent_ns,
        pieces=tuple((at_ns - sent_ns, kind, text) for at_ns, kind, text, _ in turn.deltas),
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        finish_reason=turn.finish_reason,
    )
    folder = settings.VAR_DIR / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{turn.id}.json"
    path.write_bytes(recording.to_json())
    made, _ = Backend.objects.update_or_create(
        slug=f"rec-{slugify(turn.id)[:40]}",
        defaults={
            "label": turn.label,
            "kind": "recording",
            "badge": "RECORDED",
            "base_url": f"{PREFIX}{path}",
            "model": turn.model,
            "source": f"Recorded {turn.created_at:%Y-%m-%d %H:%M} UTC from a lane that was {turn.badge}. {turn.source}",
        },
    )
    return made


def remove(slug: str) -> bool:
    """Remove a backend; its turns stay. False where there is none."""
    return bool(Backend.objects.filter(slug=slug).delete()[0])


def seed() -> int:
    """Make or refresh the simulator's backends, one for each profile; return how many are new. Yours stay untouched."""
    new = 0
    with transaction.atomic():
        for place, profile in enumerate(load_all().values()):
            new += _seed_one(profile, place)
    return new


def _seed_one(profile: Profile, place: int) -> int:
    first = FIRST_LANES.index(profile.slug) if profile.slug in FIRST_LANES else len(FIRST_LANES) + place
    values = {
        "label": profile.label,
        "model": profile.slug,
        "model_family": profile.family,
        "source": f"{profile.source} ({profile.date}); {profile.error}.",
        "price_in_usd_per_mtok": profile.price_in_usd,
        "price_out_usd_per_mtok": profile.price_out_usd,
        "position": first,
    }
    slug = slugify(profile.slug.replace(".", "-"))  # a model's name may hold a dot; addresses and selectors may not
    taken = Backend.objects.filter(slug=slug).exclude(badge="SIMULATED", base_url="").exists()
    if taken:
        return 0
    _, created = Backend.objects.update_or_create(slug=slug, badge="SIMULATED", base_url="", defaults=values)
    return int(created)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of a test: `state` is "ok", "warn", "bad" or "unknown"."""

    name: str
    label: str
    text: str
    state: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What one real request found out about a backend."""

    slug: str
    ok: bool
    summary: str
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, Any]:
        checks = {check.name: {"text": check.text, "state": check.state} for check in self.checks}
        return {"backend": self.slug, "ok": self.ok, "summary": self.summary, "checks": checks}


async def probe(spec: BackendSpec) -> Probe:
    """Send one short streaming request and report what the backend does; never raises for the backend's faults."""
    limits = replace(spec.limits, first_byte_s=PROBE_S, gap_s=PROBE_S, total_s=2 * PROBE_S)
    prompt = PromptSpec(({"role": "user", "content": PROBE_PROMPT},), max_tokens=PROBE_TOKENS, temperature=0.0)
    turn = LiveTurn(replace(spec, limits=limits), prompt)
    turn.meter.chunks = []
    await run_turn(turn, upstreams.client(spec))
    ok = turn.outcome is Outcome.DONE
    summary = _summary(turn) if ok else turn.error.message if turn.error else "The test was stopped."
    return Probe(spec.slug, ok, summary, tuple(_checks(turn)))


def _summary(turn: LiveTurn) -> str:
    figures = turn.figures()
    if figures.ttft_ms is None:
        return "The backend answered with an empty stream."
    rate = f", then {figures.tok_s:.0f} tok/s" if figures.tok_s else ""
    return f"It works: first token after {figures.ttft_ms:.0f} ms{rate}."


def _checks(turn: LiveTurn) -> Sequence[Check]:
    marks, meter, figures = turn.marks, turn.meter, turn.figures()
    reached = marks.sent is not None
    checks = [Check("reachable", "Reachable", "yes" if reached else "no", "ok" if reached else "bad")]
    secure = turn.spec.base_url.startswith("https://")
    tls = "yes, certificate accepted" if secure and reached else "yes" if secure else "no: plain HTTP"
    checks.append(Check("tls", "TLS", tls, "ok" if secure and reached else "unknown" if secure else "warn"))
    headers = figures.headers_ms
    text = "n/a" if headers is None else f"{headers:.1f} ms"
    checks.append(Check("headers", "Time to headers", text, "unknown" if headers is None else "ok"))
    if turn.outcome is not Outcome.DONE and not meter.deltas:
        return checks
    exact = figures.tokens_source == "usage"
    usage = "yes, token counts are exact" if exact else "no: token counts will be estimates (~)"
    checks.append(Check("usage", "Usage in the stream", usage, "ok" if exact else "warn"))
    fields = next((found for chunk in meter.chunks or () if (found := reasoning_fields(chunk))), [])
    text = f"streamed apart, in the field {' and '.join(fields)}" if fields else "none seen"
    checks.append(Check("reasoning", "Reasoning", text, "ok"))
    per_chunk = figures.tokens_per_chunk
    text = "n/a" if per_chunk is None else f"{per_chunk:.1f}" + ("" if exact else " (estimated)")
    checks.append(Check("tokens_per_chunk", "Tokens per chunk", text, "unknown" if per_chunk is None else "ok"))
    marker = "[DONE]" if meter.marker else "finish_reason only" if meter.finish_reason else "none"
    checks.append(Check("end", "Stream end marker", marker, "ok" if meter.marker else "warn"))
    vendors = ", ".join(meter.server_times) or "none"
    checks.append(Check("server_times", "Server-side times", vendors, "ok" if meter.server_times else "unknown"))
    if turn.simulated:
        checks.append(Check("simulated", "Simulated", "the server says that it only plays a model", "warn"))
    return checks


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
