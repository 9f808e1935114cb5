"""Our own servers as children of a command: whether one answers, and that none outlives the command that started it."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from django.conf import settings

from webapp.core.spec import BackendSpec

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
ANSWER_S = 2.0
END_S = 6.0  # the web app gives its readers 5 s


class NotStarted(RuntimeError):
    """A server of ours could not be started; its text is one sentence."""


def app_url() -> str:
    """Return the web app's address as a browser on this machine reaches it."""
    host = "127.0.0.1" if settings.HOST in ("0.0.0.0", "::", "") else settings.HOST  # noqa: S104 (compared)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.PORT}"


def answers(url: str) -> bool:
    """Return whether `url` answers with 200 within ANSWER_S."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as response:  # noqa: S310 (from settings)
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


def start(command: Sequence[str], stdout: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a server in a session of its own: Ctrl-C reaches the command only, which then ends it in order.

    On Linux the kernel ends it too when the command is gone, however it went.
    """
    return subprocess.Popen(  # noqa: S603
        command,
        cwd=settings.BASE_DIR,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
        stdout=stdout,
        text=True,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a server: SIGTERM, and SIGKILL after END_S."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def serving(name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the address that a server of ours prints when it listens, and end it afterwards. Raises NotStarted."""
    process = start(command, subprocess.PIPE, environment)
    assert process.stdout is not None
    try:
        address = re.search(r"http://[^\s/]+", process.stdout.readline())
        if address is None:
            raise NotStarted(f"The {name} could not be started; start the demo first: make demo")
        yield address.group()
    finally:
        end(process)
        process.stdout.close()


@contextmanager
def simulator() -> Iterator[str]:
    """Yield the base URL of a simulator on a free port. Raises NotStarted."""
    with serving("simulator", [sys.executable, "-m", "webapp.simulator", "--port", "0"]) as address:
        yield f"{address}/v1"


@contextmanager
def simulator_for(specs: Sequence[BackendSpec]) -> Iterator[list[BackendSpec]]:
    """Yield `specs` with a simulator that listens: the running demo's, else one of our own for the while.

    Raises NotStarted.
    """
    ours = [spec for spec in specs if spec.base_url == settings.SIMULATOR_URL]
    if not ours or _listens(settings.SIMULATOR_URL):
        yield list(specs)
        return
    with simulator() as url:
        yield [replace(spec, base_url=url) if spec in ours else spec for spec in specs]


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), ANSWER_S).close()
    except OSError:
        return False
    return True


def die_with_parent() -> None:
    """In the child: have the kernel send SIGTERM when the parent is gone (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
