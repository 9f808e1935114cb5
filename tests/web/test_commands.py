"""Commands as a person types them in a shell: the first on a fresh machine, and what a wrong word is answered with."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.live import PYTHON, READY_S, ROOT, LiveApp, clean_environment, run_manage
from tests.upstreams import Upstream
from tests.upstreams.wire import TEXT
from tests.web.conftest import AddBackend, asked
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


# Arguments

NO_TEXT = {
    "an option": (("compare", "--backend", "x", "--prompt", b"\xff\xfe hi"), "--prompt is not valid UTF-8.\n"),
    "an option with its value": (("compare", "--backend", "x", b"--prompt=\xff"), "--prompt is not valid UTF-8.\n"),
    "a label": (("backend", "add", "x", "--label", b"\xff"), "--label is not valid UTF-8.\n"),
    "a name": (("backend", "test", b"\xff"), "'\\udcff' is not valid UTF-8.\n"),
}


@pytest.mark.parametrize(("words", "sentence"), NO_TEXT.values(), ids=NO_TEXT)
def test_what_is_no_text_is_refused_in_a_sentence(
    words: tuple[str | bytes, ...], sentence: str, tmp_path: Path
) -> None:
    assert refused(tmp_path, *words) == sentence


# Settings

WRONG = {
    "DATABASE_URL": ("foo://me:secret@x/y", "it wants postgres://"),
    "TIME_ZONE": ("Mars/X", "it wants a time zone such as Europe/Berlin"),
    "DEBUG": ("maybe", "it wants 1 or 0"),
    "HOST": ("203.0.113.7", "no address of this machine"),
    "PORT": ("0", "from 1 to 65535"),
    "SIM_PORT": ("8000", "PORT and SIM_PORT are both 8000"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_refused_by_name_before_anything_starts(name: str, tmp_path: Path) -> None:
    value, sentence = WRONG[name]
    said = refused(tmp_path, "demo", "--no-browser", **{name: value})
    assert name in said
    assert sentence in said
    assert "secret" not in said


def test_a_place_for_what_is_kept_that_is_no_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "VAR_DIR is" in refused(tmp_path / "file", "backend", "list")


def test_an_address_that_is_not_this_machines_is_refused_with_the_simulators_option(tmp_path: Path) -> None:
    assert "--host" in refused(tmp_path, "simulate", "--host", "203.0.113.7", "--port", "0")


# Ctrl-C and SIGTERM

STOPS = {"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}


async def ended_by(app: LiveApp, upstream: Upstream, number: int, *arguments: str) -> tuple[str, str, int]:
    """Send the signal in the middle of the third answer; return stdout, stderr and the exit code."""
    process = await asyncio.create_subprocess_exec(
        PYTHON, "manage.py", *arguments, cwd=ROOT, env=app.env, stdout=PIPE, stderr=PIPE
    )
    await emitted(upstream, 3 if "--repeat" in arguments else 1)
    process.send_signal(number)
    out, error = await process.communicate()
    assert process.returncode is not None
    return out.decode(), error.decode(), process.returncode


async def emitted(upstream: Upstream, number: int) -> None:
    """Return once the upstream is in the middle of its answer to this chat request."""
    async with asyncio.timeout(READY_S):
        while len(asked(upstream)) < number or len(asked(upstream)[-1].emitted) < 4:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), STOPS.values(), ids=STOPS)
async def test_a_comparison_that_is_ended_prints_and_keeps_what_it_has(
    number: int, code: int, upstream: Upstream, live_app: LiveApp, add_backend: AddBackend
) -> None:
    upstream.gap_s = 0.05
    words = ("--prompt", "Hello", "--repeat", "50", "--json")
    slug = await add_backend("ok")
    out, error, returned = await ended_by(live_app, upstream, number, "compare", "--backend", slug, *words)
    assert returned == code
    assert error == f"CommandError: Ended by {signal.Signals(number).name}: 2 of 50 comparisons finished.\n"
    runs = json.loads(out)
    assert [run["lanes"][0]["outcome"] for run in runs] == ["done", "done", "stopped"]
    assert TEXT.startswith(runs[-1]["lanes"][0]["text"])
    assert runs[-1]["lanes"][0]["text"]
    for run in runs:
        kept = await asyncio.to_thread(live_app.json, f"/runs/{run['id']}/record.json")
        assert kept["lanes"][0]["outcome"] == run["lanes"][0]["outcome"]


@pytest.mark.parametrize(("number", "code"), STOPS.values(), ids=STOPS)
async def test_a_test_that_is_ended_says_so_in_a_sentence(
    number: int, code: int, upstream: Upstream, live_app: LiveApp, add_backend: AddBackend
) -> None:
    upstream.gap_s = 1
    out, error, returned = await ended_by(live_app, upstream, number, "backend", "test", await add_backend("ok"))
    assert (out, returned) == ("", code)
    assert error == f"CommandError: Ended by {signal.Signals(number).name}: its job is not done.\n"
