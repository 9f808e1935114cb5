"""Synthetic users. Closed loops ask, read, think and ask again; open loops let requests leave on a schedule.

`CompletionsUser`, `ChatSocketUser` and `DirectUser` are plain Locust users and can be subclassed like any other.
"""

from __future__ import annotations

from random import Random
from typing import Any

import gevent  # type: ignore[import-untyped]
from gevent.event import Event  # type: ignore[import-untyped]
from locust import FastHttpUser, User, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.asking import Wire, ask
from loadtests.exchange import Exchange, Job
from loadtests.session import Session, session_of
from loadtests.websocket import Page
from webapp.clock import now_ns
from webapp.core.arrivals import Arrival
from webapp.core.loadplan import Plan, Target
from webapp.core.mixes import Question

NS_PER_S = 1_000_000_000
IDLE_S = 0.05
REFUSED_S = 0.05  # the shortest pause after an answer of which nothing came
PASSED_AT_ONCE = 1_000  # arrivals of a schedule that are passed over before others get a turn


def sleep_until(at_ns: int) -> None:
    """Sleep to an instant of the clock; return at once where it has passed."""
    left_ns = at_ns - now_ns()
    if left_ns > 0:
        gevent.sleep(left_ns / NS_PER_S)


def happened_by(event: Event, at_ns: int) -> bool:
    """Wait for an event to an instant of the clock; return whether it has happened."""
    left_ns = at_ns - now_ns()
    return bool(event.wait(left_ns / NS_PER_S) if left_ns > 0 else event.is_set())


def awaited_session(environment: Environment) -> Session:
    """Return the session of the test that begins. It may not be there yet on a worker, and never comes where the test
    could not be started, which ends its users."""
    while (session := session_of(environment)) is None:
        gevent.sleep(IDLE_S)
    return session


def pause_after(exchange: Exchange, pause_ns: int) -> int:
    """Return how long a user waits who means to pause: a backend that refuses at once is not asked again at once."""
    refused = exchange.verdict != "left" and not exchange.deltas
    return max(pause_ns, round(REFUSED_S * NS_PER_S)) if refused else pause_ns


class Dialogue:
    """One user's conversation with one backend: which question comes next, and what was said before it."""

    def __init__(self, session: Session, target: Target, number: int) -> None:
        self.session, self.target, self.number = session, target, number
        self.place = 0
        self._history: list[dict[str, Any]] = []
        self._previous = ""
        self._random = Random(f"user {session.plan.seed} {number}")  # noqa: S311 (seeded draws, not secrets)

    def job(self, intended_ns: int, arrival: Arrival | None = None, pair: int | None = None) -> Job:
        """Return the next request."""
        registry, place = self.session.registry, self.place
        lengths = (arrival.input_tokens, arrival.output_tokens) if arrival else (None, None)
        question: Question = registry.mix.question(self.session.plan.seed, self.number, place, *lengths)
        if question.opens:
            self._history, self._previous = [], ""
        self.place += 1
        return Job(
            self.target,
            question,
            intended_ns,
            number=self.number if arrival else place,
            user=self.number,
            turn=place,
            pair=pair,
            history=tuple(self._history),
            previous=self._previous,
            patience_ns=self._patience_ns(),
        )

    def heard(self, exchange: Exchange) -> None:
        """Remember the answer for the rest of the conversation."""
        job = exchange.job
        if self.session.registry.mix.turns > 1:
            self._previous = exchange.text
            self._history += [
                {"role": "user", "content": job.prompt},
                {"role": "assistant", "content": exchange.text},
            ]

    def pause_ns(self) -> int:
        """Draw a think time, exponential around its mean."""
        mean_s = self.session.plan.behaviour.think_s
        return round(self._random.expovariate(1 / mean_s) * NS_PER_S) if mean_s else 0

    def _patience_ns(self) -> int | None:
        mean_s = self.session.plan.behaviour.patience_s
        return round(self._random.expovariate(1 / mean_s) * NS_PER_S) if mean_s else None


class ClosedLoop(User):
    """One conversation after the other, each question as soon as the user is ready."""

    abstract = True
    target: Target | None = None  # set by `classes_of`; without, users are dealt to the backends in turn
    asking = False

    def on_start(self) -> None:
        session = awaited_session(self.environment)
        targets = session.plan.targets
        number = session.registry.next_user(self.target.slug if self.target else "")
        target = self.target or targets[number % len(targets)]
        self.session = session
        self.dialogue = Dialogue(session, target, number)
        self.wire: Wire = session.wires.wire(target)
        self.ready_ns = 0

    def on_stop(self) -> None:
        if isinstance(wire := self.__dict__.get("wire"), Page):  # a user who never began has none
            wire.close()

    def stop(self, force: bool = False) -> bool:
        """Leave, as Locust's runner has it when a load is made smaller: at once between two answers; else this is one
        user less from now on, who hears the answer out. Cut short, it would be missing from the percentiles.
        """
        if not self.asking:
            return bool(super().stop(force))
        self.group.discard(self.greenlet)
        self.session.registry.children.add(self.greenlet)  # where the end of the run finds it
        return bool(super().stop())

    @task
    def turn(self) -> None:
        registry = self.session.registry
        registry.started.wait()
        if not self.ready_ns:
            self.ready_ns = max(registry.t0_ns, now_ns())
        sleep_until(self.ready_ns)
        if registry.over:
            raise StopUser()
        self.asking = True
        exchange = ask(self.environment, registry, self.wire, self.dialogue.job(self.ready_ns))
        self.asking = False
        self.dialogue.heard(exchange)
        self.ready_ns = now_ns() + pause_after(exchange, self.dialogue.pause_ns())


