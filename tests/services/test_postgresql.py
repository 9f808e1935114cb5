"""The tests of everything that touches rows once more, on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import postgres
from tests.live import ROOT

SUITE_S = 600


@pytest.mark.skipif(os.environ.get("DATABASE_URL", "").startswith("postgres"), reason="this is that run")
def test_rows_are_the_same_on_postgresql() -> None:
    bin_folder, prefix = postgres.programs(), postgres.unprivileged()
    if bin_folder is None:
        pytest.skip("no PostgreSQL on this machine (initdb is neither in /usr/lib/postgresql nor on the PATH)")
    if prefix is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv to leave root with")
    with postgres.running(bin_folder, prefix) as url:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/services", "tests/web", "-m", "rows", "-p", "no:cacheprovider"],
            cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True, timeout=SUITE_S,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "[100%]" in done.stdout
