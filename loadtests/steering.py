"""How much load there is while a run goes on: as its stages plan it, or as somebody asks for in its control file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import orjson
from locust.env import Environment
from locust.runners import MasterRunner

from loadtests.session import Session
from loadtests.users import locust_users

STEER = "splitsecond_steer"
AHEAD_S = 0.4  # a change of rate lies so far ahead that its message is with every worker before
STAGE_S = 0.5
MOVED_PER_S = 100  # users that come or go; Locust warns of more


class Steering:
    """On the master, or the only process."""

    def __init__(self, environment: Environment, session: Session, out: Path | None) -> None:
        self._environment, self._session, self._plan = environment, session, session.plan
        self._file = out / "control.json" if out is not None else None
        self._obeyed = ""
        self._moving = gevent.Greenlet()
        self._begun = False  # whether the plan's own users have been brought
        self._staged = bool(session.plan.stages)
        self._stage_ns = 0

    @property
    def users(self) -> int:
        """How many users there are to be on each backend, whoever has said so: the plan, this, or Locust's own page."""
        if self._plan.mode == "rate":
            return self._plan.users
        runner: Any = self._environment.runner
        return int(runner.target_user_count) // locust_users(self._plan, 1)

    def rate_at(self, at_ns: int) -> float | None:
        """Return an open loop's rate per second on each backend, None where there is none that could be steered."""
        if self._plan.mode != "rate" or not self._plan.schedule.steerable:
            return None
        return self._session.registry.schedule.rate_at(at_ns / 1e9)

    def look(self, at_ns: int) -> bool:
        """Do what is due at `at_ns` after the run's start; return False where the run is to be stopped."""
        wish = self._wish()
        if wish.get("stop"):
            return False
        if not self._begun and not self._begin():
            self._obeyed = ""  # that wish is for later
            return True
        self._obey(wish, at_ns)
        if self._staged and at_ns - self._stage_ns >= STAGE_S * 1e9:
            self._stage_ns = at_ns
            self._set_users(self._plan.users_at(at_ns / 1e9))
        return True

    def _begin(self) -> bool:
        """Bring the users of closed loops, as fast as the plan's ramp says; False while it is too early for that.

        Locust's own start brings none of them: nobody could break it off, and a wish that comes while its master still
        follows another one has two greenlets in one generator.
        """
        runner: Any = self._environment.runner
        if isinstance(runner, MasterRunner) and not runner.spawning_completed:
            return False
        self._begun = True
        plan = self._plan
        if plan.users and plan.mode != "rate":
            per_s = locust_users(plan, plan.users) / plan.ramp_s if plan.ramp_s else MOVED_PER_S
            self._set_users(plan.users, max(0.1, min(MOVED_PER_S, per_s)))
        return True

    def _wish(self) -> dict[str, Any]:
        """Return what the control file asks for, {} where that is nothing new or nothing that can be read (yet)."""
        try:
            text = self._file.read_text(encoding="utf-8") if self._file else ""
            wish = orjson.loads(text) if text != self._obeyed else {}
        except (OSError, ValueError):
            return {}
        self._obeyed = text
        return wish if isinstance(wish, dict) else {}

    def _obey(self, wish: dict[str, Any], at_ns: int) -> None:
        plan, backends = self._plan, max(1, len(self._plan.targets))
        users, rate = wish.get("users"), wish.get("rate")
        if isinstance(users, int) and plan.mode != "rate":
            self._staged = False
            self._set_users(max(0, min(users, plan.caps.users // backends)))
        if isinstance(rate, int | float) and self.rate_at(at_ns) is not None:
            self._set_rate(max(0.0, min(float(rate), plan.caps.rate / backends)), at_ns)

    def _set_users(self, users: int, per_s: float = MOVED_PER_S) -> None:
        if users == self.users:
            return
        count = locust_users(self._plan, users)
        runner: Any = self._environment.runner
        self._moving.kill()  # Locust's master takes no second wish while it still follows the first
        self._moving = gevent.spawn(runner.start, count, per_s)

    def _set_rate(self, rate: float, at_ns: int) -> None:
        """Change the schedule, here and on every worker, from one instant on."""
        from_s = max(0.0, at_ns / 1e9) + AHEAD_S
        self._session.registry.steer(from_s, rate)
        runner: Any = self._environment.runner
        if isinstance(runner, MasterRunner):
            runner.send_message(STEER, {"at_s": from_s, "rate": rate})
