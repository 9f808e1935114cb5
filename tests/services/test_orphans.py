"""Runs of processes that died: a start ends them, and no others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from django.utils import timezone

from webapp.models import Comparison, Turn
from webapp.services.owners import OWNER
from webapp.services.store import end_orphans

pytestmark = pytest.mark.usefixtures("rows")

HOST = socket.gethostname()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def run_of(owner: str, *, done: bool = False) -> str:
    run = Comparison.objects.create(created_at=timezone.now(), asked_by="page", prompt="x", owner=owner, done=done)
    Turn.objects.create(
        comparison=run, lane=0, created_at=run.created_at, backend_slug="b", label="b", model="m", badge="LIVE",
        outcome="done" if done else "running",
    )  # fmt: skip
    return run.id


def outcome(run_id: str) -> tuple[bool, str]:
    run = Comparison.objects.get(id=run_id)
    return run.done, run.turns.all()[0].outcome


def test_a_run_of_a_process_that_is_gone_becomes_interrupted() -> None:
    run = run_of(f"{HOST}:{dead_pid()}")
    assert end_orphans() == 1
    assert outcome(run) == (True, "interrupted")
    assert "Interrupted" in Comparison.objects.get(id=run).verdict["sentence"]
    assert end_orphans() == 0


def test_a_run_under_our_own_process_id_and_another_start_is_one_of_before() -> None:
    # In a container the server has the same id at every start.
    run = run_of(f"{HOST}:{os.getpid()}:1")
    assert end_orphans() == 1
    assert outcome(run) == (True, "interrupted")


MAY_BE_ALIVE = {
    "our own": OWNER,
    "its parent": f"{HOST}:{os.getppid()}",
    "the first process": f"{HOST}:1",
    "on another host": "another-host:1",
    "nobody": "",
    "nonsense": "nonsense",
    "without a number": f"{HOST}:",
}


@pytest.mark.parametrize("owner", MAY_BE_ALIVE.values(), ids=MAY_BE_ALIVE)
def test_a_run_that_may_still_be_alive_is_left_alone(owner: str) -> None:
    run = run_of(owner)
    assert end_orphans() == 0
    assert outcome(run) == (False, "running")


def test_what_ended_stays_as_it_ended() -> None:
    run = run_of(f"{HOST}:{dead_pid()}", done=True)
    assert end_orphans() == 0
    assert outcome(run) == (True, "done")
