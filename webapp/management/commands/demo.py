"""`manage.py demo` (what `make demo` runs): simulator and web app under one small supervisor, and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from webapp.management.readiness import prepare_database
from webapp.services.children import answers, app_url, end, start

READY_S = 60.0  # only ends what hangs: a process that ends by itself is noticed at once
LOOK_S = 0.05
NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)  # the address is at fault, whatever the port


class Command(BaseCommand):
    help = "Start the simulator and the web app, say where, and end both with Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--no-browser", action="store_true", help="do not open a browser")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PORT == settings.SIM_PORT:
            raise CommandError(f"PORT and SIM_PORT are both {settings.PORT}; the demo wants two different ports.")
        for host, port, name in ((settings.HOST, settings.PORT, "PORT"), ("127.0.0.1", settings.SIM_PORT, "SIM_PORT")):
            _must_be_free(host, port, name)
        try:
            prepare_database(refresh=True)
        finally:
            connection.close()  # the processes have connections of their own
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        quiet = subprocess.DEVNULL
        processes = [
            start([sys.executable, "-m", "webapp.simulator", "--port", str(settings.SIM_PORT)], quiet),
            start([sys.executable, "manage.py", "serve", "--host", settings.HOST, "--port", str(settings.PORT)], quiet),
        ]
        try:
            self._wait_until_ready(processes, ended)
            if not ended.is_set():
                self._announce(open_browser=not options["no_browser"])
            while not ended.wait(LOOK_S * 4):
                _check_alive(processes)
        finally:
            _end(processes)

    def _wait_until_ready(self, processes: list[subprocess.Popen[str]], ended: threading.Event) -> None:
        urls = [f"http://127.0.0.1:{settings.SIM_PORT}/healthz", f"{app_url()}/healthz"]
        for _ in range(round(READY_S / LOOK_S)):
            _check_alive(processes)
            if all(map(answers, urls)) or ended.wait(LOOK_S):
                return
        raise CommandError(f"The demo did not answer within {READY_S:.0f} s; look at the messages above.")

    def _announce(self, open_browser: bool) -> None:
        self.stdout.write(f"\n  Splitsecond is ready: {app_url()}/\n\n  Ctrl-C ends it.\n")
        self.stdout.flush()
        has_display = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))) or sys.platform == "darwin"
        if open_browser and has_display:
            webbrowser.open(f"{app_url()}/")


def _must_be_free(host: str, port: int, name: str) -> None:
    if port == 0:
        raise CommandError(f"{name} is 0; the demo has to know its ports beforehand: choose one from 1 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:
        raise CommandError(_refusal(error, host, port, name)) from None


def _refusal(error: OSError | UnicodeError, host: str, port: int, name: str) -> str:
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror) or error.errno in NOT_OURS:
        return f"HOST is {host!r}, which is no address of this machine; choose another: make demo HOST=127.0.0.1"
    reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return f"Port {port} {reason}; end what uses it, or choose another: make demo {name}={port + 10}"


def _check_alive(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is not None:
            raise CommandError(f"A part of the demo ended by itself (exit code {process.returncode}); see above.")


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for process in reversed(processes):  # the web app first: its rows are finished before its backends go
        if process.poll() is None:
            end(process)
