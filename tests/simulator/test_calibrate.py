"""The three probes: taken in virtual time, where the truth is known, and once over real sockets."""

import io
import tomllib
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from webapp.models import Backend
from webapp.simulator.calibrate import LONG, MANY, SHORT, Fit, Forecast, Probe, forecast, predict, solve
from webapp.simulator.calibrate_profile import error_of, profile_text
from webapp.simulator.check import Served
from webapp.simulator.driver import front_end
from webapp.simulator.engine import Engine
from webapp.simulator.hardware import Serving
from webapp.simulator.profile import Profile, from_table, load_all
from webapp.simulator.virtual import Arrival, run_virtual

API_MS = 30.0
NAMES = {"label": "L", "hardware": "H", "family": "F"}


def probes_of(serving: Serving, noise: float = 0.0) -> list[Probe]:
    """Return what the probes would measure, the later ones `noise` too much."""
    tokens = 1024 if serving.machine.kind == "latency" else 128
    asked = (Probe(SHORT, 1, 49, tokens, 0, 0), Probe(LONG, 1, 8000, tokens, 0, 0), Probe(MANY, 32, 49, tokens, 0, 0))
    found = [predict(serving, probe, API_MS) for probe in asked]
    more = 1 + noise
    return [found[0], *(replace(one, ttft_s=one.ttft_s * more, tpot_s=one.tpot_s * more) for one in found[1:])]


def blank(serving: Serving) -> Serving:
    """Return a serving without what is to be found out."""
    machine = replace(serving.machine, fp8_share=0.3, bf16_share=0.3, fp4_share=0.2, sequence_us=5.0)
    return replace(serving, machine=machine, layer_us=20.0, slots=0, prefill_tok_s=serving.prefill_tok_s and 1000.0)


def tpot_s(serving: Serving, users: int) -> float:
    return predict(serving, Probe("", users, 500, 100, 0, 0), 0.0).tpot_s


@pytest.mark.parametrize("slug", ["h100x2-llama-70b", "mi300x8-llama-70b", "h100x2-gpt-oss-120b", "gaudi3-llama-8b"])
def test_the_constants_of_a_known_machine_are_recovered(slug: str) -> None:
    truth = load_all()[slug].serving
    fit = solve(blank(truth), probes_of(truth))
    assert fit.serving.layer_us == pytest.approx(truth.layer_us, rel=0.02)
    assert fit.serving.machine.sequence_us == pytest.approx(truth.machine.sequence_us, rel=0.05)
    assert fit.api_ms == pytest.approx(API_MS, rel=0.05)
    assert fit.error < 0.005


@pytest.mark.parametrize("slug", ["h100x2-llama-70b", "mi300x8-llama-70b"])
def test_the_share_of_the_arithmetic_is_recovered_where_prompts_are_arithmetic(slug: str) -> None:
    truth = load_all()[slug].serving
    found = solve(blank(truth), probes_of(truth)).serving.machine
    assert found.fp8_share == pytest.approx(truth.machine.fp8_share, rel=0.03)


@pytest.mark.parametrize(("slots", "found"), [(8, 8), (20, 20), (64, 80)])
def test_the_slots_of_a_pipeline_are_recovered_where_they_were_short(slots: int, found: int) -> None:
    truth = replace(load_all()["wse3-llama-70b"].serving, slots=slots, speculation=None)
    fit = solve(blank(truth), probes_of(truth))
    assert fit.serving.slots == found
    assert fit.serving.layer_us == pytest.approx(truth.layer_us, rel=0.02)
    assert fit.serving.prefill_tok_s == pytest.approx(truth.prefill_tok_s, rel=0.05)


