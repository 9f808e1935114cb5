import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.examples import TABLE, profile
from webapp.simulator.costs import Load, costs_of, kv_capacity
from webapp.simulator.engine import Ask, Engine
from webapp.simulator.profile import PROFILE_DIR, Catalogue, Profile, ProfileError, from_table, load, load_all

CATALOGUE = Catalogue.load(PROFILE_DIR)
SERVED = sorted((PROFILE_DIR / "served").glob("*.toml"))


def test_the_shipped_profiles_load_the_fastest_first() -> None:
    profiles = load_all()
    assert {"wse3-gpt-oss-120b", "groq-gpt-oss-120b", "h100x2-llama-70b", "oci-llama-70b"} <= set(profiles)
    speeds = [each.tok_s for each in profiles.values()]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] > 2000
    assert speeds[-1] < 60


def test_every_machine_and_model_that_ships_is_served_somewhere() -> None:
    servings = [each.serving for each in load_all().values()]
    assert {serving.model.slug for serving in servings} == set(CATALOGUE.models)
    # The B300 stands for rows of the validation only.
    assert {serving.machine.slug for serving in servings} == set(CATALOGUE.machines) - {"b300"}


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.stem)
def test_a_shipped_profile_names_its_source_and_its_error(path: Path) -> None:
    served = load(path, CATALOGUE)
    assert served.slug == path.stem
    assert len(served.source) > 10
    assert "20" in served.date
    assert len(served.error) > 10
    assert len(served.calibrated_on) > 10
    assert served.family in served.slug
    assert served.chunk_tokens >= 1
    assert served.context_tokens >= 32_000


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.stem)
def test_what_is_set_to_a_figure_meets_it_and_the_others_say_by_how_much_they_miss(path: Path) -> None:
    served = load(path, CATALOGUE)
    for place, figure in enumerate(served.figures):
        if served.status == "A" and place == 0:
            assert served.tok_s == pytest.approx(figure.tok_s, rel=0.01)
        elif place == 0:
            assert served.tok_s == pytest.approx(figure.tok_s, rel=0.10)


@pytest.mark.parametrize(
    ("slug", "tok_s"),
    [
        ("h100-llama-8b", 235),
        ("h100x2-gpt-oss-120b", 251),
        ("mi300x8-llama-70b", 117),
        ("mi300x8-llama-405b", 40),
        ("gaudi3-llama-8b", 225),
        ("gaudi3x8-llama-70b", 123),
        ("mi355x8-gpt-oss-120b", 298),
        ("b200-llama-70b", 69),
    ],
)
def test_one_user_of_the_worked_table_gets_its_pace(slug: str, tok_s: float) -> None:
    assert load_all()[slug].tok_s == pytest.approx(tok_s, rel=0.02)


def test_the_documented_first_token_of_the_cloud_service_is_met() -> None:
    served = load_all()["oci-llama-70b"]
    engine = Engine(served.serving)
    engine.submit(Ask(1, 480, 2))
    step = engine.step(0)
    assert step is not None
    assert served.api_ms + step.ends_ns / 1e6 == pytest.approx(50, abs=8)


def test_four_wafers_hold_as_many_conversations_as_the_arithmetic_says() -> None:
    serving = load_all()["wse3-gpt-oss-120b"].serving
    assert kv_capacity(serving) / serving.model.resident(2048) == pytest.approx(1450, rel=0.1)


def test_power_is_that_of_all_devices() -> None:
    assert load_all()["h100x2-llama-70b"].kw_all_in == pytest.approx(3.46)
    assert load_all()["groq-llama-70b"].kw_all_in is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_us", 0),
        ("layer_us", -3.0),
        ("layer_us", 1e-9),
        ("layer_us", math.inf),
        ("layer_us", math.nan),
        ("layer_us", "fast"),
        ("layer_us", True),
        ("prefill_tok_s", 0),
        ("prefill_tok_s", 5e-324),
        ("api_ms", -1),
        ("token_us", 1e6),
        ("devices", 1.5),
        ("devices", 0),
        ("chunk_tokens", 0),
        ("jitter_sigma", 2),
        ("precision", "fp2"),
        ("machine", "h100000"),
        ("machine", 7),
        ("model", ["llama-70b"]),
        ("label", ""),
        ("label", 7),
        ("status", "X"),
        ("confidence", "very"),
        ("reasoning_field", "thoughts"),
        ("reasoning_tokens", 12),
        ("price_out_usd", 1.0),
        ("price_source", 5),
        ("speculation", 3),
        ("figures", 3),
        ("figures", [3]),
        ("serving", 3),
        ("tok_per_s", 5),
        ("batch_tokens", 1000),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(ProfileError) as refused:
        from_table({**TABLE, field: value}, "wrong.toml", CATALOGUE)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"wrong.toml: {field} ")


GPU_TABLE = {
    **{name: value for name, value in TABLE.items() if name not in ("slots", "prefill_tok_s", "max_sequences")},
    "machine": "h100",
    "model": "llama-8b",
}
MOE = {"experts": 8, "experts_per_token": 2, "expert_b": 0.0005}
BANDWIDTH = {"kind": "bandwidth", "bandwidth_tb_s": 1.0, "bf16_tflops": 1.0, "link_gb_s": 1.0}


