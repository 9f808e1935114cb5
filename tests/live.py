"""The product as a user runs it: the simulator and the web app as real processes on free ports, with rows of their own.

Uses nothing of the product but its commands, so that it can judge them.
"""

from __future__ import annotations

import http.cookiejar
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
# These only end what hangs, on a machine however busy. How long a stop may take: tests/server, tests/web.
READY_S = 120
STOP_S = 60
# What a developer's shell may have set and a test must not inherit.
SETTINGS = (
    "ALLOWED_HOSTS", "DATABASE_URL", "DEBUG", "HOST", "HTTPS", "OPERATOR_TOKEN", "PORT", "SECRET_KEY", "SIMULATOR_URL",
    "SIM_PORT", "TIME_ZONE", "TRUSTED_ORIGINS", "VAR_DIR",
)  # fmt: skip


class Process:
    """One process of the product: its first line, its log, and whether it left anything behind."""

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.log_path = log
        with open(log, "ab") as file:
            self.popen = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def first_line(self) -> str:
        """Return the line that says where it listens; fail with the log where it says nothing."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            self.end()
            raise AssertionError(f"{self.popen.args} ended with {self.popen.returncode}:\n{self.log}")
        return line

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_S) -> int:
        """Send a stop signal and return the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(seconds)

    def end(self) -> str:
        """End it, whatever its state, and return what was wrong with that: "" where nothing was."""
        wrong = ""
        if self.popen.poll() is None:
            try:
                if code := self.stop():
                    wrong = f"it ended with {code}"
            except subprocess.TimeoutExpired:
                wrong = f"it did not end within {STOP_S} s of SIGTERM"
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            wrong = wrong or "it left a process behind"
        self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        return wrong


class LiveApp:
    """A running web app with a running simulator.

    `url` and `sim_url` end without a slash, `ws_url` is the page's socket, `env` is the environment of its processes,
    in which `manage` runs further commands on the same rows.
    """

    def __init__(self, folder: Path, env: dict[str, str], simulator: Process, server: Process, url: str) -> None:
        self.folder, self.env = folder, env
        self.simulator, self.server = simulator, server
        self.url = url
        self.sim_url = f"http://127.0.0.1:{env['SIM_PORT']}"
        self.ws_url = url.replace("http", "ws", 1) + "/ws/arena/"

    @property
    def log(self) -> str:
        return self.server.log

    def manage(self, *arguments: str) -> str:
        """Run a management command against this app's database and return what it prints."""
        return run_manage(self.env, *arguments)

    def browser(self) -> Browser:
        """Return a new browser without cookies, which knows forms and no script."""
        return Browser(self.url)

    def json(self, path: str) -> Any:
        return orjson.loads(self.browser().get(path).body)


class Reply:
    """An HTTP answer: `status`, `headers` (case-insensitive), `body`, `text`."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    """A client with cookies that sends forms with their CSRF token and follows no redirect."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies), _NoRedirect()
        )

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, **headers)

    def post(self, path: str, fields: dict[str, str] | None = None, *, csrf: bool = True, **headers: str) -> Reply:
        """Send a form, with the token that the backends page holds unless `csrf` is False."""
        fields = dict(fields or {})
        if csrf:
            fields["csrfmiddlewaretoken"] = self.token()
        return self.request("POST", path, urllib.parse.urlencode(fields).encode(), **headers)

    def token(self) -> str:
        if not any(cookie.name == "csrftoken" for cookie in self.cookies):
            self.get("/")
        return next(str(cookie.value) for cookie in self.cookies if cookie.name == "csrftoken")

    def request(self, method: str, path: str, data: bytes | None = None, **headers: str) -> Reply:
        """Send one request; header names are given with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, named, method=method)
        try:
            with self._opener.open(request, timeout=60) as response:
                return Reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def clean_environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return this environment without settings of the product but `settings`, with `folder` for what it keeps.

    A DATABASE_URL that names PostgreSQL stays: then every live app of the session shares that database.
    """
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    database = os.environ.get("DATABASE_URL", "")
    if database.startswith("postgres"):
        kept["DATABASE_URL"] = database
    return {**kept, "VAR_DIR": str(folder), **settings}


def run_manage(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [PYTHON, "manage.py", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=READY_S
    )
    assert done.returncode == 0, f"manage.py {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def wait_until_healthy(url: str, seconds: float = READY_S) -> None:
    browser, end = Browser(url), time.monotonic() + seconds
    while True:
        try:
            if browser.get("/healthz").status == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < end, f"{url}/healthz never became healthy"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that is free, below those that the system hands out by itself: it is still free a while later."""
    while True:
        with socket.socket() as sock, suppress(OSError):
            port = random.randrange(10_000, 30_000)
            sock.bind(("127.0.0.1", port))
            return port


def start_simulator(env: dict[str, str], folder: Path) -> tuple[Process, int]:
    process = Process([PYTHON, "-m", "webapp.simulator", "--port", "0"], env, folder / "simulator.log")
    return process, int(process.first_line().rsplit(":", 1)[1])


def start_server(env: dict[str, str], folder: Path) -> tuple[Process, str]:
    process = Process([PYTHON, "manage.py", "serve", "--port", "0"], env, folder / "server.log")
    found = re.search(r"http://\S+?(?=/?\s*$)", process.first_line())
    assert found, "serve did not say where it listens"
    return process, found.group()


def prepare(env: dict[str, str]) -> None:
    """Make the tables and the simulated backends."""
    run_manage(env, "migrate", "--verbosity", "0")
    run_manage(env, "seed")


@contextmanager
def live(folder: Path, **settings: str) -> Iterator[LiveApp]:
    """Run simulator and web app until the block ends; fail if they log a traceback or leave anything behind."""
    env = clean_environment(folder, **settings)
    simulator, port = start_simulator(env, folder)
    server = None
    try:
        env["SIM_PORT"] = str(port)
        prepare(env)
        server, url = start_server(env, folder)
        wait_until_healthy(url)
        yield LiveApp(folder, env, simulator, server, url)
    finally:
        wrong = {process.log_path.stem: process.end() for process in (server, simulator) if process is not None}
    for name, fault in wrong.items():
        log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        assert not fault, f"{name}: {fault}\n{log}"
        assert "Traceback" not in log, f"{name} logged a traceback:\n{log}"
