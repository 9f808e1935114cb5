"""Which run a Locust environment is in. Every process of a run has one; a new test gets a new registry."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from locust.env import Environment

from loadtests.asking import Wires
from loadtests.registry import Registry
from webapp.core.loadplan import Plan


class Session:
    """The plan, and the registry and connections of the test that runs."""

    def __init__(self, plan: Plan, worker: int = 0, workers: int = 1) -> None:
        self.plan = plan
        self.registry = Registry(plan, worker, workers)
        self.wires = Wires(self.registry)


_sessions: WeakKeyDictionary[Environment, Session] = WeakKeyDictionary()


def open_session(environment: Environment, plan: Plan, worker: int = 0, workers: int = 1) -> Session:
    """Replace the environment's session by a new one."""
    old = _sessions.get(environment)
    if old is not None:
        old.registry.close()
    _sessions[environment] = session = Session(plan, worker, workers)
    return session


def session_of(environment: Environment) -> Session | None:
    return _sessions.get(environment)
