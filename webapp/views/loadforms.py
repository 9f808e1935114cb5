"""The form of a new load run, in the drawer and on the list page: its choices, its values, and what they ask for.

Each kind of run has fields of its own; those of the others are kept as they were typed, and not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

from django import forms
from django.http.request import QueryDict

from webapp.core import mixes, slo
from webapp.core.loadplan import CAPS, KINDS, MOST_LOADS
from webapp.core.mixes import NAMED
from webapp.core.slo import PRESETS
from webapp.models import Backend, LoadRun
from webapp.services.loadplans import Refusal, Wishes
from webapp.services.scenarios import scenarios
from webapp.views.loadcontexts import WIRES
from webapp.views.loadwords import kind_of

DRAWER_WARMUP_S = 2.0
MOST_BACKENDS = 8
FIRST_CHOSEN = 2  # backends, where nobody has chosen any yet
KIND_WORDS = (
    ("run", "Steady load", "How fast is it while so many use it?"),
    ("search", "Search", "How many users does it serve well?"),
    ("sweep", "Sweep", "What does more load cost?"),
    ("ab", "A against B", "Which is faster, by how much?"),
)
MIX_LABELS = {
    "chat": "chat: short questions, 120 tokens",
    "conversation": "conversation: 1k in, 211 out",
    "code": "code: 2k in, 28 out",
    "8k": "8k-token prompts, 200 out",
    "8k-prefix": "8k-token prompts, shared beginning",
    "one-token": "one token",
}
ARRIVALS = (
    ("closed", "closed: ask, read, ask again"),
    ("constant", "constant rate"),
    ("poisson", "Poisson"),
    ("gamma", "bursts (gamma)"),
)
DURATIONS = ((30, "30 s"), (60, "1 min"), (300, "5 min"), (900, "15 min"), (3600, "1 h"))
DEFAULTS = {
    "kind": "run", "users": "8", "rate": "2", "cv": "3", "arrival": "closed", "mix": "chat", "duration": "300",
    "wire": "sse", "slo": "", "think": "0", "title": "", "first": "1", "up_to": "64", "loads": "1, 2, 4, 8, 16",
    "step": "20",
}  # fmt: skip
COMMON = {"mix", "think", "wire", "slo", "title"}


def _number(what: str, low: float, high: float, *, whole: bool = False) -> forms.Field:
    """Return a field whose every fault is one sentence."""
    said = f"{what}: a {'whole ' if whole else ''}number from {low:,g} to {high:,.0f}."
    errors = dict.fromkeys(("required", "invalid", "min_value", "max_value"), said)
    if whole:
        return forms.IntegerField(min_value=round(low), max_value=round(high), error_messages=errors)
    return forms.FloatField(min_value=low, max_value=high, error_messages=errors)


class LoadForm(forms.Form):
    """What somebody asks for in the page. `wishes` after `is_valid`; else `problems`, each one sentence."""

    users = _number("Users", 0, CAPS.users, whole=True)
    rate = _number("Requests per second", 0.01, CAPS.rate)
    cv = _number("Burstiness", 0.05, 20)
    first = _number("Begin with", 1, CAPS.users, whole=True)
    up_to = _number("Go up to", 1, CAPS.users, whole=True)
    loads = forms.CharField(required=False)
    duration = _number("Seconds", 0.5, CAPS.duration_s)
    step = _number("Seconds of each run", 0.5, CAPS.duration_s)
    think = _number("Think time", 0, 600)
    mix = forms.CharField()
    wire = forms.ChoiceField(choices=list(WIRES.items()))
    slo = forms.CharField(required=False)
    title = forms.CharField(required=False, max_length=200)

    def __init__(self, post: QueryDict) -> None:
        super().__init__(DEFAULTS | {name: post.get(name, "") for name in DEFAULTS if name in post})
        self._backends = list(dict.fromkeys(post.getlist("backend")))
        self._drawer = "drawer" in post
        self.kind = self.data["kind"] if self.data["kind"] in KINDS else "run"
        closed = self.kind == "search" or self.data["arrival"] not in dict(ARRIVALS[1:])
        self.arrival = "" if closed else self.data["arrival"]
        for name in set(self.fields) - self._needed():
            del self.fields[name]

    def _needed(self) -> set[str]:
        """Return the names of the fields that the chosen kind and arrival look at."""
        found = COMMON | ({"cv"} if self.arrival == "gamma" else set())
        if self.kind == "search":
            return found | {"first", "up_to", "step"}
        if self.kind == "sweep":
            return found | {"loads", "step"}
        return found | {"rate" if self.arrival else "users", "duration"}

    def clean_loads(self) -> tuple[float, ...]:
        """Return the loads of a sweep, in the order in which they were written."""
        what, most = ("requests per second", CAPS.rate) if self.arrival else ("users", CAPS.users)
        try:
            found = tuple(float(part) for part in self.cleaned_data["loads"].replace(",", " ").split())
        except ValueError:
            found = ()
        in_range = all(isfinite(load) and 0 < load <= most for load in found)
        if not found or not in_range or not (self.arrival or all(load == round(load) for load in found)):
            raise forms.ValidationError(f"Loads: numbers of {what} up to {most:,.0f}, such as 1, 2, 4, 8.")
        if len(found) > MOST_LOADS or len(set(found)) < len(found):
            raise forms.ValidationError(f"Loads: at most {MOST_LOADS}, each of them once.")
        return found

    def clean_mix(self) -> str:
        return self._parsed("mix", lambda text: mixes.parse(text, scenarios()))

    def clean_slo(self) -> str:
        text = self._parsed("slo", slo.parse)
        if self.kind == "search" and not text:
            raise forms.ValidationError("A search needs an SLO, such as voice or ttft:500 tpot:50.")
        return text

    def _parsed(self, name: str, parse: Any) -> str:
        text = str(self.cleaned_data[name])
        try:
            parse(text)
        except ValueError as wrong:
            raise forms.ValidationError(str(wrong)) from None
        return text

    def clean(self) -> None:
        """Check what concerns several fields."""
        values, count = self.cleaned_data, len(self._backends)
        if not 1 <= count <= MOST_BACKENDS:
            self.add_error(None, forms.ValidationError(f"A load run needs 1 to {MOST_BACKENDS} backends.", "backend"))
            return
        if values.get("first", 0) > values.get("up_to", CAPS.users):
            self.add_error("up_to", "Go up to: no fewer users than to begin with.")
        for name, most in (("users", CAPS.users), ("rate", CAPS.rate)):
            if values.get(name, 0) * count > most:
                what = "users" if name == "users" else "requests per second"
                self.add_error(
                    name, f"At most {most / count:,.0f} on each of {count} backends: {most:,.0f} {what} in all."
                )

    @property
    def problems(self) -> dict[str, str]:
        """Return one sentence for each field that is wrong, those of no field under "backend" or ""."""
        found = {name: str(errors[0]) for name, errors in self.errors.items() if name != "__all__"}
        for error in self.errors.as_data().get("__all__", ()):
            found.setdefault(str(error.code or ""), str(error.messages[0]))
        return found

    def refuse(self, refused: ValueError) -> None:
        """Take in why what was asked for could not be run."""
        self.add_error(None, forms.ValidationError(str(refused), getattr(refused, "about", "")))

    def wishes(self) -> Wishes:
        """Return what was asked for; call `is_valid` first."""
        values = self.cleaned_data
        loads = values.get("loads", ())
        users = values.get("first", values.get("users", loads[0] if loads else 1))
        alone = self.kind == "ab" and len(self._backends) == 1
        return Wishes(
            backends=tuple(self._backends * 2 if alone else self._backends),
            kind=self.kind,
            wire=values["wire"],
            users=None if self.arrival else round(users),
            up_to=values.get("up_to", CAPS.users),
            loads=loads,
            rate=values.get("rate", loads[0] if loads else None) if self.arrival else None,
            arrival=self.arrival,
            cv=values.get("cv", 1.0),
            duration_s=values["duration" if "duration" in values else "step"],
            warmup_s=DRAWER_WARMUP_S if self._drawer else None,
            cooldown_s=0.0 if self._drawer else None,
            mix=values["mix"],
            slo=values["slo"],
            think_s=values["think"],
        )


def form(
    rows: Sequence[Backend],
    chosen: Sequence[str],
    values: Mapping[str, str],
    problems: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the context of `load/_fields.html`: what can be chosen, what is, and what is wrong with it."""
    chosen = [slug.partition("#")[0] for slug in chosen]  # "#2": the twin of a backend that was compared with itself
    order = {slug: place for place, slug in enumerate(dict.fromkeys(chosen))}
    rows = sorted(rows, key=lambda row: order.get(row.slug, len(order)))  # a run's letters follow the lanes'
    value = {**DEFAULTS, **values}
    return {
        "kinds": KIND_WORDS,
        "backends": [
            {"slug": row.slug, "label": row.label, "badge": row.badge, "chosen": row.slug in chosen} for row in rows
        ],
        "arrivals": ARRIVALS,
        "mixes": _mixes(value["mix"]),
        "durations": _durations(value["duration"]),
        "wires": list(WIRES.items()),
        "slos": [(name, preset.sentence) for name, preset in PRESETS.items()],
        "most_users": CAPS.users // max(1, len(chosen)),
        "value": value,
        "problems": problems or {},
        "first_problem": next(iter(problems), None) if problems else None,
    }


