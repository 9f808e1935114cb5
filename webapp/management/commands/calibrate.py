"""`manage.py calibrate`: three probes of a real endpoint, and a profile that behaves like it."""

from __future__ import annotations

import asyncio
import tomllib
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp import queries
from webapp.core.errors import Outcome
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.management.interrupts import Interrupts
from webapp.management.readiness import prepare_database
from webapp.models import Backend
from webapp.services.children import NotStarted, simulator_for
from webapp.services.turns import LiveTurn, run_turn
from webapp.services.upstreams import upstreams
from webapp.simulator.calibrate import LONG, MANY, SHORT, Fit, Forecast, Probe, forecast, solve
from webapp.simulator.calibrate_profile import error_of, profile_text
from webapp.simulator.hardware import PRECISIONS, Serving
from webapp.simulator.paces import with_both
from webapp.simulator.profile import (
    PROFILE_DIR,
    Catalogue,
    Profile,
    ProfileError,
    from_table,
    load_all,
    slug_of,
)
from webapp.simulator.profile_checks import check_serving, without_unread

WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "granite", "harbour", "island", "juniper", "kelp")
TOKENS = 128
MANY_TOKENS = 1024  # where prompts pass one by one, answers must be long for all to be under way at once
REPEATS = {SHORT: 5, LONG: 3, MANY: 3}  # odd: a host that stalls once does not move a median


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask."""

    users: int
    long_tokens: int
    output_tokens: int
    full_length: bool = True  # ask for it: servers other than vLLM and its kin may not know how


class Command(BaseCommand):
    help = "Probe an endpoint (one short prompt, one long, many at once) and write a profile that behaves like it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--backend", required=True, metavar="SLUG", help="the backend to probe")
        parser.add_argument("--out", required=True, type=Path, metavar="FILE.toml", help="where the profile goes")
        parser.add_argument("--machine", help="what it runs on, such as h100 (default: that of a simulated backend)")
        parser.add_argument("--model", help="the model card, such as llama-70b (default: by the model's name)")
        parser.add_argument("--devices", type=int, help="how many of the machine (default 1)")
        parser.add_argument("--precision", choices=PRECISIONS, help="of the weights (default fp8)")
        parser.add_argument("--users", type=int, default=32, help="at once in the third probe (default %(default)s)")
        parser.add_argument("--long-tokens", type=int, default=8000, help="of the long prompt (default %(default)s)")
        parser.add_argument(
            "--tokens", type=int, help=f"of each answer (default {TOKENS}, on a latency machine {MANY_TOKENS})"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        prepare_database()
        backend = queries.backend(options["backend"])
        if backend is None:
            raise CommandError(f"There is no backend {options['backend']!r}; see: manage.py backend list")
        start, known = _start(backend, options)
        _check_place(options["out"])
        if options["tokens"] is None:
            options["tokens"] = MANY_TOKENS if start.machine.kind == "latency" else TOKENS
        plan = Plan(
            users=_from(options, "users", 2, 512),
            long_tokens=_from(options, "long_tokens", 500, 200_000),
            output_tokens=_from(options, "tokens", 20, 4096),
        )
        try:
            with Interrupts() as interrupts, simulator_for([queries.spec_of(backend)]) as (spec,):
                probes = interrupts.run(_measure(spec, plan, self.stdout.write))
        except NotStarted as problem:
            raise CommandError(str(problem)) from None
        fit = solve(start, probes)
        beyond = forecast(fit, probes)
        text = _text(backend, known, fit, probes, beyond)
        try:
            from_table({"slug": "calibrated", **tomllib.loads(text)}, "the new profile")  # what is written can be read
        except ProfileError as problem:
            raise CommandError(f"What was measured makes no profile. {problem}.") from None
        try:
            options["out"].write_text(text, encoding="utf-8")
        except OSError as problem:
            raise CommandError(f"{options['out']} cannot be written: {problem.strerror}.") from None
        self._report(fit, beyond, options["out"])

    def _report(self, fit: Fit, beyond: Forecast, out: Path) -> None:
        serving, machine = fit.serving, fit.serving.machine
        self.stdout.write(f"time per layer          {serving.layer_us:10.2f} µs")
        if machine.kind == "latency":
            self.stdout.write(f"prefill                 {serving.prefill_tok_s:10.0f} tok/s")
            self.stdout.write(f"pipeline slots          {serving.slots:10d}")
        else:
            share = getattr(machine, f"{serving.arithmetic or serving.precision}_share")
            self.stdout.write(f"share of the arithmetic {share:10.3f}")
            self.stdout.write(f"cost of a sequence      {machine.sequence_us:10.2f} µs")
        self.stdout.write(f"front end               {fit.api_ms:10.2f} ms")
        self.stdout.write(f"error: {error_of(fit, beyond)}")
        self.stdout.write(f"Written to {out}. Serve it with: manage.py simulate --profiles {out.parent}")


def _start(backend: Backend, options: dict[str, Any]) -> tuple[Serving, Profile | None]:
    """Return what the fit starts from: a simulated backend's own serving, or what the options name."""
    known = with_both(load_all()).get(backend.model) if backend.badge == "SIMULATED" else None
    catalogue = Catalogue.load(PROFILE_DIR)
    machine = options["machine"] or (known.serving.machine.slug if known else "")
    model = options["model"] or (known.serving.model.slug if known else _named(catalogue, backend.model))
    for name, slug, there in (("machine", machine, catalogue.machines), ("model", model, catalogue.models)):
        if slug not in there:
            problem = f"there is no {slug!r}" if slug else f"what {backend.slug} is cannot be known from here"
            raise CommandError(f"--{name}: {problem}; name one of {', '.join(sorted(there))}.")
    serving = known.serving if known else Serving(catalogue.machines[machine], catalogue.models[model], 1, "fp8", 70.0)
    changed = {name: options[name] for name in ("devices", "precision") if options[name] is not None}
    changed |= {"machine": catalogue.machines[machine], "model": catalogue.models[model]}
    if catalogue.machines[machine].kind == "latency" and not serving.prefill_tok_s:
        changed["prefill_tok_s"] = 10_000.0
    start = without_unread(replace(serving, **changed))
    try:
        check_serving(f"{model} on {machine}", start)
    except ProfileError as problem:
        raise CommandError(f"{problem}; see --devices and --precision.") from None
    return start, known


