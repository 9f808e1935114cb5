"""The check of the pace: what its figures mean, and that it runs."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.hostwatch import measurements
from tests.simulator.examples import TABLE, body, profile
from webapp.simulator import check, check_reader
from webapp.simulator.check import Row, Trace, row, steady, table
from webapp.simulator.check_profiles import write_profiles
from webapp.simulator.check_reader import NotMeasured
from webapp.simulator.engine import Ask, Engine
from webapp.simulator.profile import load_all
from webapp.simulator.request import parse_chat
from webapp.simulator.virtual import Arrival, run_virtual

ROOT = Path(__file__).parents[2]
MS = 1_000_000


def trace(late_ms: list[float], pace_ms: float = 10.0, from_ms: float = 0.0) -> Trace:
    due_ns = [int((from_ms + place * pace_ms) * MS) for place in range(len(late_ms))]
    came_ns = [due + int(late * MS) for due, late in zip(due_ns, late_ms, strict=True)]
    return Trace(due_ns, [at - int(late * MS / 2) for at, late in zip(came_ns, late_ms, strict=True)], came_ns)


def test_a_pace_that_is_kept_has_no_error() -> None:
    found = row("x", [trace([0.5] * 100)], tok_s=100)
    assert found.rate_error == pytest.approx(0)
    assert (found.sent_p50_ms, found.sent_p99_ms) == (0.25, 0.25)
    assert (found.came_p50_ms, found.came_p99_ms, found.gap_p99_ms) == (0.5, 0.5, 0.0)
    assert found.met


def test_a_pace_that_drifts_is_too_slow_by_as_much() -> None:
    found = row("x", [trace([place * 0.2 for place in range(101)])], tok_s=100)
    assert found.rate_error == pytest.approx(1 / 1.02 - 1)
    assert found.came_p99_ms == pytest.approx(20.0, rel=0.02)
    assert found.gap_p99_ms == pytest.approx(0.2)
    assert not found.met


def test_one_late_token_is_no_slow_pace_but_shows_in_the_gaps() -> None:
    found = row("x", [trace([0.0] * 50 + [8.0] + [0.0] * 49)], tok_s=100)
    assert found.met
    assert found.gap_p99_ms == 8.0
    assert found.came_p50_ms == 0.0


def test_streams_are_measured_from_when_all_of_them_are_under_way() -> None:
    early, late = trace([0.0] * 200), trace([0.0] * 200, from_ms=500)
    assert [one.came_ns[0] for one in steady([early, late])] == [700 * MS, 700 * MS]
    assert steady([early]) == [early]


def test_the_table_has_a_line_for_each_row_under_its_heads() -> None:
    lines = table([row("simulator", [trace([0.5] * 100)], 100)]).splitlines()
    assert lines[0].split()[-15:-11] == ["by", "streams", "tok/s", "rate"]
    assert lines[1].split() == ["simulator", "1", "100.0", "+0.00%", "0.250", "0.250", "0.500", "0.500", "0.000"]
    assert len(lines[0]) == len(lines[1])


@pytest.mark.parametrize(("streams", "tok_s"), check.CELLS)
def test_the_machines_of_the_check_give_every_stream_its_rate(tmp_path: Path, streams: int, tok_s: int) -> None:
    serving = load_all(write_profiles(tmp_path))[f"check-{tok_s}"].serving
    run = run_virtual(Engine(serving), [Arrival(0, 10, 50)] * streams)
    assert {record.tpot_ns for record in run.records} == {1e9 / tok_s}


def test_where_everybody_waits_one_is_served_at_a_time(tmp_path: Path) -> None:
    engine = Engine(load_all(write_profiles(tmp_path))["check-wait"].serving)
    for number in range(3):
        engine.submit(Ask(number, 10, 50))
    engine.step(0)
    assert (engine.running, engine.waiting) == (1, 2)


async def test_the_whole_path_is_measured_over_real_sockets(tmp_path: Path) -> None:
    with check.Served(write_profiles(tmp_path)) as server:
        for measurement in measurements():
            traces = await check.read(server.port, "check-2000", 3, 300)
            assert [len(one.due_ns) for one in traces] == [300, 300, 300]
            assert all(came >= due for one in traces for due, came in zip(one.due_ns, one.came_ns, strict=True))
            with measurement:
                assert row("x", [traces[0]], 2000).rate_error == pytest.approx(0, abs=0.2)
        assert server.resident_bytes()


@pytest.mark.parametrize(
    ("tok_s", "chunk_tokens", "context_tokens", "tokens"),
    [(1800, 1, 2048, 2043), (1800, 1, 131_072, 3600), (5, 1, 131_072, 20), (5, 64, 131_072, 1280)],
)
def test_a_profile_is_asked_for_no_more_than_its_context_has_room_for(
    tok_s: float, chunk_tokens: int, context_tokens: int, tokens: int
) -> None:
    model = {**TABLE["model"], "context_tokens": context_tokens}
    mine = profile(tok_s=tok_s, chunk_tokens=chunk_tokens, model=model)
    assert check.tokens_to_ask(mine) == tokens
    assert parse_chat(orjson.dumps(body(check_reader.PROMPT, max_tokens=tokens)), {"quick": mine})


async def test_a_refusal_is_an_answer_and_not_waited_upon(tmp_path: Path) -> None:
    with check.Served(write_profiles(tmp_path)) as server:
        with pytest.raises(
            NotMeasured, match=r"^nobody: the simulator answered 404: The model 'nobody' does not exist"
        ):
            await check.read(server.port, "nobody", 2, 20)
        with pytest.raises(NotMeasured, match=r"^check-50\+reset: the simulator ended the stream early$"):
            await check.read(server.port, "check-50+reset", 1, 200)


async def test_a_pace_shows_in_what_came_in_time_and_a_profile_too_slow_for_it_is_named(tmp_path: Path) -> None:
    short = write_profiles(tmp_path) / "check-2000.toml"
    short.write_text(short.read_text().replace("131072", "256"))
    profiles = load_all(tmp_path)
    mine = {slug: profiles[slug] for slug in ("check-2000", "check-50", "check-wait")}
    for measurement in measurements():
        rows, unmeasured = await check._measure_profiles(tmp_path, mine, most_s=0.5)  # 2 s, had check-50 time
        with measurement:
            assert [one.name for one in rows] == ["check-2000", "check-50"]
    (problem,) = unmeasured
    assert str(problem).startswith("check-wait: no pace shows in what came within 0.5 s (")


def test_what_was_not_measured_is_said_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nothing() -> list[Row]:
        return []

    async def late() -> float | None:
        raise NotMeasured("they did not come to wait")

    async def unmeasured(*_: object) -> tuple[list[Row], list[NotMeasured]]:
        return [], [NotMeasured("mine: no pace shows")]

    monkeypatch.setattr(check, "_measure", nothing)
    monkeypatch.setattr(check, "_measure_profiles", unmeasured)
    monkeypatch.setattr(check, "waiting_bytes", late)
    assert check.check(write_profiles(tmp_path)) == 1
    said = capsys.readouterr()
    assert said.err == "mine: no pace shows\nthey did not come to wait\n"
    assert "A waiting request takes n/a of memory" in said.out


async def test_requests_that_do_not_come_to_wait_in_time_are_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "PATIENCE_S", 0.0)
    with pytest.raises(NotMeasured, match=r"^\d+ requests did not come to wait within 0 s: this host is too slow\.$"):
        await check.waiting_bytes()


@pytest.mark.parametrize(
    ("text", "field"), [("layer_us = -1", "layer_us"), ('machine = "abacus"', "machine"), ("colour = 3", "colour")]
)
def test_a_wrong_profile_is_refused_by_the_name_of_its_field(tmp_path: Path, text: str, field: str) -> None:
    path = write_profiles(tmp_path) / "check-50.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(field)]
    kept = "\n".join(lines).partition("[machine]")[0] if field == "machine" else "\n".join(lines)
    path.write_text(f"{text}\n{kept}")
    for extra in (["--check"], ["--port", "0"]):
        command = [sys.executable, "-m", "webapp.simulator", "--profiles", str(tmp_path), *extra]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert done.stderr.startswith(f"check-50.toml: {field} ")
        assert done.stderr.count("\n") == 1


def test_a_folder_that_is_not_there_is_refused() -> None:
    command = [sys.executable, "-m", "webapp.simulator", "--check", "--profiles", "/nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "/nowhere is not a folder" in done.stderr
