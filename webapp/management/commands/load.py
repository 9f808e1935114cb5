"""`manage.py load`: a load test with Locust from the command line, with results as files and an exit code for CI."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser
from math import isfinite, nan
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from webapp import queries
from webapp.core.loadplan import CAPS, DETAILS, KINDS, WIRES, Plan
from webapp.core.loadsummary import INTERRUPTED, STOPPED, table
from webapp.core.slo import PRESETS
from webapp.management.readiness import prepare_database
from webapp.services import load, loadcharts, loadreport, loadsearch, loadverdict
from webapp.services.charts import write_all
from webapp.services.loadhost import whereabouts
from webapp.services.loadplans import Refusal, Wishes, plan, read_text
from webapp.services.loadprocess import LoadProcess, prepare
from webapp.services.loadresults import last_words, read_live, results

MODES = (*KINDS, "report", "charts")
WHAT = (
    "run (default); search: how many users; ab: paired comparison; sweep: throughput against interactivity; "
    "report: write report.html of --out again; charts: write its charts as SVG, PNG and PDF"
)
LOADS = ("users", "rate", "ramp", "steps", "stages", "trace")
MIX = "chat"
LOOK_S = 0.5
SAY_EVERY = 4  # looks
REASONS = "Exit codes: 0 pass, 1 errors in the run, 2 not run, 3 SLO missed, 4 not measurable."
REFUSED = 2


class Command(BaseCommand):
    help = "Load backends with synthetic users and write what was measured. " + REASONS

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("what", nargs="?", choices=MODES, default="run", help=WHAT)
        add("--backend", action="append", default=[], metavar="SLUG", help="repeat for more; each gets the same load")
        add("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
        add("--wire", choices=WIRES, default="sse", help="the app's machine wire, its page socket, or a backend's URL")
        add("--users", help="users on each backend, each asking again when answered (sweep: 1,2,4,…)")
        add("--rate", help="requests per second on each backend, open loop (sweep: 1,2,4,…)")
        add("--arrival", choices=("constant", "poisson", "gamma"), default="", help="of an open loop (default poisson)")
        add("--cv", type=float, default=2.0, help="coefficient of variation of gamma gaps (default %(default)s)")
        add("--ramp", default="", metavar="FROM:TO", help="open loop: requests per second from the start to the end")
        add("--steps", default="", metavar="R1,R2,…", help="open loop: equally long steps of requests per second")
        add("--stages", default="", metavar="L:T,L:T,…",
            help="10:30s,50:5m: to 10 users in 30 s, to 50 in 5 min; with --arrival, requests per second")  # fmt: skip
        add("--spike", default="", metavar="COUNT@SECONDS", help="so many requests at one instant")
        add("--trace", type=Path, metavar="CSV", help="replay times and lengths")
        add("--duration", type=float, metavar="S",
            help="seconds, of each run of a search or sweep (default 30, of a trace its length)")  # fmt: skip
        add("--warmup", type=float, metavar="S", help="cut from the beginning (default a tenth)")
        add("--cooldown", type=float, metavar="S", help="cut from the end (default a twentieth)")
        add("--grace", type=float, default=30.0, metavar="S", help="wait so long for answers that are still coming")
        add("--mix", default=MIX, help="chat, conversation, code, 8k, fixed:IN/OUT, uniform:A-B/A-B, normal:…, "
            "lognormal:…, scenario:SLUG; +prefix:TOKENS shares a beginning")  # fmt: skip
        add("--prompts", type=Path, metavar="FILE", help="your own prompts: JSON lines, or ShareGPT's JSON")
        add("--turns", type=int, default=1, help="questions in a conversation")
        add("--slo", default="", help=f"limits such as 'ttft:500 tpot:50 e2e:10000', or one of {', '.join(PRESETS)}")
        add("--workers", type=int, default=1, help="generator processes")
        add("--seed", type=int, default=0, help="the same seed asks the same questions at the same times")
        add("--think", type=float, default=0.0, metavar="S", help="mean pause of a user between questions")
        add(
            "--patience",
            type=float,
            default=0.0,
            metavar="S",
            help="mean patience with the first token",
        )
        add(
            "--slow-readers",
            type=float,
            default=0.0,
            metavar="B/S",
            help="read at most so many bytes a second (not over ws)",
        )
        add(
            "--reconnect",
            type=float,
            default=0.0,
            metavar="S",
            help="throw all sockets away every so often (needs --wire ws)",
        )
        add("--max-requests", type=int, default=CAPS.requests, metavar="N", help="end after so many, over all backends")
        add("--max-users", type=int, default=256, metavar="N", help="search: no more than this")
        add("--detail", choices=DETAILS, default="chunks", help="what requests.jsonl keeps (default %(default)s)")
        add("--url", default="", help="the web app to load (default: the one at HOST and PORT, else one of its own)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] in ("report", "charts"):
            self._again(options["what"], options["out"])
            return
        try:
            prepare_database(refresh=True)
        except CommandError as problem:
            raise CommandError(str(problem), returncode=REFUSED) from None
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell ignores SIGINT for what it starts in the background
            signal.signal(number, _as_interrupt)
        try:
            code = self._load(options)
        except Refusal as refused:
            raise CommandError(str(refused), returncode=REFUSED) from None
        except KeyboardInterrupt:
            code = 1
        sys.exit(code)

    def _load(self, options: dict[str, Any]) -> int:
        slugs = options["backend"]
        if not slugs:
            raise Refusal("Name a backend: --backend SLUG; see: manage.py backend list")
        if unknown := [slug for slug in slugs if queries.backend(slug) is None]:
            raise Refusal(f"There is no backend {unknown[0]!r}; see: manage.py backend list")
        _check_folder(options["out"])
        wishes = _wishes(options)
        with whereabouts(slugs, options["wire"], options["url"]) as where:
            made, keys = plan(wishes, where)
            make = self._series if made.is_series else self._run
            summary = make(made, options["out"], keys)
        out = options["out"]
        if summary["ended"] == STOPPED and summary["duration_s"] < made.duration_s and not made.is_series:
            summary = _cut_short(summary, made.duration_s)
            (out / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        loadreport.write(out, summary, results(out)[1])
        self._keep(options, summary)
        self._print(summary)
        return int(summary["exit_code"])

    def _series(self, made: Plan, folder: Path, keys: dict[str, str]) -> dict[str, Any]:
        """Make the runs of a search or a sweep and return the combined summary."""

        def step(part: Plan, where: Path) -> dict[str, Any]:
            try:
                return self._run(part.checked(), where, keys)
            except Refusal as failed:
                self._say(str(failed))
                return {"ended": INTERRUPTED}

        prepare(made, folder)
        summary = loadsearch.series(made, folder, step, self._say)
        if not summary:
            raise Refusal("Nothing was measured.")
        return summary

    def _run(self, made: Plan, folder: Path, keys: dict[str, str]) -> dict[str, Any]:
        """Run one plan to its end and return its summary; whatever ends this command ends the generator first."""
        process = LoadProcess(made, folder, keys)
        offset, looks = 0, 0
        try:
            while process.wait(LOOK_S) is None:
                lines, offset = read_live(folder, offset)
                looks += 1
                if lines and looks % SAY_EVERY == 0:
                    self._say(_progress(lines[-1]))
        except KeyboardInterrupt:
            self._say("Stopping…")
        finally:
            process.stop()
        summary, _, _ = results(folder)
        if not summary:
            raise Refusal(last_words(folder))
        return summary

    def _keep(self, options: dict[str, Any], summary: dict[str, Any]) -> None:
        """Keep the run among those that the page lists; a database that cannot is no reason to fail."""
        try:
            load.keep_finished(options["out"], summary)
        except DatabaseError as error:
            self.stderr.write(f"The run is not listed under /load/: {error}")

    def _again(self, what: str, out: Path) -> None:
        """Make files of results that are there."""
        summary, charts, _ = results(out)
        if not summary:
            raise CommandError(f"{out} holds no results of a load test.", returncode=REFUSED)
        if what == "report":
            self._say(str(loadreport.write(out, summary, charts)))
            return
        for path in write_all(out / "charts", loadcharts.named(summary, charts)):
            self._say(str(path))

    def _print(self, summary: dict[str, Any]) -> None:
        for line in table(summary):
            self.stdout.write(line)
        for sentence in loadverdict.sentences(summary):
            self.stdout.write(sentence)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _cut_short(summary: dict[str, Any], duration_s: float) -> dict[str, Any]:
    """Return a stopped run's summary as CI takes it: of the whole run, which alone could pass, nothing is known."""
    said = f"Stopped after {summary['duration_s']:.0f} of {duration_s:g} s."
    return {**summary, "exit_code": summary["exit_code"] or 4, "cut_short": said}


