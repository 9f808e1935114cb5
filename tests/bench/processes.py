"""Starting, pinning, weighing and ending the processes that take part."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S = 60.0
END_S = 8.0

_CORES = sorted(os.sched_getaffinity(0))
# With one core there is nothing to keep apart; the rows then say more about queueing than about cost.
RELAY_CORE, LOAD_CORE = _CORES[0], _CORES[1 % len(_CORES)]


class Process:
    """A child process that says in a line of its output where it listens. End it with `end`."""

    def __init__(
        self, command: Sequence[str], *, core: int, ready: str, env: Mapping[str, str] | None = None, log: Path
    ) -> None:
        self.launch(command, core=core, env=env, log=log, stdout=subprocess.PIPE)
        try:
            self.port = self._port(re.compile(ready), log)
        except BaseException:
            self.end()
            raise

    def launch(
        self,
        command: Sequence[str],
        *,
        core: int,
        log: Path,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
    ) -> None:
        """Start the program on `core`; what it says goes to `log`."""
        self._log = log.open("ab")
        output = self._log if stdout is None else stdout
        environment = {**os.environ, **(env or {})}
        self.child = subprocess.Popen(command, stdout=output, stderr=self._log, cwd=ROOT, env=environment)
        self.pid = self.child.pid
        pin(self.pid, core)

    def _port(self, ready: re.Pattern[str], log: Path) -> int:
        assert self.child.stdout is not None
        deadline_s, said = time.monotonic() + START_S, ""
        while (left_s := deadline_s - time.monotonic()) > 0:
            if not select.select([self.child.stdout], [], [], left_s)[0]:
                break
            data = os.read(self.child.stdout.fileno(), 65536).decode()
            said += data
            if found := ready.search(said):
                return int(found[1])
            if not data:
                break
        raise RuntimeError(f"{self.child.args!r} did not start:\n{said}{log.read_text()[-2000:]}")

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(END_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self._log.close()

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def anonymous_kib(self) -> int:
        return anonymous_kib(self.pid)


def python_module(*args: str) -> list[str]:
    return [sys.executable, "-m", *args]


def pin(pid: int, core: int) -> None:
    """Keep a process and all its threads on one core."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {core})


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, user and system, all threads, to the nanosecond.

    Its own clock (clock_getcpuclockid(3); the number is the kernel's CPUCLOCK_SCHED), as proc(5) counts in 10 ms: a
    tenth of what nginx uses in one of our windows.
    """
    return time.clock_gettime((~pid << 3) | 2)


def family_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all that it started, those that it has waited for included."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            used[int(entry.name)] = sum(map(int, fields[11:15]))
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return sum(used.get(member, 0) for member in family) / TICKS_PER_S


def anonymous_kib(pid: int) -> int:
    """Return the memory that a process has for itself, without files it maps (proc(5): smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise RuntimeError(f"no Anonymous line in the smaps_rollup of {pid}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not is_listening(port):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.02)
