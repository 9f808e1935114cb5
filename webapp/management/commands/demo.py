"""`manage.py demo` (what `make demo` runs): simulator and web app under one small supervisor, and nothing else."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
import webbrowser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from webapp.services.backends import seed

PR_SET_PDEATHSIG = 1
READY_S = 20.0
END_S = 5.0
LOOK_S = 0.05


class Command(BaseCommand):
    help = "Start the simulator and the web app, say where, and end both with Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--no-browser", action="store_true", help="do not open a browser")

    def handle(self, *args: Any, **options: Any) -> None:
        for host, port, name in ((settings.HOST, settings.PORT, "PORT"), ("127.0.0.1", settings.SIM_PORT, "SIM_PORT")):
            _must_be_free(host, port, name)
        _prepare_database()
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        processes = [
            _start([sys.executable, "-m", "webapp.simulator", "--port", str(settings.SIM_PORT)]),
            _start([sys.executable, "manage.py", "serve", "--host", settings.HOST, "--port", str(settings.PORT)]),
        ]
        try:
            self._wait_until_ready(processes, ended)
            if not ended.is_set():
                self._announce(open_browser=not options["no_browser"])
            while not ended.wait(LOOK_S * 4):
                _check_alive(processes)
        finally:
            _end(processes)

    def _wait_until_ready(self, processes: list[subprocess.Popen[bytes]], ended: threading.Event) -> None:
        urls = [f"http://127.0.0.1:{settings.SIM_PORT}/healthz", f"{address()}/healthz"]
        for _ in range(round(READY_S / LOOK_S)):
            _check_alive(processes)
            if all(map(_answers, urls)) or ended.wait(LOOK_S):
                return
        raise CommandError(f"The demo did not answer within {READY_S:.0f} s; look at the messages above.")

    def _announce(self, open_browser: bool) -> None:
        self.stdout.write(f"\n  Splitsecond is ready: {address()}/\n\n  Ctrl-C ends it.\n")
        self.stdout.flush()
        has_display = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))) or sys.platform == "darwin"
        if open_browser and has_display:
            webbrowser.open(f"{address()}/")


def address() -> str:
    """Return the web app's address as a browser on this machine reaches it."""
    host = "127.0.0.1" if settings.HOST in ("0.0.0.0", "::", "") else settings.HOST  # noqa: S104 (compared)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.PORT}"


def _must_be_free(host: str, port: int, name: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            reason = "is in use" if used else f"cannot be used ({error.strerror})"
            text = f"Port {port} {reason}; end what uses it, or choose another: make demo {name}={port + 10}"
            raise CommandError(text) from None


def _prepare_database() -> None:
    """Migrate where a migration is missing, and bring the simulator's backends up to date."""
    try:
        settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", verbosity=0)
        seed()
    except (DatabaseError, sqlite3.Error, OSError) as error:
        where = settings.DATABASES["default"]["NAME"]
        raise CommandError(
            f"The database {where} cannot be written ({error}); make it writable, or set VAR_DIR to another folder."
        ) from None
    finally:
        connection.close()


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this supervisor only, which then ends both in order.
    return subprocess.Popen(  # noqa: S603
        command,
        cwd=settings.BASE_DIR,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def _die_with_parent() -> None:
    """In the child: have the kernel send SIGTERM when the supervisor is gone, however it went (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _check_alive(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is not None:
            raise CommandError(f"A part of the demo ended by itself (exit code {process.returncode}); see above.")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 (loopback, from settings)
            return bool(response.status == 200)
    except OSError:
        return False


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):  # the web app first: its rows are finished before its backends go
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
