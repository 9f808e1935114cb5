"""The end of the process: streams say so, sockets close with 1012, finally blocks run, the exit code is 0."""

import functools
import os
import signal
import subprocess
import sys

import pytest

from tests.server.clients import (
    connect,
    open_websocket,
    read_all,
    read_close_code,
    read_frame,
    read_head,
    request_bytes,
)
from tests.server.conftest import ROOT, eventually

# The times of a stop, where only their order matters.
HURRIED = {"websocket_grace_s": 0.05, "stream_grace_s": 0.2, "leave_s": 0.2}


def open_stream(port, path):
    sock = connect(port)
    sock.sendall(request_bytes(path))
    read_head(sock)
    return sock


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_are_ended_and_cleaned_up(start, number):
    server = start()
    with open_stream(server.port, "/endless/sse"), open_websocket(server.port, "/endless/ws") as websocket:
        server.signal(number)
        assert read_close_code(websocket) == 1012
        assert server.wait(5) == 0
    assert (server.mark("sse"), server.mark("ws")) == ("client left", "client left")
    assert server.mark("flushed") == "yes"
    assert "Traceback" not in server.log


def test_streams_that_look_may_say_goodbye(start):
    server = start()
    with (
        open_stream(server.port, "/endless/polite-sse") as stream,
        open_websocket(server.port, "/endless/polite-ws") as websocket,
    ):
        server.signal()
        answer = read_all(stream)
        messages = []
        while (message := read_frame(websocket))[0] != 8:
            messages.append(message[1])
        assert server.wait(5) == 0
    assert answer.endswith(b"8\r\ngoodbye\n\r\n0\r\n\r\n")
    assert messages[-1] == b"goodbye\n"
    assert server.mark("polite-sse") == "done"


def test_an_idle_server_ends_at_once(start):
    server = start()
    server.signal()
    assert server.wait(2) == 0


def test_a_stubborn_application_is_cancelled_and_the_exit_is_still_clean(start):
    server = start(**HURRIED)
    with open_stream(server.port, "/stubborn/deaf"):
        server.signal()
        assert server.wait(5) == 0
    assert server.mark("deaf") == "cancelled"
    assert "1 applications did not end by themselves" in server.log


def test_nobody_new_is_served_while_the_old_ones_end(start):
    server = start()
    with open_stream(server.port, "/stubborn/deaf"), connect(server.port) as kept:
        kept.sendall(request_bytes("/describe"))
        assert read_head(kept).startswith(b"HTTP/1.1 200 ")
        server.signal()
        eventually(lambda: not accepts(server.port), "the port closes")
        kept.sendall(request_bytes("/describe"))
        answer = read_all(kept)
    assert b"HTTP/1.1 503 " in answer
    assert b"shutting down" in answer


def accepts(port):
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True


def test_the_same_signal_again_ends_the_process_at_once(start):
    server = start()
    with open_stream(server.port, "/stubborn/deaf"):
        server.signal()
        eventually(lambda: not accepts(server.port), "draining")
        server.signal()
        assert server.wait(1) == 128 + signal.SIGTERM
    assert server.mark("deaf") is None


def test_ctrl_c_passed_on_as_sigterm_is_still_one_request(start):
    server = start(**HURRIED)
    with open_stream(server.port, "/stubborn/deaf"):
        server.signal(signal.SIGINT)
        eventually(lambda: not accepts(server.port), "draining")
        server.signal(signal.SIGTERM)
        assert server.wait(5) == 0
    assert server.mark("flushed") == "yes"


def test_a_hanging_writer_does_not_keep_the_process(start):
    server = start(writer="hangs", flush_s=0.2)
    server.signal()
    assert server.wait(5) == 0
    assert "The writer did not finish" in server.log


def test_a_hanging_event_loop_does_not_keep_the_process(start):
    server = start(forced_s=0.5)
    with connect(server.port) as sock:
        sock.sendall(request_bytes("/hang"))
        read_head(sock)
        server.signal()
        assert server.wait(5) == 1
    assert "took longer than 0.5 s" in server.log


def test_a_port_in_use_is_one_plain_sentence(server, tmp_path):
    environment = {**os.environ, "VAR_DIR": str(tmp_path)}
    run = functools.partial(subprocess.run, capture_output=True, text=True, cwd=ROOT, timeout=60, env=environment)
    run([sys.executable, "manage.py", "migrate"], check=True)
    for command in (["-m", "tests.server.tiny_app"], ["manage.py", "serve"]):
        second = run([sys.executable, *command, "--port", str(server.port)])
        sentence = f"Port {server.port} is in use; stop the other program or choose another with --port."
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr.strip().removeprefix("CommandError: ") == sentence


@pytest.mark.parametrize("bad", ["65536", "http"])
def test_the_command_refuses_what_is_no_port(bad):
    refused = subprocess.run(
        [sys.executable, "manage.py", "serve", f"--port={bad}"], capture_output=True, text=True, cwd=ROOT, timeout=20
    )
    assert refused.returncode != 0
    assert f"'{bad}' is not a port" in refused.stderr
