"""`python -m loadtests FILE OUT`: one load run, as `manage.py load` and the page start it.

The argument list for Locust is made here from the checked file and nothing else. The process ends with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent is gone, however it went (prctl(2)); end now if it already is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    end_with_parent(int(os.environ.get("SPLITSECOND_PARENT", os.getppid())))
    file, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    os.environ["SPLITSECOND_LOAD_FILE"], os.environ["SPLITSECOND_LOAD_OUT"] = str(file), str(out)
    import locust.main  # noqa: PLC0415 (patches the standard library: only once this is sure to be a load run)
    import orjson  # noqa: PLC0415

    from loadtests.users import locust_users  # noqa: PLC0415
    from webapp.core import loadplan  # noqa: PLC0415

    plan = loadplan.from_data(orjson.loads(file.read_bytes()))
    users = plan.workers if plan.mode == "rate" else 0  # `Steering` brings those of closed loops
    arguments = ["--headless", "--users", str(users), "--spawn-rate", "100"]
    arguments += ["--only-summary", "--exit-code-on-error", "0", "--loglevel", "INFO"]
    # A process without a user would keep its share of the requests for itself, and the run waiting for them.
    processes = min(plan.workers, max(1, locust_users(plan, plan.most_users)))
    if processes > 1:
        port = str(free_port())  # of its own: workers of two runs at once would mix on Locust's usual one
        arguments += ["--processes", str(processes), "--master-bind-host", "127.0.0.1"]
        arguments += ["--master-bind-port", port, "--master-port", port]
    sys.argv = ["locust", "-f", str(Path(__file__).with_name("locustfile.py")), *arguments]
    run: Callable[[], None] = locust.main.main
    run()


if __name__ == "__main__":
    main()