def _wishes(options: dict[str, Any]) -> Wishes:
    kind = options["what"]
    given = [f"--{name}" for name in LOADS if options[name]]
    if kind == "search" and (moved := [name for name in given if name != "--users"]):
        raise Refusal(f"A search moves the number of users itself; leave {' and '.join(moved)} out.")
    if len(given) > 1:
        raise Refusal(f"Give one of {' and '.join(given)}; each says how much load there is.")
    if options["stages"] and options["duration"]:
        raise Refusal("--stages say how long the run is; leave --duration out.")
    if options["prompts"] and options["mix"] != MIX:
        raise Refusal("Give one of --prompts and --mix; both say what is asked.")
    rates = [_number(part, "--rate") for part in _parts(options["rate"], kind)]
    users = [_whole(part, "--users") for part in _parts(options["users"], kind)]
    if 0 in users:
        raise Refusal("--users wants at least one.")
    if kind == "sweep" and not (rates or users):
        raise Refusal("A sweep needs --users 1,2,4,… or --rate 1,2,4,….")
    return Wishes(
        backends=tuple(options["backend"]),
        kind=kind,
        wire=options["wire"],
        users=users[0] if users else None,
        up_to=options["max_users"],
        loads=tuple(rates or map(float, users)) if kind == "sweep" else (),
        rate=rates[0] if rates else None,
        arrival=options["arrival"],
        cv=options["cv"],
        ramp=options["ramp"],
        steps=options["steps"],
        stages=options["stages"],
        spike=options["spike"],
        trace=read_text(options["trace"], "trace") if options["trace"] else "",
        duration_s=options["duration"],
        warmup_s=options["warmup"],
        cooldown_s=options["cooldown"],
        grace_s=options["grace"],
        mix=f"file:{options['prompts'].name}" if options["prompts"] else options["mix"],
        prompts=read_text(options["prompts"], "file of prompts") if options["prompts"] else "",
        turns=options["turns"],
        slo=options["slo"],
        workers=options["workers"],
        seed=options["seed"],
        think_s=options["think"],
        patience_s=options["patience"],
        read_bytes_per_s=options["slow_readers"],
        reconnect_s=options["reconnect"],
        max_requests=options["max_requests"],
        detail=options["detail"],
    )


def _parts(text: str | None, kind: str) -> list[str]:
    """Return the numbers of a list: a sweep has several."""
    if not text:
        return []
    return text.split(",") if kind == "sweep" else [text]


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not isfinite(value) or value < 0:
        raise Refusal(f"{name} wants a number from 0 up, not {text!r}.")
    return value


def _whole(text: str, name: str) -> int:
    value = _number(text, name)
    if value != round(value):
        raise Refusal(f"{name} wants a whole number, not {text!r}.")
    return round(value)


def _check_folder(path: Path) -> None:
    """Refuse at once where results could not be written in the end."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Refusal(f"Nothing can be written into --out {path}: {error.strerror}.") from None


def _progress(line: dict[str, Any]) -> str:
    parts = [f"{line['t_s']:6.1f} s"]
    for slug, figures in line["backends"].items():
        p50, p95 = (figures[name] for name in ("ttft_p50_ms", "ttft_p95_ms"))
        first = "TTFT n/a" if p50 is None else f"TTFT {p50:.0f}/{p95:.0f} ms"
        flow = f"{figures['output_tokens_per_s']:.0f} tok/s"
        parts.append(f"{slug} {first} {flow} {figures['running']}+{figures['waiting']}")
    return "   ".join(parts)


def _as_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
