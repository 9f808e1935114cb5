"""Machines, models and how they are served, small enough to work out by hand, and what a test does with an engine."""

from dataclasses import replace
from statistics import fmean

from webapp.simulator.engine import Engine, Step
from webapp.simulator.hardware import Machine, Model, Serving, Speculation
from webapp.simulator.virtual import Run, all_at_once, closed_loop, uniform_lengths

GPU = Machine("gpu", "GPU", "bandwidth", 80, "this test", "2026", 3.35, 989, 1979, 0, 450)
WAFER = Machine("wafer", "Wafer", "latency", 44, "this test", "2026", memory_share=1.0, reserve_gb=0.0)
DENSE = Model("dense", "Dense 70B", 69.5, 80, 8192, 8192, 163_840, 131_072, "this test", "2026")
SPARSE = Model(
    "sparse", "Sparse", 116.2, 36, 2880, 4096, 36_864, 131_072, "this test", "2026",
    active_b=5.1, expert_b=114.7, experts=128, experts_per_token=4, window_share=0.5, window_tokens=128,
)  # fmt: skip
PAIR = Serving(GPU, DENSE, 2, "fp8", 77.0, kv_bytes=1.0, jitter_sigma=0.0)
TIGHT = replace(PAIR, machine=replace(GPU, memory_gb=44.5))  # the weights and some 12,000 tokens
MIXED = Serving(GPU, SPARSE, 2, "fp4", 88.0, jitter_sigma=0.0)
FAST = Serving(WAFER, SPARSE, 4, "fp4", 13.49, slots=36, prefill_tok_s=15_000, jitter_sigma=0.0)
DRAFTING = replace(MIXED, speculation=Speculation(3, 0.824, 0.965))
CAREFUL = replace(TIGHT, reserves_answers=True)
WHOLE = replace(TIGHT, whole_prompts=True)
SERVINGS = {
    "pair": PAIR, "tight": TIGHT, "mixed": MIXED, "fast": FAST,
    "drafting": DRAFTING, "careful": CAREFUL, "whole": WHOLE,
}  # fmt: skip


def trace(engine: Engine) -> list[Step]:
    """Make steps until there is nothing to do."""
    steps = []
    while (step := engine.step(0)) is not None:
        steps.append(step)
        assert len(steps) < 200_000
    return steps


def loop(serving: Serving, users: int, prompt: int, output: int, rounds: int = 4) -> Run:
    lengths = uniform_lengths(prompt, output, 1.0, 1)
    return closed_loop(Engine(serving, 1), all_at_once(users, lengths), lengths, users * rounds)


def pace(run: Run) -> float:
    """Tokens per second and user."""
    return 1e9 / fmean(record.tpot_ns for record in run.records if record.tpot_ns is not None)


def throughput(run: Run) -> float:
    return sum(record.ask.output_tokens for record in run.records) / run.ends_ns * 1e9
