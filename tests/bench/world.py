"""The processes of one run: the reference stream, and the relays in front of it that are compared."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import processes
from tests.bench.processes import LOAD_CORE, RELAY_CORE, ROOT, Process, free_port, python_module

# Backends by slug, with the model that the reference stream is asked for. A page names a backend; the machine wire
# passes a request's own fields on, so that the one backend `ref` is enough there.
PLANS = {
    "ref": "ref",
    "fast": "ref-2000x30000",
    "slow": "ref-50x3000",
    "idle": "ref-1x3000",
    "stalled": "ref-50x10+600000ms",
    "unlimited": "ref-maxx2000000",
}

NGINX_CONF = """
daemon off; master_process off; worker_rlimit_nofile 20000; pid nginx.pid; error_log error.log warn;
events {{ worker_connections 10000; multi_accept on; }}
http {{
  access_log off; tcp_nodelay on; keepalive_timeout 60s; types {{ }}
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream reference {{ server 127.0.0.1:{upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://reference; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""


class Nginx(Process):
    """The system's nginx passing bytes: one process, unbuffered, in a directory of its own."""

    def __init__(self, program: str, upstream: int, directory: Path) -> None:
        prefix = directory / f"nginx-{free_port()}"
        prefix.mkdir()
        port = free_port()
        (prefix / "nginx.conf").write_text(NGINX_CONF.format(port=port, upstream=upstream))
        command = [program, "-p", str(prefix), "-c", str(prefix / "nginx.conf"), "-e", str(prefix / "error.log")]
        self.launch(command, core=RELAY_CORE, log=prefix / "output.log")
        self.port = port
        processes.wait_for_port(port)


class App(Process):
    """The web app as `manage.py serve` starts it, on a database of its own."""

    def __init__(self, directory: Path, command: Sequence[str] = ()) -> None:
        super().__init__(
            [*(command or (sys.executable, "manage.py", "serve")), "--port", "0"],
            core=RELAY_CORE,
            ready=r"Serving on http://127\.0\.0\.1:(\d+)",
            env={"VAR_DIR": str(directory)},
            log=directory / "app.log",
        )


@dataclass
class World:
    """What figures are measured with. Relays may be started again by a figure that needs a fresh one."""

    directory: Path
    quick: bool
    reference: Process
    app: App
    bare: Process
    nginx: Nginx | None
    _more: ExitStack = field(default_factory=ExitStack)

    @property
    def window_s(self) -> float:
        return 2.0 if self.quick else 3.0

    @property
    def repeats(self) -> int:
        return 1 if self.quick else 3

    def relays(self) -> dict[str, Process]:
        """Return ours and the references that are there, by name."""
        found: dict[str, Process] = {"ours": self.app, "bare": self.bare}
        return found | ({"nginx": self.nginx} if self.nginx else {})

    def fresh_app(self) -> App:
        """Return a second web app that nothing has happened to; it ends with the world, or by `end`."""
        app = App(self.directory)
        self._more.callback(app.end)
        return app

    def fresh_nginx(self) -> Nginx | None:
        program = nginx_program()
        if program is None:
            return None
        nginx = Nginx(program, self.reference.port, self.directory)
        self._more.callback(nginx.end)
        return nginx


@contextmanager
def world(quick: bool) -> Iterator[World]:
    """Start everything, and leave nothing behind."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        reference = stack.enter_context(ending(start_reference(directory)))
        prepare_database(directory, reference.port)
        app = stack.enter_context(ending(App(directory)))
        bare = python_module("tests.bench.bare", "--upstream", str(reference.port))
        relay = Process(bare, core=RELAY_CORE, ready=r"bare http://127\.0\.0\.1:(\d+)", log=directory / "bare.log")
        stack.enter_context(ending(relay))
        program = nginx_program()
        nginx = stack.enter_context(ending(Nginx(program, reference.port, directory))) if program else None
        made = World(directory, quick, reference, app, relay, nginx)
        stack.callback(made._more.close)
        yield made


@contextmanager
def ending(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.end()


def start_reference(directory: Path) -> Process:
    return Process(
        python_module("tests.upstreams.reference"),
        core=LOAD_CORE,
        ready=r"reference http://127\.0\.0\.1:(\d+)",
        log=directory / "reference.log",
    )


def prepare_database(directory: Path, reference_port: int) -> None:
    """Make the tables and the backends that the figures name, all of them plans of the reference stream."""
    _database(directory, reference_port, *(f"{slug}={model}" for slug, model in PLANS.items()))


def add_backend(directory: Path, slug: str, model: str, port: int) -> None:
    _database(directory, port, f"{slug}={model}")


def _database(directory: Path, port: int, *backends: str) -> None:
    command = python_module("tests.bench.database", str(port), *backends)
    env = {**os.environ, "VAR_DIR": str(directory)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The benchmark's database could not be made:\n{done.stdout}{done.stderr}")


def nginx_program() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
