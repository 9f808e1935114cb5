"""Locust as a supervised process: fixed arguments, parameters in one file, a clean environment, a group of its own.

It ends with its parent (loadtests/__main__.py asks the kernel for that), with its control file, or by signals that get
firmer. Locust is never imported here: it would patch this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from webapp.core.loadplan import Plan

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
LEFT = (
    "control.json", "start.json", "summary.json", "charts.json", "vllm.json", "requests.jsonl", "live.jsonl",
    "report.html",
)  # fmt: skip
STOP_S, TERM_S, KILL_S = 4.0, 4.0, 2.0


def prepare(plan: Plan, folder: Path) -> Path:
    """Make a run's folder, with its parameters and nothing of an earlier run; return the file of parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LEFT:
        (folder / name).unlink(missing_ok=True)
    params = folder / "params.json"
    params.write_bytes(orjson.dumps(plan.checked().as_data()))
    return params


class LoadProcess:
    """One running Locust. Create it in a thread that outlives it: the kernel's parent is that thread."""

    def __init__(self, plan: Plan, folder: Path, keys: Mapping[str, str] | None = None) -> None:
        params = prepare(plan, folder)
        self.folder = folder
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | dict(keys or {})
        environment["SPLITSECOND_PARENT"] = str(os.getpid())
        with open(folder / "locust.log", "wb") as log:
            self.popen = subprocess.Popen(  # noqa: S603 (fixed arguments)
                [sys.executable, "-m", "loadtests", str(params.resolve()), str(folder.resolve())],
                cwd=settings.BASE_DIR,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def group(self) -> int:
        return self.popen.pid

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, or None where it still runs after `seconds`."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> int:
        """End it: first by asking, so that it writes its results, then by signals. Returns its exit code."""
        control(self.folder, {"stop": True})
        if self.wait(STOP_S) is None:
            kill_group(self.group, signal.SIGTERM)
            if self.wait(TERM_S) is None:
                kill_group(self.group, signal.SIGKILL)
        code = self.popen.wait(KILL_S)
        kill_group(self.group, signal.SIGKILL)  # workers that outlived the master
        return code


def control(folder: Path, wish: Mapping[str, Any]) -> None:
    """Tell a running load test something: {"users": N}, {"rate": R} or {"stop": true}. It looks ten times a second."""
    partial = folder / "control.json.part"
    partial.write_bytes(orjson.dumps(dict(wish)))
    partial.replace(folder / "control.json")


def kill_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def is_ours(group: int) -> bool:
    """Whether a process group of this number is a load test: its number may have come round again."""
    try:
        command = Path(f"/proc/{group}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"loadtests" in command
