"""A run: one comparison while it happens. All lanes leave together, each in a task and on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.utils import timezone

from webapp.clock import now_ns
from webapp.core.errors import Outcome
from webapp.core.scenario import Scenario, Step
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.core.truth import Truth, emitted, truth
from webapp.core.verdict import LaneResult, Verdict, Warn, judge
from webapp.models import new_id
from webapp.services import store
from webapp.services.lanes import Lane
from webapp.services.looplag import loop_lag
from webapp.services.turns import LiveTurn
from webapp.services.upstreams import upstreams

log = logging.getLogger(__name__)

LETTERS = "ABCDEFGH"
WARM_S = 1.0
VERBS = {"caption_lag": "captioned", "agent": "finished the loop", "voice": "began to answer"}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a comparison asks of every lane. None: the backend's own default, nothing is sent."""

    prompt: str
    scenario: Scenario | None = None
    system: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    full_length: bool = False
    cold: bool = False
    order: str = "parallel"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of a scenario with several; else the prompt as it was typed."""
        if self.scenario is not None and len(self.scenario.steps) > 1:
            return self.scenario.steps
        return (Step(self.prompt),)

    def prompt_spec(self, messages: list[dict[str, Any]]) -> PromptSpec:
        """Return the request for `messages`, with the system prompt and, when cold, a nonce before everything."""
        system = self.system
        if self.cold:
            # At the very start: a prompt cache compares from the first token on.
            system = f"Request {secrets.token_hex(6)}. {system}".strip()
        head = [{"role": "system", "content": system}] if system else []
        return PromptSpec(
            messages=(*head, *messages),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            ignore_eos=self.full_length,
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings as they are stored and shown."""
        names = ("system", "max_tokens", "temperature", "top_p", "seed", "full_length", "cold")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Entry:
    """Who takes part: a lane's id on the page, its letter, its backend, and the conversation so far."""

    id: str
    letter: str
    spec: BackendSpec
    source: str = ""
    history: tuple[dict[str, Any], ...] = ()