@pytest.mark.parametrize(
    ("part", "entries", "field"),
    [
        ("machine", {"memory_gb": 0}, "memory_gb"),
        ("machine", {"kind": "magic"}, "kind"),
        ("machine", {**BANDWIDTH, "bandwidth_tb_s": 0}, "bandwidth_tb_s"),
        ("machine", {**BANDWIDTH, "bf16_tflops": 0}, "bf16_tflops"),
        ("machine", {**BANDWIDTH, "fp8_tflops": 1e-300}, "fp8_tflops"),
        ("machine", {"bandwidth_share": 1.1}, "bandwidth_share"),
        ("machine", {"names": "h100"}, "names"),
        ("machine", {"colour": "green"}, "colour"),
        ("model", {"layers": 0}, "layers"),
        ("model", {"layers": 1.5}, "layers"),
        ("model", {"experts": 8}, "experts"),
        ("model", {**MOE, "experts_per_token": 9}, "experts_per_token"),
        ("model", {**MOE, "expert_b": 5.0}, "expert_b"),
        ("model", {"window_share": 0.5}, "window_tokens"),
        ("model", {"dense_precision": "int3"}, "dense_precision"),
    ],
)
def test_a_wrong_entry_of_a_machine_or_model_is_refused_with_its_name(
    part: str, entries: Mapping[str, Any], field: str
) -> None:
    with pytest.raises(ProfileError) as refused:
        from_table({**TABLE, part: {**TABLE[part], **entries}}, "wrong.toml", CATALOGUE)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"wrong.toml {part}: {field} ")


def test_devices_that_cannot_hold_the_weights_or_talk_to_each_other_are_refused() -> None:
    with pytest.raises(ProfileError, match="devices are too few"):
        from_table({**TABLE, "model": "llama-405b", "machine": "h100"}, "wrong.toml", CATALOGUE)
    lonely = {**TABLE["machine"], **BANDWIDTH, "link_gb_s": 0}
    with pytest.raises(ProfileError, match="link_gb_s of the machine"):
        from_table({**TABLE, "machine": lonely, "devices": 2, "batch_tokens": 4096}, "wrong.toml", CATALOGUE)


@pytest.mark.parametrize(("groups", "devices"), [(16, 8), (3, 8), (4, 1)])
def test_groups_that_the_devices_do_not_divide_into_are_refused(groups: int, devices: int) -> None:
    table = {**GPU_TABLE, "devices": devices, "data_parallel": groups}
    with pytest.raises(ProfileError, match=rf"data_parallel must divide the devices, of which there are {devices}$"):
        from_table(table, "wrong.toml", CATALOGUE)
    assert from_table({**GPU_TABLE, "devices": 8, "data_parallel": 4}, "right.toml", CATALOGUE)


@pytest.mark.parametrize(
    ("machine", "field", "value"),
    [
        ("h100", "slots", 36),
        ("h100", "prefill_tok_s", 15_000.0),
        ("wse-3", "whole_prompts", True),
        ("wse-3", "arithmetic", "bf16"),
        ("h100", "arithmetic", "fp4"),  # it has no such units
    ],
)
def test_what_would_do_nothing_on_its_machine_is_refused_with_its_name(machine: str, field: str, value: Any) -> None:
    rate = {"prefill_tok_s": 15_000.0} if machine == "wse-3" else {}
    table = {**GPU_TABLE, **rate, "machine": machine}
    assert from_table(table, "right.toml", CATALOGUE)
    with pytest.raises(ProfileError) as refused:
        from_table({**table, field: value}, "wrong.toml", CATALOGUE)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"wrong.toml: {field} ")


@pytest.mark.parametrize("field", ["label", "machine", "model", "layer_us", "source", "date", "status", "error"])
def test_a_missing_entry_is_refused_with_its_name(field: str) -> None:
    with pytest.raises(ProfileError, match=f"{field} is missing"):
        from_table({name: value for name, value in TABLE.items() if name != field}, "wrong.toml", CATALOGUE)


def test_a_price_needs_its_source() -> None:
    with pytest.raises(ProfileError, match="price_source"):
        from_table({**TABLE, "price_in_usd": 1, "price_out_usd": 2}, "wrong.toml", CATALOGUE)


def test_a_misspelt_entry_is_refused_before_the_one_that_is_missing_for_it() -> None:
    misspelt = {name.replace("layer_us", "layr_us"): value for name, value in TABLE.items()}
    with pytest.raises(ProfileError, match=r"layr_us is not a field of a profile; did you mean layer_us\?"):
        from_table(misspelt, "wrong.toml", CATALOGUE)


def test_bounds_are_told_in_whole_digits() -> None:
    with pytest.raises(ProfileError, match=r"must lie between 0 and 1,000,000, not -1$"):
        from_table({**TABLE, "layer_us": -1}, "wrong.toml", CATALOGUE)


def test_the_example_in_the_help_is_a_profile() -> None:
    page = (PROFILE_DIR.parents[2] / "templates/help/simulator.html").read_text(encoding="utf-8")
    example = page.partition('<code id="profile-example">')[2].partition("</code>")[0]
    made = from_table({"slug": "mine", **tomllib.loads(example)}, "the help page")
    assert (made.label, made.serving.devices) == ("My server", 2)


def test_drafts_of_a_profile_raise_its_pace() -> None:
    drafting = profile(speculation={"draft_tokens": 3, "accept": 0.824, "decay": 0.965})
    assert drafting.tok_s == pytest.approx(2000 * 2.98, rel=0.01)


@given(
    st.sampled_from([*TABLE, "chunk_tokens", "reasoning_tokens", "speculation", "figures", "nonsense"]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
)
def test_any_value_makes_a_usable_profile_or_a_named_error(field: str, value: Any) -> None:
    made: Profile | ProfileError
    try:
        made = from_table({**TABLE, field: value}, "any.toml", CATALOGUE)
    except ProfileError as problem:
        made = problem
    if isinstance(made, ProfileError):
        assert made.field
        assert made.field in str(made)
    else:
        assert made.tok_s > 0
        prompt = Load(0, 0.0, 4000, made.serving.model.reach(0, 4000))
        assert math.isfinite(made.api_ms + sum(costs_of(made.serving).split(prompt)))
