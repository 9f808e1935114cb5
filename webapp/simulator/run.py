"""Run the simulator as a process of its own: bind, say so, serve until SIGTERM or Ctrl-C."""

import asyncio
import errno
import gc
import signal
import sys
from contextlib import suppress

from aiohttp import web

from webapp.simulator.answers import load_book
from webapp.simulator.profile import load_all
from webapp.simulator.server import build_runner

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8001
BACKLOG = 2048


def serve(host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> int:
    """Serve until a signal comes; return the process's exit code."""
    try:
        return asyncio.run(_serve(host, port))
    except KeyboardInterrupt:  # Ctrl-C before the signal handlers were in place
        return 0
    except OSError as problem:
        print(_sentence(problem, host, port), file=sys.stderr)
        return 1


async def _serve(host: str, port: int) -> int:
    runner = build_runner(load_all(), load_book())
    await runner.setup()
    try:
        stop = _stop_signal()
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        _allow_many_sockets()
        gc.collect()
        gc.freeze()  # what was loaded stays; the collector need not look at it between tokens
        print(f"simulator listening on {_address(runner)}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
    return 0


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # no such thing on Windows
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _allow_many_sockets() -> None:
    if resource is None:
        return
    with suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _address(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _sentence(problem: OSError, host: str, port: int) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop what uses it, or choose another with --port."
    if problem.errno in (errno.EACCES, errno.EPERM):
        return f"This user may not use port {port}: choose one above 1023 with --port."
    return f"The simulator cannot listen on {host}:{port}: {problem.strerror or problem}."
