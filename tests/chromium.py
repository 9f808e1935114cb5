"""Where the tests' Chromium is. Run as a module: find one, or install one, or say in one line what to do.

Looked for in this order: $CHROMIUM, a Chromium or Chrome of this machine, Playwright's own; then Playwright's download
is tried, then the system's package where this user may install it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
INSTALL_S = 300
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def find() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    if named := os.environ.get("CHROMIUM"):
        return named if Path(named).exists() else None
    for name in NAMES:
        if path := shutil.which(name):
            return path
    return str(MAC) if MAC.exists() else _playwrights()


def _playwrights() -> str | None:
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install() -> str | None:
    """Try to get a Chromium and return its path, None where that is not possible here."""
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        attempts += [["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]]
    for command in attempts:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=INSTALL_S
            )
        if path := find():
            return path
    return None


def main() -> int:
    if find() or install():
        return 0
    print(
        "No Chromium for the browser tests: install Chromium or Chrome, or set CHROMIUM to its path.", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
