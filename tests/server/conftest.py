"""Servers in processes of their own, since a Twisted reactor runs once per process and stops for good."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.hostwatch import Patience
from tests.server.clients import get

ROOT = Path(__file__).resolve().parents[2]


class Running:
    """A server under test: its port, its log, and the files that its applications leave behind."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, folder: Path) -> None:
        self.process, self.port, self.folder = process, port, folder

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def state(self) -> dict:
        return get(self.port, "/state")

    def mark(self, name: str) -> str | None:
        path = self.folder / name
        return path.read_text() if path.exists() else None

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 5) -> int:
        """Return the exit code; fail if the process does not end within these seconds."""
        eventually(lambda: self.process.poll() is not None, "the process ends", seconds)
        return int(self.process.returncode)


@contextmanager
def running(folder: Path, **limits: float) -> Iterator[Running]:
    options = [part for name, value in limits.items() for part in (f"--{name}", str(value))]
    with (
        open(folder / "log", "w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.server.tiny_app", *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "MARKS": str(folder)},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            yield Running(process, int(line), folder)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the normal limits, shared by the tests that leave it as they found it."""
    with running(tmp_path_factory.mktemp("server")) as shared:
        yield shared


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a server of this test's own, with limits of its own."""
    with ExitStack() as stack:
        yield lambda **limits: stack.enter_context(running(tmp_path, **limits))


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Return as soon as the condition holds; fail if it does not within these seconds."""
    patience = Patience(seconds)
    while not condition():
        assert patience.left, f"never happened: {what}"
        time.sleep(0.01)


def settled(read: Callable[[], int], seconds: float = 0.3) -> int:
    """Return a value that has stopped changing for `seconds`."""
    last, since = read(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.02)
        value = read()
        if value != last:
            last, since = value, time.monotonic()
    return last