def _check_place(out: Path) -> None:
    """Refuse a place where no profile can go, before the endpoint is asked for anything."""
    try:
        slug_of(out)
    except ProfileError as problem:
        raise CommandError(f"--out: {problem}.") from None
    if not out.parent.is_dir():
        raise CommandError(f"--out: there is no folder {out.parent}.")


def _named(catalogue: Catalogue, name: str) -> str:
    """Return the model card that a server's name for its model means, "" where none does."""
    for slug, model in catalogue.models.items():
        if name.casefold() in (slug, *(alias.casefold() for alias in model.names)):
            return slug
    return ""


def _from(options: dict[str, Any], name: str, low: int, high: int) -> int:
    value: int = options[name]
    if not low <= value <= high:
        raise CommandError(f"--{name.replace('_', '-')} wants a number from {low} to {high}.")
    return value


def _text(backend: Backend, known: Profile | None, fit: Fit, probes: Sequence[Probe], beyond: Forecast) -> str:
    serving = fit.serving
    names: dict[str, Any] = {
        "label": f"{backend.label} (calibrated)",
        "hardware": f"{serving.devices}×{serving.machine.label}",
        "family": backend.model_family or serving.model.slug,
    }
    if known and known.reasons:
        names |= {"reasoning_field": known.reasoning_field, "reasoning_tokens": known.reasoning_tokens}
    source = f"manage.py calibrate against {backend.slug}" + (", itself simulated" if known else "")
    return profile_text(names, fit, tuple(probes), beyond, source, f"{datetime.now(UTC):%Y-%m-%d}")


async def _measure(spec: BackendSpec, plan: Plan, say: Any) -> list[Probe]:
    """Send a request to warm up, then the three probes."""
    try:
        plan = await _warm_up(spec, plan)
        probes = []
        for name, users, prompt_tokens in ((SHORT, 1, 40), (LONG, 1, plan.long_tokens), (MANY, plan.users, 40)):
            probe = await _probe(spec, plan, name, users, prompt_tokens)
            say(
                f"{name:6} {users:3} × {probe.prompt_tokens:5} tokens: "
                f"TTFT {probe.ttft_s * 1e3:8.1f} ms, TPOT {probe.tpot_s * 1e3:8.3f} ms ±{probe.noise:.1%}"
            )
            probes.append(probe)
        return probes
    finally:
        await upstreams.close()


async def _warm_up(spec: BackendSpec, plan: Plan) -> Plan:
    """Send a request that counts for nothing; return the plan as this server can follow it."""
    (turn,) = await _turns(spec, plan, 1, 40, "warm-up")
    if turn.error is not None and turn.error.kind in ("bad_request", "http_status"):
        plan = replace(plan, full_length=False)
        (turn,) = await _turns(spec, plan, 1, 40, "warm-up again")
    _check(spec, turn)
    return plan


async def _probe(spec: BackendSpec, plan: Plan, name: str, users: int, prompt_tokens: int) -> Probe:
    """Return the median of a probe's repetitions, each the mean of its users."""
    ttfts, tpots, prompts, outputs = [], [], [], []
    for repetition in range(REPEATS[name]):
        turns = await _turns(spec, plan, users, prompt_tokens, f"{name} {repetition}")
        for turn in turns:
            _check(spec, turn)
        figures = [turn.figures() for turn in turns]
        ttfts.append(fmean(one.ttft_ms for one in figures if one.ttft_ms is not None))
        tpots.append(fmean(one.tpot_ms for one in figures if one.tpot_ms is not None))
        prompts.append(fmean(one.prompt_tokens or prompt_tokens for one in figures))
        outputs.append(fmean(one.output_tokens or plan.output_tokens for one in figures))
    noise = (max(tpots) - min(tpots)) / 2 / median(tpots)
    times = median(ttfts) / 1e3, median(tpots) / 1e3
    return Probe(name, users, round(median(prompts)), round(median(outputs)), *times, noise)


async def _turns(spec: BackendSpec, plan: Plan, users: int, prompt_tokens: int, name: str) -> list[LiveTurn]:
    """Send prompts that differ from their first word on, so that no prefix cache answers; return all that came."""
    turns = []
    for user in range(users):
        words = (WORDS[(place * 7 + user + place // 11) % len(WORDS)] for place in range(prompt_tokens * 3 // 5))
        messages = ({"role": "user", "content": f"{name}, {user}: go on with these words. {' '.join(words)}"},)
        prompt = PromptSpec(messages, max_tokens=plan.output_tokens, temperature=0.0, ignore_eos=plan.full_length)
        turns.append(LiveTurn(spec, prompt))
    client = upstreams.client(spec)
    await asyncio.gather(*(run_turn(turn, client) for turn in turns))
    return turns


def _check(spec: BackendSpec, turn: LiveTurn) -> None:
    if turn.outcome is not Outcome.DONE:
        raise CommandError(f"{spec.slug}: {turn.error.message if turn.error else turn.outcome}")
    if turn.figures().tpot_ms is None:
        raise CommandError(f"{spec.slug}: its answers are too short to be measured; choose more --tokens.")