@pytest.mark.parametrize("noise", [-0.03, 0.0, 0.03])
@pytest.mark.parametrize("slug", ["h100x2-llama-70b", "mi300x8-llama-70b", "h100x2-gpt-oss-120b", "gaudi3-llama-8b"])
def test_the_pace_at_256_users_is_within_the_error_that_is_stated(slug: str, noise: float) -> None:
    truth = load_all()[slug].serving
    probes = [replace(probe, noise=abs(noise)) for probe in probes_of(truth, noise)]
    fit = solve(blank(truth), probes)
    beyond = forecast(fit, probes)
    assert beyond.error <= (0.15 if noise else 0.01)
    assert beyond.tpot_s == pytest.approx(tpot_s(truth, 256), rel=beyond.error + 0.005)


def measured(profile: Profile, probe: Probe) -> Probe:
    """Return what a probe measures of a profile, its front end included."""
    front = front_end(profile)
    api_ns = int(profile.api_ms * 1e6) - front.request_ns
    arrivals = [Arrival(0, probe.prompt_tokens, probe.output_tokens)] * probe.users
    records = run_virtual(
        Engine(replace(profile.serving, jitter_sigma=0.0)), arrivals, api_ns=api_ns, front=front
    ).records
    ttft_s = fmean(record.ttft_ns for record in records) / 1e9
    return replace(probe, ttft_s=ttft_s, tpot_s=fmean(record.tpot_ns or 0.0 for record in records) / 1e9)


@pytest.mark.parametrize(
    ("slug", "explained", "said"),
    [("h100-llama-8b", False, True), ("h100x2-llama-70b", False, False), ("h100x4-qwen3-32b", True, False)],
)
def test_what_the_engine_does_not_explain_is_in_the_error_and_said(slug: str, explained: bool, said: bool) -> None:
    truth = load_all()[slug]
    asked = (Probe(SHORT, 1, 49, 128, 0, 0), Probe(LONG, 1, 8000, 128, 0, 0), Probe(MANY, 32, 49, 128, 0, 0))
    probes = [measured(truth, probe) for probe in asked]
    fit = solve(blank(truth.serving), probes)
    beyond = forecast(fit, probes)
    there = measured(truth, Probe("", 256, 500, 100, 0, 0)).tpot_s
    assert beyond.tpot_s == pytest.approx(there, rel=beyond.error + 0.005)
    assert ("something else takes its time" in error_of(fit, beyond)) is said
    assert (beyond.error < 0.01) is explained


def test_a_crowd_that_is_slower_by_no_more_than_its_noise_says_nothing_of_slots() -> None:
    truth = load_all()["wse3-llama-70b"].serving
    probes = probes_of(truth)
    stalled = [*probes[:2], replace(probes[2], tpot_s=probes[2].tpot_s * 1.08, noise=0.05)]
    assert solve(truth, stalled).serving.slots == truth.model.layers


@pytest.mark.parametrize("noise", [-0.03, 0.03])
@pytest.mark.parametrize("slug", ["h100x2-llama-70b", "mi300x8-llama-70b", "h200x8-minimax-m2.5"])
def test_the_pace_at_64_users_is_predicted_within_a_tenth(slug: str, noise: float) -> None:
    truth = load_all()[slug].serving
    fit = solve(blank(truth), probes_of(truth, noise))
    assert tpot_s(fit.serving, 64) == pytest.approx(tpot_s(truth, 64), rel=0.10)


def test_the_error_is_what_the_fit_leaves_over() -> None:
    truth = load_all()["h100x2-llama-70b"].serving
    probes = probes_of(truth)
    slow = [*probes[:2], replace(probes[2], ttft_s=probes[2].ttft_s * 2)]
    fit = solve(blank(truth), slow)
    assert fit.misses["many TTFT"] == pytest.approx(-0.5, abs=0.01)
    assert fit.error == pytest.approx(0.5 / 6, abs=0.01)


