"""Runs the load generator as a user's command does: a process of its own, parameters in a file, results in a folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from tests.hostwatch import Measurement, Patience, measurements
from tests.live import ROOT

END_S = 180  # only ends what hangs
STAMP = re.compile(r"@(\d{19}) ")


class Results:
    """What a run left in its folder."""

    def __init__(self, folder: Path, code: int | None = None) -> None:
        self.folder, self.code = folder, code

    @property
    def summary(self) -> dict[str, Any]:
        return self._json("summary.json")

    @property
    def records(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in (self.folder / "requests.jsonl").read_bytes().splitlines()]

    @property
    def live(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in (self.folder / "live.jsonl").read_bytes().splitlines()]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def block(self, slug: str) -> dict[str, Any]:
        found: dict[str, Any] = self.summary["backends"][slug]
        return found

    def at_ns(self, mark_us: int) -> int:
        """Return a mark on the clock of this machine; the generator counts from its run's start."""
        return int(self.summary["clock"]["t0_ns"]) + mark_us * 1000

    def _json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads((self.folder / name).read_bytes())
        return found


def plan(*targets: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    """Return parameters; targets are (slug, url, model). Short, and without warm-up unless told otherwise."""
    found = [{"slug": slug, "url": url, "model": model} for slug, url, model in targets]
    values = {"wire": "direct", "duration_s": 1.2, "warmup_s": 0.0, "cooldown_s": 0.0, "grace_s": 8.0, "seed": 5}
    return {"targets": found, **values, **more}


def prepare(folder: Path, parameters: dict[str, Any]) -> list[str]:
    """Write the file of parameters and return the arguments that name it and the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_bytes(orjson.dumps(parameters))
    return [str(folder / "params.json"), str(folder)]


def start(folder: Path, parameters: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "loadtests", *prepare(folder, parameters)]
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


@contextmanager
def ending(process: subprocess.Popen[bytes], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with the body, however that goes; where it fails, print what the process has logged."""
    try:
        yield process
    except BaseException:
        print(log.read_text(encoding="utf-8", errors="replace"))
        raise
    finally:
        process.kill()
        process.wait()


@contextmanager
def started(folder: Path, parameters: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run that ends with the body."""
    with ending(start(folder, parameters), folder / "log") as process:
        yield process


def run(folder: Path, parameters: dict[str, Any]) -> Results:
    with started(folder, parameters) as process:
        return Results(folder, process.wait(END_S))


def measured_in(folder: Path) -> Iterator[tuple[Measurement, Path]]:
    """Yield measurements, see tests/hostwatch.py, each with a folder of its own for its run."""
    for number, measurement in enumerate(measurements()):
        yield measurement, folder / str(number)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> bool:
    """Return whether the condition holds within these seconds, as soon as it does."""
    patience = Patience(seconds)
    while not (holds := condition()) and patience.left:
        time.sleep(0.02)
    return bool(holds)


def group_of(leader: int) -> list[int]:
    """Return the processes of a process group that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def environment_of(env: dict[str, str], url: str) -> dict[str, str]:
    """Return an environment in which commands find the web app at `url`."""
    return {**os.environ, **env, "PORT": url.rsplit(":", 1)[1], "HOST": "127.0.0.1"}