def first_chosen(rows: Sequence[Backend]) -> list[str]:
    """Return the backends that are ticked where nobody has ticked any yet."""
    return [row.slug for row in rows[:FIRST_CHOSEN]]


def values_of(run: LoadRun | None) -> dict[str, str]:
    """Return the form's values from which a run could be started again, {} of none."""
    if run is None:
        return {}
    plan, kind = run.plan, kind_of(run)
    schedule = plan.get("schedule", {})
    rates = [rate for _, rate in schedule.get("rates", [])]
    users, duration = str(plan.get("users", 1)), f"{plan.get('duration_s', 300):g}"
    found = {
        "kind": kind,
        "cv": f"{schedule.get('cv', 3):g}" if schedule.get("kind") == "gamma" else DEFAULTS["cv"],
        "arrival": schedule.get("kind", "poisson") if run.mode == "rate" else "closed",
        "mix": plan.get("mix", "chat"),
        "wire": run.wire,
        "slo": plan.get("slo", ""),
        "think": f"{plan.get('behaviour', {}).get('think_s', 0):g}",
    }
    if kind == "search":
        return found | {"first": users, "up_to": str(plan["up_to"]), "step": duration}
    if kind == "sweep":
        return found | {"loads": ", ".join(f"{load:g}" for load in plan["loads"]), "step": duration}
    return found | {"users": users, "duration": duration} | ({"rate": f"{max(rates):g}"} if rates else {})


def steering(post: QueryDict) -> dict[str, float]:
    """Return what a slider asks of a running load. Raises Refusal."""
    name = "rate" if "rate" in post else "users"
    try:
        found = float(post.get(name, ""))
    except ValueError:
        found = nan
    if not isfinite(found):
        raise Refusal(f"{name.capitalize()} has to be a number, not {post.get(name, '')[:20]!r}.")
    return {name: max(0.0, found) if name == "rate" else max(0, round(found))}


def _mixes(value: str) -> list[tuple[str, str]]:
    """Return the mixes that can be chosen, that of a run from the command line among them."""
    found = [(name, MIX_LABELS[name]) for name in NAMED]
    found += [(f"scenario:{slug}", f"scenario: {item.title.lower()}") for slug, item in scenarios().items()]
    return found if value in dict(found) else [*found, (value, value)]


def _durations(value: str) -> list[tuple[str, str]]:
    found = [(str(seconds), words) for seconds, words in DURATIONS]
    return found if value in dict(found) else [*found, (value, f"{value} s")]
