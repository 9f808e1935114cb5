"""The two wires of the running app, and Locust as its own users start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.live import ROOT, LiveApp, free_port
from tests.loadtests.conftest import Reference
from tests.loadtests.generator import END_S, Results, ending, measured_in, plan, run, started, until
from webapp.services.children import answers

BACKEND = "wse3-llama-70b"
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py"]


def events_of_locust(log: str) -> int:
    """Return how many request events Locust itself has counted."""
    found = re.search(r"Aggregated +(\d+) ", log)
    assert found, log
    return int(found[1])


def test_the_machine_wire_is_driven_with_one_event_per_request(tmp_path: Path, live_app: LiveApp) -> None:
    target = (BACKEND, f"{live_app.url}/v1", BACKEND)
    for measurement, folder in measured_in(tmp_path):
        results = run(folder, plan(target, wire="sse", users=2, mix="fixed:30/25"))
        records = results.records
        assert results.code in (0, 4)  # 4 where this machine is too busy to measure on
        assert len(records) > 2
        assert all(record["outcome"] == "done" for record in records)
        assert {record["output_tokens"] for record in records} == {25}
        assert events_of_locust(results.log) == len(records)
        for marks in (record["marks_us"] for record in records):
            assert marks["intended"] <= marks["sent"] <= marks["headers"] <= marks["first_token"] <= marks["last_token"]
        figures = {"ttft_p50_ms", "icl_p95_ms", "running", "waiting", "output_tokens_per_s"}
        assert figures <= set(results.live[-1]["backends"][BACKEND])
        with measurement:
            assert len(results.live) >= 2 * results.summary["duration_s"]


def test_the_pages_socket_is_driven_through_a_storm_of_reconnections(tmp_path: Path, live_app: LiveApp) -> None:
    slow = "h100x2-llama-70b"
    target = (slow, live_app.ws_url, slow)
    parameters = plan(target, wire="ws", users=2, mix="fixed:30/40", behaviour={"reconnect_s": 0.5})
    results = run(tmp_path, parameters)
    records = results.records
    assert results.block(slow)["requests"]["failed"] == 0, results.block(slow)["errors"]
    done = [record for record in records if record["outcome"] == "done"]
    assert done
    for record in done:
        assert record["output_tokens"] == 40
        assert len(record["gaps_us"]) == 39  # each piece of text once, whichever connection brought it
    assert any(record["marks_us"]["connect"] > record["marks_us"]["sent"] for record in done)


def test_a_user_of_the_socket_who_is_taken_away_hears_the_answer_out_and_hangs_up(
    tmp_path: Path, live_app: LiveApp
) -> None:
    slow = "h100x2-llama-70b"
    target = (slow, live_app.ws_url, slow)
    with started(tmp_path, plan(target, wire="ws", users=3, mix="fixed:30/40", duration_s=60.0)) as process:
        assert until(lambda: (tmp_path / "live.jsonl").exists() and Results(tmp_path).live)
        assert until(lambda: Results(tmp_path).live[-1]["backends"][slow]["running"] == 3)
        connected = sockets_of(process.pid)
        (tmp_path / "control.json").write_text('{"users": 0}')
        assert until(lambda: sockets_of(process.pid) <= connected - 3)
        (tmp_path / "control.json").write_text('{"stop": true}')
        assert process.wait(END_S) in (0, 4)
    assert {record["outcome"] for record in Results(tmp_path).records} == {"done"}


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has open."""
    return sum(os.readlink(entry).startswith("socket:") for entry in Path(f"/proc/{pid}/fd").iterdir())


def test_a_conversation_goes_on_where_it_was(tmp_path: Path, live_app: LiveApp) -> None:
    target = (BACKEND, f"{live_app.url}/v1", BACKEND)
    three = {"turns": 3, "max_requests": 3, "duration_s": 60.0}
    results = run(tmp_path, plan(target, wire="sse", users=1, mix="fixed:30/20", **three))
    inputs = {record["turn"]: record["input_tokens"] for record in results.records}
    assert inputs[0] < inputs[1] < inputs[2]


def test_what_the_server_says_of_itself_shows_that_it_stops_when_users_leave(tmp_path: Path, live_app: LiveApp) -> None:
    slow = "h100x2-llama-70b"
    target = {"slug": slow, "url": f"{live_app.url}/v1", "model": slow, "metrics_url": f"{live_app.sim_url}/metrics"}
    target["metrics_model"] = slow
    parameters = plan(wire="sse", users=4, mix="fixed:4000/60", behaviour={"patience_s": 0.5}, duration_s=4.0)
    for measurement, folder in measured_in(tmp_path):
        results = run(folder, {**parameters, "targets": [target]})
        block = results.block(slow)
        assert block["requests"]["left"] == block["left_ms"]["n"] > 4
        server = block["server"]
        delivered = sum(record["output_tokens"] or 0 for record in results.records)
        assert server["output_tokens"] >= delivered
        states = [line["backends"][slow]["server"] for line in results.live]
        with measurement:
            assert delivered > 0
            assert 50 < block["left_ms"]["p50"] < 2000
            assert server["unread_tokens"] <= 3 * block["requests"]["left"], "of the 60 of each that were asked for"
            assert server["held_ms"] < 500
            assert 1 <= max(state["running"] + state["waiting"] for state in states if state) <= 4


def test_plain_locust_works_with_workers(tmp_path: Path, live_app: LiveApp) -> None:
    command = [*LOCUST, "-H", live_app.url, "--headless"]
    port = str(free_port())
    command += ["-u", "2", "-r", "10", "-t", "5s", "--processes", "2", "--master-bind-port", port]
    command += ["--master-port", port, "--backend", BACKEND, "--mix", "fixed:20/10", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=END_S, start_new_session=True)
    assert done.returncode == 0, done.stderr
    results = Results(tmp_path)
    counts = results.block(BACKEND)["requests"]
    assert counts["ok"] > 2
    assert counts["failed"] == 0
    assert {record["user"] % 2 for record in results.records} == {0, 1}
    assert results.live[-1]["users"] == 2


