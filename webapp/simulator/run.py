"""Run the simulator as a process of its own: bind, say so, serve until SIGTERM or Ctrl-C. And its command line."""

import argparse
import asyncio
import ctypes
import errno
import gc
import logging
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from webapp.simulator.answers import load_book
from webapp.simulator.check import check
from webapp.simulator.paces import BY, all_by, with_both
from webapp.simulator.profile import ProfileError, load_all
from webapp.simulator.server import NO_LIMITS, Limits, build_runner

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8001
BACKLOG = 2048
M_MMAP_THRESHOLD = -3  # <malloc.h>
MAPPED_BYTES = 16 * 1024  # what is larger gets pages of its own
TRIM_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    profiles: Path | None = None  # a folder of one's own, on top of the shipped ones
    limits: Limits = NO_LIMITS
    paced_by: str = ""  # "vendor" or "measured": whose figure sets the pace where a profile has one


def serve(options: Options) -> int:
    """Serve until a signal comes; return the process's exit code."""
    host, port = options.host, options.port
    try:
        return asyncio.run(_serve(options))
    except ProfileError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # Ctrl-C before the signal handlers were in place
        return 0
    except OSError as problem:
        print(_sentence(problem, host, port), file=sys.stderr)
        return 1


async def _serve(options: Options) -> int:
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it shows a traceback for any bad request line
    profiles = load_all(options.profiles)
    served = with_both(profiles) | all_by(profiles, options.paced_by)
    runner = build_runner(served, load_book(), options.limits)
    await runner.setup()
    tidying = asyncio.create_task(_give_memory_back())
    try:
        stop = _stop_signal()
        await web.TCPSite(runner, options.host, options.port, backlog=BACKLOG).start()
        _allow_many_sockets()
        gc.collect()
        gc.freeze()  # what was loaded stays; the collector need not look at it between tokens
        print(f"simulator listening on {_address(runner)}", flush=True)
        await stop.wait()
    finally:
        tidying.cancel()
        await asyncio.gather(tidying, return_exceptions=True)
        await runner.cleanup()
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of both commands that run the simulator."""
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=port, default=DEFAULT_PORT, help="default %(default)s, 0: any free")
    parser.add_argument(
        "--profiles", type=folder, metavar="DIR", help="a folder of profiles, served beside those shipped"
    )
    parser.add_argument(
        "--paced-by", choices=BY, default="", help="whose figure sets the pace (default: what each profile says)"
    )
    parser.add_argument(
        "--max-waiting", type=count, metavar="N", help="refuse with 429 when so many wait for a model (default: never)"
    )
    parser.add_argument(
        "--max-open", type=count, metavar="N", help="refuse with 503 when so many requests are open (default: never)"
    )
    parser.add_argument("--check", action="store_true", help="measure the pace that this host keeps, print it, and end")


def run(options: argparse.Namespace) -> int:
    """Do what the options say; return the process's exit code."""
    if options.check:
        return check(options.profiles)
    limits = Limits(options.max_waiting, options.max_open)
    return serve(Options(options.host, options.port, options.profiles, limits, options.paced_by))


def port(text: str) -> int:
    """Return a TCP port number. Raises what argparse turns into a plain error."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port: give 0 to 65535")
    return number


def folder(text: str) -> Path:
    """Return a folder that is there. Raises what argparse turns into a plain error."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def count(text: str) -> int:
    """Return a number of requests. Raises what argparse turns into a plain error."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than nothing")
    return number


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


async def _give_memory_back() -> None:
    """Return to the system what prompts took while they were read, as long as the server runs. Only glibc needs it.

    A burst of 32 kB prompts leaves holes between what waits: 20 to 28 kB for each request instead of 17.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        trim = libc.malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    while True:
        await asyncio.sleep(TRIM_S)
        trim(0)  # 0.05 ms where there is nothing to return


def _address(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _sentence(problem: OSError, host: str, port: int) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop what uses it, or choose another with --port."
    if problem.errno in (errno.EACCES, errno.EPERM):
        return f"This user may not use port {port}: choose one above 1023 with --port."
    return f"The simulator cannot listen on {host}:{port}: {problem.strerror or problem}; choose another with --host."
