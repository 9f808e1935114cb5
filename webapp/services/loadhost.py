"""Where a load run from the command line goes: the running demo, else a web app and a simulator of its own."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import orjson
from django.conf import settings

from webapp import queries
from webapp.services.loadplans import Refusal, Where

PR_SET_PDEATHSIG = 1
END_S = 6.0


@contextmanager
def whereabouts(slugs: Sequence[str], wire: str, url: str = "") -> Iterator[Where]:
    """Yield where to send requests, starting what is missing for as long as the block lasts. Raises Refusal."""
    app_url = url.rstrip("/") or _app_url()
    simulated = any(_is_simulated(slug) for slug in slugs)
    with ExitStack() as stack:
        simulator_url = settings.SIMULATOR_URL
        if wire != "direct" and _answers(f"{app_url}/healthz"):
            _check_knows(app_url, slugs)
            yield Where(app_url, simulator_url)
            return
        if url:
            raise Refusal(f"Nothing answers at {url}; start the web app there, or leave --url out.")
        if simulated and not _answers(simulator_url.removesuffix("/v1") + "/healthz"):
            simulator_url = stack.enter_context(_simulator())
        if wire != "direct":
            app_url = stack.enter_context(_app(simulator_url))
        yield Where(app_url, simulator_url)


def _app_url() -> str:
    host = "127.0.0.1" if settings.HOST in ("0.0.0.0", "::", "") else settings.HOST  # noqa: S104 (compared)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.PORT}"


def _is_simulated(slug: str) -> bool:
    row = queries.backend(slug)
    return row is not None and queries.spec_of(row).base_url == settings.SIMULATOR_URL


def _check_knows(app_url: str, slugs: Sequence[str]) -> None:
    """Refuse early where the app that answers is one with other backends."""
    try:
        with urllib.request.urlopen(f"{app_url}/v1/models", timeout=5) as answer:  # noqa: S310 (our own app)
            known = {entry["id"] for entry in orjson.loads(answer.read())["data"]}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        raise Refusal(f"What answers at {app_url} is not this web app; set PORT, or give --url.") from None
    if missing := [slug for slug in slugs if slug not in known]:
        raise Refusal(f"The web app at {app_url} knows no backend {missing[0]!r}.")


@contextmanager
def _simulator() -> Iterator[str]:
    with _child([sys.executable, "-m", "webapp.simulator", "--port", "0"]) as address:
        yield f"{address}/v1"


@contextmanager
def _app(simulator_url: str) -> Iterator[str]:
    with _child([sys.executable, "manage.py", "serve", "--port", "0"], SIMULATOR_URL=simulator_url) as address:
        yield address


@contextmanager
def _child(command: list[str], **environment: str) -> Iterator[str]:
    """Run one of our servers, yield the address that it prints, and end it, or have the kernel do so."""
    process = subprocess.Popen(  # noqa: S603 (fixed arguments)
        command,
        cwd=settings.BASE_DIR,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://[^\s/]+", process.stdout.readline())
        if found is None:
            raise Refusal("The web app or the simulator could not be started; start the demo first: make demo")
        yield found.group()
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _die_with_parent() -> None:
    """In the child: have the kernel send SIGTERM when the command is gone, however it went (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 (from settings or the operator)
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False