@dataclass
class Run:
    """One comparison. Watchers register a callback, which is called (often) whenever there is something new."""

    ask: Ask
    entries: Sequence[Entry]
    asked_by: str = "page"
    keep: bool = True  # whether rows are written; a load test keeps its own records, of every request it makes
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=timezone.now)
    lanes: list[Lane] = field(default_factory=list)
    start_ns: int = 0
    verdict: Verdict | None = None
    watchers: list[Callable[[bool], None]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    before_start: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.lanes = [
            Lane(
                id=entry.id,
                letter=entry.letter,
                spec=entry.spec,
                steps=self.ask.steps,
                make_prompt=self.ask.prompt_spec,
                history=list(entry.history),
                source=entry.source,
                run_id=self.id,
            )
            for entry in self.entries
        ]

    def start(self) -> None:
        """Begin in the background; `wait` for the end."""
        self.task = asyncio.get_running_loop().create_task(self.execute(), name=f"run-{self.id}")

    async def wait(self) -> None:
        if self.task is not None:
            await asyncio.wait([self.task])

    def stop(self, outcome: Outcome = Outcome.STOPPED) -> None:
        """End every lane that still runs."""
        for lane in self.lanes:
            lane.stop(outcome)

    def notify(self, urgent: bool = False) -> None:
        for watcher in self.watchers:
            watcher(urgent)

    async def execute(self) -> None:
        """Run all lanes to their end, judge, and hand the rows to the writer."""
        store.begin(self)
        try:
            with loop_lag.watching():
                if not self.ask.cold and self.keep:  # a load test is not to send twice as many requests
                    await self._warm()
                if self.before_start is not None:
                    await self.before_start()
                self.start_ns = now_ns()
                if self.ask.order == "sequential":
                    for lane in self.lanes:
                        await self._launch([lane])
                else:
                    await self._launch(self.lanes)
                for turn in (turn for lane in self.lanes for turn in lane.turns):
                    turn.note_lag(loop_lag)
        finally:
            self.stop(Outcome.INTERRUPTED)
            try:
                self.verdict = self._judge()
            finally:
                store.finish(self)
                self.notify(True)

    async def _warm(self) -> None:
        """Open one connection for each lane beforehand, so that no lane's figures hold a handshake."""
        warming = [upstreams.client(lane.spec).warm(lane.spec, WARM_S) for lane in self.lanes]
        await asyncio.gather(*warming)

    async def _launch(self, lanes: Sequence[Lane]) -> None:
        """Start the tasks of `lanes` at one instant, wait for all, and leave none behind."""
        origin_ns = now_ns()
        for lane in lanes:
            if not lane.ended:
                lane.origin_ns = origin_ns
                work = lane.run(upstreams.client(lane.spec), self.notify)
                lane.task = asyncio.get_running_loop().create_task(work, name=f"lane-{lane.letter}")
        tasks = [lane.task for lane in lanes if lane.task is not None]
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    log.error("a lane failed through a defect of ours", exc_info=result)
            for lane in lanes:
                if not lane.ended:  # a task that is cancelled before its first step runs none of its code
                    lane.end(lane.stop_as)

    def _judge(self) -> Verdict:
        return verdict_on(self.lanes, self.ask)


def verdict_on(lanes: Sequence[Lane], ask: Ask) -> Verdict:
    """Return the verdict on ended lanes, by the figure that their scenario is about."""
    scenario = ask.scenario
    figure = scenario.figure if scenario else ""
    results = [result_of(lane, ask) for lane in lanes]
    # A voice turn is judged by its first words: its first token would say nearly the same again.
    verdict = judge(results, order=ask.order, what=VERBS.get(figure, "finished"), first_token=figure != "voice")
    if scenario is not None and scenario.budget_ms:
        verdict = replace(verdict, details=f"{_budget(lanes, scenario.budget_ms)} {verdict.details}".strip())
    origins = {lane.origin_ns for lane in lanes if lane.origin_ns}
    if ask.order == "parallel" and len(origins) > 1:
        apart = Warn("run again", "Not all lanes ran at the same time: at least one was run again alone.")
        verdict = replace(verdict, skew_ms=None, warnings=(apart, *verdict.warnings))
    return verdict


def _budget(lanes: Sequence[Lane], budget_ms: float) -> str:
    """Say who began to answer within the budget and who did not; a lane without an answer is in neither list."""
    first = [(lane.letter, lane.turns[0].figures().ttfo_ms) for lane in lanes if lane.turns]
    within = [letter for letter, ms in first if ms is not None and ms <= budget_ms]
    over = [letter for letter, ms in first if ms is not None and ms > budget_ms]
    parts = [
        f"{words} the budget of {budget_ms:.0f} ms: {', '.join(letters)}"
        for words, letters in (("within", within), ("over", over))
        if letters
    ]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def result_of(lane: Lane, ask: Ask) -> LaneResult:
    """Return a lane's part of the verdict, in ms."""
    first = lane.turns[0] if lane.turns else None
    figures = first.figures() if first else None
    lags = [turn.loop_lag_ns for turn in lane.turns if turn.loop_lag_ns is not None]
    sent = first.marks.sent if first else None
    return LaneResult(
        letter=lane.letter,
        label=lane.spec.label,
        model_family=lane.spec.model_family or lane.spec.model,
        badge=lane.badge,
        outcome=lane.outcome,
        ttft_ms=figures.ttft_ms if figures else None,
        total_ms=total_ms(lane, ask),
        output_tokens=sum(turn.figures().output_tokens or 0 for turn in lane.turns) or None,
        cached_tokens=figures.cached_tokens if figures else None,
        reused=first.reused if first else None,
        sent_ms=(sent - lane.origin_ns) / 1e6 if sent is not None else None,
        earlier=_earlier(first) if first else (),
        only_thought=any(turn.meter.deltas and turn.marks.first_output is None for turn in lane.turns),
        host_lag_ms=max(lags) / 1e6 if lags else None,
        server_late_ms=_server_late_ms(lane),
    )


def _earlier(first: LiveTurn) -> tuple[str, ...]:
    """Return the prompts of a conversation before the one that `first` sent."""
    prompts = [str(message.get("content")) for message in first.prompt.messages if message.get("role") == "user"]
    return tuple(prompts[:-1])


def _server_late_ms(lane: Lane) -> float | None:
    stamps = (emitted(turn.meter.server_times) for turn in lane.turns)
    return max((found.late_ns / 1e6 for found in stamps if found is not None), default=None)


def total_ms(lane: Lane, ask: Ask) -> float | None:
    """Return the figure that a comparison is about, in ms.

    Chat and code: end to end of the one answer. Voice: until the first words of the answer, when speech could begin.
    Agent: from the first request to the last step's last text. Live translation: the mean caption lag, from a
    sentence's last spoken word to the last text of its translation.
    """
    if not lane.turns or lane.outcome is not Outcome.DONE:
        return None
    if any(turn.marks.first_output is None for turn in lane.turns):
        return None  # an empty answer, or thoughts without one, are soon finished, and beat nobody
    if ask.scenario is not None and ask.scenario.figure == "caption_lag" and len(ask.steps) > 1:
        lags = caption_lags_ms(lane)
        return sum(lags) / len(lags) if lags else None
    if ask.scenario is not None and ask.scenario.figure == "voice":
        return lane.turns[0].figures().ttfo_ms
    sent, end_ns = lane.turns[0].marks.sent, lane.end_ns
    return (end_ns - sent) / 1e6 if sent is not None and end_ns is not None else None


def caption_lags_ms(lane: Lane) -> list[float]:
    """Return, for each finished step, the ms from when its text had been spoken to its answer's last text."""
    marks = [turn.marks for turn in lane.turns if turn.outcome is Outcome.DONE]
    return [(m.last_token - m.intended) / 1e6 for m in marks if m.last_token is not None and m.intended is not None]


def truth_of(turn: LiveTurn) -> Truth | None:
    """Return a whole answer's figures by its server's own stamps; None where it was not whole or bears none."""
    stamps = emitted(turn.meter.server_times) if turn.outcome is Outcome.DONE else None
    return truth(stamps, turn.figures()) if stamps is not None else None


def entries_for(specs: Sequence[tuple[BackendSpec, str]]) -> list[Entry]:
    """Return entries for a comparison without a page: lanes A, B, … in the given order."""
    pairs = zip(LETTERS, specs, strict=False)
    return [Entry(letter.lower(), letter, spec, source) for letter, (spec, source) in pairs]
