"""Commands as a person types them in a shell: the first on a fresh machine, and what a wrong word is answered with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.live import PYTHON, READY_S, ROOT, clean_environment, run_manage
from webapp.simulator.profile import load_all


def refused(folder: Path, *arguments: str | bytes, **settings: str) -> str:
    """Run a command that cannot do its job and return the one sentence that it says."""
    env = clean_environment(folder, **settings)
    command = [PYTHON, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=READY_S)
    assert done.returncode
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# The first on a fresh machine


def test_the_first_command_may_be_any_and_makes_what_it_needs(tmp_path: Path) -> None:
    env = clean_environment(tmp_path / "new")
    assert len(json.loads(run_manage(env, "backend", "list", "--json"))) == len(load_all())
    newer = clean_environment(tmp_path / "newer", SIM_PORT="9")  # no simulator there
    words = ("--backend", "wse3-llama-70b", "--prompt", "Hello", "--max-tokens", "5")
    assert "A finished in" in run_manage(newer, "compare", *words)


def test_what_was_removed_stays_removed_whatever_is_asked_next(tmp_path: Path) -> None:
    env = clean_environment(tmp_path)
    run_manage(env, "backend", "remove", "oci-llama-70b")
    assert "oci-llama-70b" not in run_manage(env, "backend", "list")


COMMANDS = {
    "backend": ("backend", "list"),
    "compare": ("compare", "--backend", "x", "--prompt", "Hello"),
    "calibrate": ("calibrate", "--backend", "x", "--out", "x.toml"),
    "seed": ("seed",),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_database_that_cannot_be_made_is_one_sentence(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "splitsecond.sqlite3").mkdir()
    said = refused(tmp_path, *words)
    assert "cannot be written" in said
    assert "VAR_DIR" in said