@pytest.mark.parametrize("slug", sorted(load_all()))
def test_what_is_written_is_read_as_the_same_serving(slug: str) -> None:
    truth = load_all()[slug].serving
    fit = Fit(truth, API_MS, {"short TTFT": 0.01})
    text = profile_text(NAMES, fit, tuple(probes_of(truth)), Forecast(256, 0.05, 0.1), "a test", "2026-11-22")
    read = from_table({"slug": "x", **tomllib.loads(text)}, "x").serving
    own = replace(truth, machine=replace(truth.machine, slug="own"), model=replace(truth.model, slug="own"))
    assert read == own


# Slow, so that a busy host's lateness is a small part of what is measured.
PROFILE = """
label = "Truth"
hardware = "none"
family = "f"
machine = "h100"
model = "llama-8b"
devices = 1
precision = "fp8"
layer_us = 500.0
api_ms = 10.0
source = "this test"
date = "2026-11"
calibrated_on = "nothing"
error = "none"
status = "A"
confidence = "H"
"""


@pytest.mark.django_db
def test_an_endpoint_is_probed_over_its_socket_and_written_as_a_profile(tmp_path: Path) -> None:
    (tmp_path / "truth.toml").write_text(PROFILE)
    truth = load_all(tmp_path)["truth"].serving
    out = tmp_path / "found.toml"
    with Served(tmp_path) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        Backend.objects.create(slug="mine", label="Mine", kind="openai", model="truth", base_url=url)
        options = {"backend": "mine", "out": out, "machine": "h100", "model": "llama-8b", "tokens": 20}
        call_command("calibrate", **options, stdout=io.StringIO())
    found = load_all(tmp_path)["found"]
    assert found.serving.layer_us == pytest.approx(truth.layer_us, rel=0.10)
    assert tpot_s(found.serving, 64) == pytest.approx(tpot_s(truth, 64), rel=0.10)
    assert "mean over the 6 figures" in found.error
    assert "at 256 users" in found.error


@pytest.mark.django_db
@pytest.mark.parametrize(("model", "machine"), [("wse3-gpt-oss-120b", "b200"), ("b200-gpt-oss-120b", "wse-3")])
def test_a_simulated_backend_may_be_probed_as_another_kind_of_machine(tmp_path: Path, model: str, machine: str) -> None:
    url = "http://127.0.0.1:9/v1"  # nobody listens there
    Backend.objects.create(slug="mine", label="Mine", kind="openai", model=model, base_url=url, badge="SIMULATED")
    with pytest.raises(CommandError, match="mine: "):
        call_command("calibrate", backend="mine", out=tmp_path / "x.toml", machine=machine)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"backend": "nobody"}, "no backend 'nobody'"),
        ({"backend": "mine"}, "--machine: what mine is cannot be known"),
        ({"backend": "mine", "machine": "abacus"}, "--machine: there is no 'abacus'"),
        ({"backend": "mine", "machine": "h100"}, "--model: what mine is cannot be known"),
        ({"backend": "mine", "machine": "h100", "model": "llama-8b", "users": 1}, "--users wants a number"),
        ({"backend": "mine", "machine": "h100", "model": "llama-70b"}, "llama-70b on h100: devices are too few"),
        ({"backend": "mine", "machine": "h100", "model": "llama-8b", "devices": 0}, "devices are too few"),
        (
            {"backend": "mine", "machine": "h100", "model": "llama-8b", "out": Path("mine.txt")},
            "--out: .* ends in .toml",
        ),
        (
            {"backend": "mine", "machine": "h100", "model": "llama-8b", "out": Path("/nowhere/x.toml")},
            "no folder /nowhere",
        ),
        ({"backend": "mine", "machine": "h100", "model": "llama-8b"}, "mine: "),  # nobody listens there
    ],
)
def test_what_is_missing_is_said_in_a_sentence(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    Backend.objects.create(slug="mine", label="Mine", kind="openai", model="x", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(CommandError, match=sentence):
        call_command("calibrate", **{"out": tmp_path / "x.toml", **options})
    assert not (tmp_path / "x.toml").exists()