def test_only_plain_locusts_master_is_told_the_wire(tmp_path: Path, live_app: LiveApp) -> None:
    port = str(free_port())
    shared = {"cwd": ROOT, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    master = ["-H", live_app.url, "--headless", "-u", "2", "-r", "10", "-t", "5s", "--out", str(tmp_path)]
    master += ["--wire", "ws", "--backend", BACKEND, "--mix", "fixed:20/10"]
    master += ["--master", "--expect-workers", "1", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    with ExitStack() as stack:
        processes = []
        for name, arguments in (("master", master), ("worker", worker)):
            log = tmp_path / f"{name}.log"
            with open(log, "wb") as output:
                process = subprocess.Popen([*LOCUST, *arguments], stdout=output, **shared)
            processes.append(stack.enter_context(ending(process, log)))
        assert [process.wait(END_S) for process in processes] == [0, 0]
    assert Results(tmp_path).block(BACKEND)["requests"]["ok"] > 2
    assert re.search(rf"WS +{BACKEND} ", (tmp_path / "master.log").read_text())


@pytest.mark.parametrize(("user", "wire"), [("ChatSocketUser", "ws"), ("DirectUser", "direct")])
def test_a_user_class_that_plain_locust_is_given_asks_over_its_own_wire(
    user: str, wire: str, tmp_path: Path, live_app: LiveApp
) -> None:
    host = f"{live_app.sim_url}/v1" if wire == "direct" else live_app.url
    command = [*LOCUST, "-H", host, "--headless", "-u", "1", "-t", "3s", "--out", str(tmp_path)]
    command += ["--backend", BACKEND, "--mix", "fixed:20/10", user]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=END_S)
    assert done.returncode == 0, done.stderr
    results = Results(tmp_path)
    assert results.summary["plan"]["wire"] == wire
    assert results.block(BACKEND)["requests"]["ok"] > 0


def test_plain_locust_asks_no_more_backends_than_it_has_users(tmp_path: Path, live_app: LiveApp) -> None:
    port = str(free_port())
    command = [*LOCUST, "-H", live_app.url, "--headless", "-u", "3", "-r", "10", "-t", "5s", "--out", str(tmp_path)]
    command += ["--mix", "fixed:20/2", "--processes", "2", "--master-bind-port", port, "--master-port", port]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=END_S, start_new_session=True)
    asked = {slug: block["requests"]["asked"] for slug, block in Results(tmp_path).summary["backends"].items()}
    assert len(asked) == 3
    assert all(asked.values()), asked


def test_plain_locust_that_measured_nothing_does_not_pass(tmp_path: Path, reference: Reference) -> None:
    command = [*LOCUST, "-H", reference.url, "--headless", "-u", "1", "-t", "2s", "--out", str(tmp_path)]
    command += ["--wire", "direct", "--backend", "ref-50x20+60000ms"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=END_S)
    assert Results(tmp_path).block("ref-50x20+60000ms")["requests"]["interrupted"] == 1
    assert done.returncode == 4, done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-H", "http://127.0.0.1:9", "--backend", BACKEND, "--mix", "mud"], "There is no mix 'mud'"),
        (["-H", "http://127.0.0.1:9"], "http://127.0.0.1:9/v1/models lists no models"),
        ([], "Say where: -H http://127.0.0.1:8000"),
        (["--processes", "2"], "Say where: -H http://127.0.0.1:8000"),
        (["-H", "http://127.0.0.1:9", "--backend", "a,b,c,d,e,f,g,h,i"], "At most eight backends in one run"),
        (["-H", "http://127.0.0.1:9", "ChatSocketUser", "DirectUser"], "ChatSocketUser and DirectUser have different"),
        (["-H", "http://127.0.0.1:9", "--wire", "ws", "DirectUser"], "DirectUser has the wire direct; leave --wire ws"),
    ],
)
def test_plain_locust_ends_at_once_where_it_cannot_be_run_and_says_why(arguments: list[str], sentence: str) -> None:
    port = str(free_port())
    command = [*LOCUST, "--headless", "-u", "1", "-t", "30s", "--master-bind-port", port, "--master-port", port]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=END_S)
    assert done.returncode == 2
    assert done.stderr.count(f"not started: {sentence}") == 1
    assert "Traceback" not in done.stderr
    assert "Ramping" not in done.stderr, "nobody was brought for it"


def test_locusts_own_page_says_what_it_was_not_told_and_starts_once_it_is(tmp_path: Path, live_app: LiveApp) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [*LOCUST, "--web-host", "127.0.0.1", "--web-port", str(port), "--backend", BACKEND]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stderr=output, stdin=subprocess.DEVNULL)
    with ending(process, log):
        assert until(lambda: answers(f"http://127.0.0.1:{port}/"))
        press(port, "swarm", host="")
        assert until(lambda: "not started: Say where" in log.read_text())
        press(port, "swarm", host=live_app.url)
        assert until(lambda: "All users spawned" in log.read_text())
        press(port, "stop")
        press(port, "swarm", host="http://127.0.0.1:9", backend="")
        assert until(lambda: "lists no models" in log.read_text())
        process.terminate()
        assert process.wait(END_S) == 2
    assert "Traceback" not in log.read_text()


def press(port: int, button: str, **fields: str) -> None:
    """Press a button of Locust's own page."""
    form = urlencode({"user_count": 1, "spawn_rate": 1, **fields}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{port}/{button}", form, timeout=30).close()
