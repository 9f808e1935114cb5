"""Our own servers as children of a command: whether one answers, and that none outlives the command that started it."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from django.conf import settings

from webapp.core.spec import BackendSpec

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
ANSWER_S = 2.0
END_S = 5.0


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


def start(command: Sequence[str], stdout: int) -> subprocess.Popen[str]:
    """Start a server in a session of its own: Ctrl-C reaches the command only, which then ends it in order.

    On Linux the kernel ends it too when the command is gone, however it went.
    """
    return subprocess.Popen(  # noqa: S603
        command,
        cwd=settings.BASE_DIR,
        start_new_session=True,
        stdout=stdout,
        text=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
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
def simulator_for(specs: Sequence[BackendSpec]) -> Iterator[list[BackendSpec]]:
    """Yield `specs` with a simulator that listens: the running demo's, else one of our own for the while.

    Raises NotStarted.
    """
    ours = [spec for spec in specs if spec.base_url == settings.SIMULATOR_URL]
    if not ours or _listens(settings.SIMULATOR_URL):
        yield list(specs)
        return
    process = start([sys.executable, "-m", "webapp.simulator", "--port", "0"], subprocess.PIPE)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip().rpartition(" ")[2]
        if not address.startswith("http"):
            raise NotStarted("The simulator could not be started; try: manage.py simulate")
        yield [replace(spec, base_url=f"{address}/v1") if spec in ours else spec for spec in specs]
    finally:
        end(process)
        process.stdout.close()


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), ANSWER_S).close()
    except OSError:
        return False
    return True


def _die_with_parent() -> None:
    """In the child: have the kernel send SIGTERM when the parent is gone (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
