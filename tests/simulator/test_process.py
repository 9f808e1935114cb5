"""The simulator as a process: what it prints, when it ends, and what it does not import."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "webapp.simulator"]
LATEST_S = 120  # only ends what hangs
MANAGE = [sys.executable, "manage.py", "simulate"]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*command, "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=LATEST_S)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("command", [MODULE, MANAGE], ids=["module", "manage"])
def test_it_announces_itself_answers_and_ends_quietly(command: list[str], number: signal.Signals) -> None:
    with start(command) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("simulator listening on http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(line.split()[-1] + "/healthz", timeout=LATEST_S) as response:
            assert response.status == 200
        assert finish(process, number) == (0, "")


def test_an_open_stream_does_not_hold_up_the_end() -> None:
    with start(MODULE) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().split("//")[1].strip().split(":")
        with socket.create_connection((host, int(port)), timeout=LATEST_S) as client:
            text = b'{"model":"oci-llama-70b","messages":[{"role":"user","content":"x"}],"stream":true}'
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
            )
            assert client.recv(15) == b"HTTP/1.1 200 OK"
            assert finish(process, signal.SIGTERM) == (0, "")


@pytest.mark.parametrize("command", [MODULE, MANAGE], ids=["module", "manage"])
def test_a_port_in_use_is_one_plain_sentence(command: list[str], taken_port: int) -> None:
    done = subprocess.run(
        [*command, "--port", str(taken_port)], cwd=ROOT, capture_output=True, text=True, timeout=LATEST_S
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Port {taken_port} on 127.0.0.1 is in use: stop what uses it, or choose another with --port.\n"
    )


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    done = subprocess.run([*MODULE, f"--port={port}"], cwd=ROOT, capture_output=True, text=True, timeout=LATEST_S)
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_not_ours_is_one_plain_sentence() -> None:
    done = subprocess.run(
        [*MODULE, "--host", "192.0.2.1", "--port", "0"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The simulator cannot listen on 192.0.2.1:0: ")
    assert done.stderr.count("\n") == 1


def test_it_starts_without_django() -> None:
    code = "import sys, webapp.simulator.__main__; sys.exit(any(name.startswith('django') for name in sys.modules))"
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=LATEST_S).returncode == 0


@pytest.mark.parametrize("option", ["--max-waiting=-1", "--max-open=x"])
@pytest.mark.parametrize("command", [MODULE, MANAGE], ids=["module", "manage"])
def test_a_limit_that_is_none_is_refused(command: list[str], option: str) -> None:
    done = subprocess.run([*command, option], cwd=ROOT, capture_output=True, text=True, timeout=LATEST_S)
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr
    assert "Traceback" not in done.stderr
