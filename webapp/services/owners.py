"""Who runs what: a name for this process that no later one can have, and whether its bearer still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def owner_of(pid: int) -> str:
    """Return host, process id and the process's start in clock ticks since boot ("0" where that cannot be read)."""
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


def is_gone(owner: str) -> bool:
    """Return whether the process named `owner` has ended; False for other hosts, of which nothing is known here."""
    host, _, rest = owner.partition(":")
    pid, _, started = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    if started and _started(int(pid)) != started:
        return True  # ended, and its number may have come round again
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "0"
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5), counted after the name


OWNER = owner_of(os.getpid())
