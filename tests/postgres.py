"""A PostgreSQL server of its own for one test run, where the machine has the programs for one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.live import free_port

START_S = 120
NOBODY = 65534


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, None where there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found and (initdb := shutil.which("initdb")):
        found = [Path(initdb).resolve().parent]
    return max(
        found, key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdigit()], default=None
    )


def unprivileged() -> list[str] | None:
    """Return what to put before a command so that it does not run as root, which PostgreSQL refuses; None: no way."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        return None
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@contextmanager
def running(bin_folder: Path, prefix: Sequence[str]) -> Iterator[str]:
    """Run a server on a free port of 127.0.0.1, without a Unix socket, and yield its DATABASE_URL."""
    with TemporaryDirectory(prefix="postgresql-") as name:
        folder, port = Path(name), free_port()
        if prefix:
            os.chown(folder, NOBODY, NOBODY)
        environment = {**os.environ, "HOME": name, "LC_ALL": "C"}
        initdb = [str(bin_folder / "initdb"), "-D", name, "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*prefix, *initdb], check=True, capture_output=True, env=environment, cwd=folder)
        quick = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "unix_socket_directories=")
        options = [part for setting in quick for part in ("-c", setting)]
        postgres = [str(bin_folder / "postgres"), "-D", name, "-h", "127.0.0.1", "-p", str(port), *options]
        with (
            open(folder / "log", "wb") as log,
            subprocess.Popen([*prefix, *postgres], stdout=log, stderr=log, env=environment, cwd=folder) as server,
        ):
            try:
                wait_until_ready(bin_folder, port, server, folder / "log")
                yield f"postgres://tests@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # fast: do not wait for clients
                server.wait(60)


def wait_until_ready(bin_folder: Path, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    ask = [str(bin_folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ask).returncode:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, f"PostgreSQL did not start:\n{log.read_text()}"
        time.sleep(0.05)