class CompletionsUser(ClosedLoop, FastHttpUser):
    """A user of the machine wire: POST /v1/chat/completions, streamed."""

    insecure = False


class DirectUser(ClosedLoop, FastHttpUser):
    """A user of a backend's own URL: what the app in between costs shows against this."""

    insecure = False


class ChatSocketUser(ClosedLoop):
    """A user of the page's WebSocket."""


class PairUser(User):
    """Asks all backends the same question at the same instant, and again when the slowest has answered."""

    def on_start(self) -> None:
        session = awaited_session(self.environment)
        self.session = session
        number = session.registry.next_user("")
        self.dialogues = [Dialogue(session, target, number) for target in session.plan.targets]
        self.wires = [session.wires.wire(target) for target in session.plan.targets]
        self.ready_ns = 0

    @task
    def turn(self) -> None:
        registry = self.session.registry
        registry.started.wait()
        self.ready_ns = max(self.ready_ns, registry.t0_ns, now_ns())
        sleep_until(self.ready_ns)
        if registry.over or not registry.claim(len(self.dialogues)):
            raise StopUser()
        first = self.dialogues[0]
        pair = first.number * 1_000_000 + first.place
        order = shuffled(self.session.plan.seed, pair, len(self.dialogues))
        jobs = [dialogue.job(self.ready_ns, pair=pair) for dialogue in self.dialogues]
        asked = [registry.children.spawn(ask, self.environment, registry, self.wires[k], jobs[k]) for k in order]
        gevent.joinall(asked)
        pause_ns = first.pause_ns()
        for k, greenlet in zip(order, asked, strict=True):
            if isinstance(exchange := greenlet.value, Exchange):
                self.dialogues[k].heard(exchange)
                pause_ns = pause_after(exchange, pause_ns)
        self.ready_ns = now_ns() + pause_ns


class OpenLoop(User):
    """One dispatcher per process: lets requests leave when the schedule says, however many are still running."""

    def on_start(self) -> None:
        session = awaited_session(self.environment)
        if session.registry.next_user("dispatcher") >= session.registry.workers:
            Event().wait()  # one dispatcher is enough; this user waits until it is ended
        self.session = session
        self._free: dict[str, list[Wire]] = {}

    @task
    def dispatch(self) -> None:
        registry = self.session.registry
        registry.started.wait()
        last: int | None = -1
        while last is not None:
            last = self._walk(last)
        registry.children.join()
        registry.exhausted = True
        raise StopUser()

    def _walk(self, last: int) -> int | None:
        """Follow the schedule from after arrival `last`, to its end or to where it is changed.

        Returns the last arrival that left, None where no more are to come.
        """
        registry, plan = self.session.registry, self.session.plan
        steered = registry.steered
        share = registry.schedule.share(plan.seed, plan.duration_s, registry.worker, registry.workers)
        for arrival in share:
            if arrival.number <= last:
                if arrival.number % PASSED_AT_ONCE < registry.workers:
                    gevent.sleep(0)
                continue
            at_ns = registry.t0_ns + arrival.at_ns
            if happened_by(steered, at_ns):
                return last
            if registry.full:
                return None
            last = arrival.number
            for k in shuffled(plan.seed, arrival.number, len(plan.targets)):
                registry.children.spawn(self._converse, plan.targets[k], arrival, at_ns)
        end_ns = registry.t0_ns + round(plan.duration_s * NS_PER_S)
        return last if registry.schedule.steerable and happened_by(steered, end_ns) else None

    def on_stop(self) -> None:
        if (session := session_of(self.environment)) is not None:
            session.registry.children.kill(block=False)

    def _converse(self, target: Target, arrival: Arrival, at_ns: int) -> None:
        """Be one user who comes, asks (all turns of a conversation) and goes."""
        session, registry = self.session, self.session.registry
        free = self._free.setdefault(target.slug, [])
        wire = free.pop() if free else session.wires.wire(target)
        dialogue = Dialogue(session, target, arrival.number)
        for turn in range(registry.mix.turns):
            if turn:
                at_ns = now_ns() + dialogue.pause_ns()
                sleep_until(at_ns)
            if registry.full or (turn and registry.over):  # who came in time asks once, however late that has become
                break
            exchange = ask(self.environment, registry, wire, dialogue.job(at_ns, arrival, arrival.number))
            dialogue.heard(exchange)
            if exchange.verdict:
                break
        free.append(wire)


WIRE_CLASSES: dict[str, type[User]] = {"sse": CompletionsUser, "ws": ChatSocketUser, "direct": DirectUser}


def classes_of(plan: Plan) -> dict[str, type[User]]:
    """Return the user classes of a plan by name. Closed loops have one per backend, which Locust keeps in balance
    over all its workers."""
    if plan.mode == "rate":
        return {"OpenLoop": OpenLoop}
    if plan.mode == "pairs":
        return {"PairUser": PairUser}
    base = WIRE_CLASSES[plan.wire]
    named = {f"{base.__name__}_{place}": target for place, target in enumerate(plan.targets)}
    return {name: type(name, (base,), {"target": target, "host": target.url}) for name, target in named.items()}


def locust_users(plan: Plan, users: int) -> int:
    """Return how many Locust users a plan with `users` synthetic users per backend needs."""
    if plan.mode == "rate":
        return plan.workers
    return users if plan.mode == "pairs" else users * len(plan.targets)


def shuffled(seed: int, number: int, count: int) -> list[int]:
    """Return 0..count-1 in an order of its own for each number, so that no backend is always asked first."""
    order = list(range(count))
    Random(f"order {seed} {number}").shuffle(order)  # noqa: S311 (seeded draws, not secrets)
    return order
