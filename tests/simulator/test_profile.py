import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.examples import TABLE
from webapp.simulator.profile import PROFILE_DIR, Profile, ProfileError, from_table, load, load_all


def test_the_shipped_profiles_load_the_fastest_first() -> None:
    profiles = load_all()
    assert {"wse3-gpt-oss-120b", "groq-gpt-oss-120b", "h100x2-llama-70b", "oci-llama-70b"} <= set(profiles)
    speeds = [profile.tok_s for profile in profiles.values()]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] > 2000
    assert speeds[-1] < 60


@pytest.mark.parametrize("path", sorted(PROFILE_DIR.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_profile_names_its_source_and_its_error(path: Path) -> None:
    profile = load(path)
    assert profile.slug == path.stem
    assert len(profile.source) > 10
    assert "20" in profile.date
    assert len(profile.error) > 10
    assert profile.model.split("-")[-1].casefold() in profile.slug.casefold()


def test_the_time_to_first_token_of_the_worked_example_is_that_of_the_published_table() -> None:
    # NVIDIA's NIM table: 5,000 prompt tokens on 2 H100 take 407 ms to the first token.
    profile = load_all()["h100x2-llama-70b"]
    ttft_ms = profile.api_ms + profile.ttft_base_ms + 5000 / profile.prefill_tok_s * 1000
    assert ttft_ms == pytest.approx(407, rel=0.03)


def test_the_documented_first_token_of_the_cloud_service_is_met() -> None:
    profile = load_all()["oci-llama-70b"]
    ttft_ms = profile.api_ms + profile.ttft_base_ms + 480 / profile.prefill_tok_s * 1000
    assert ttft_ms == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tok_s", 0),
        ("tok_s", -3.0),
        ("tok_s", math.inf),
        ("tok_s", math.nan),
        ("tok_s", "fast"),
        ("tok_s", True),
        ("api_ms", -1),
        ("devices", 1.5),
        ("chunk_tokens", 0),
        ("jitter_sigma", 2),
        ("label", ""),
        ("label", 7),
        ("status", "X"),
        ("confidence", "very"),
        ("reasoning_field", "thoughts"),
        ("reasoning_tokens", 12),
        ("price_out_usd", 1.0),
        ("kw_source", 5),
        ("tok_per_s", 5),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(ProfileError) as refused:
        from_table({**TABLE, field: value}, "wrong.toml")
    assert refused.value.field == field
    assert str(refused.value).startswith(f"wrong.toml: {field} ")


@pytest.mark.parametrize("field", ["label", "tok_s", "source", "date", "status", "error"])
def test_a_missing_entry_is_refused_with_its_name(field: str) -> None:
    with pytest.raises(ProfileError, match=f"{field} is missing"):
        from_table({name: value for name, value in TABLE.items() if name != field}, "wrong.toml")


def test_a_price_or_a_power_needs_its_source() -> None:
    with pytest.raises(ProfileError, match="price_source"):
        from_table({**TABLE, "price_in_usd": 1, "price_out_usd": 2}, "wrong.toml")
    with pytest.raises(ProfileError, match="kw_source"):
        from_table({**TABLE, "kw_all_in": 1}, "wrong.toml")


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(b"label = \xff")
    with pytest.raises(ProfileError, match=r"broken\.toml: file is not TOML"):
        load(path)


@given(
    st.sampled_from([*TABLE, "chunk_tokens", "reasoning_tokens", "kw_all_in", "nonsense"]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
)
def test_any_value_makes_a_usable_profile_or_a_named_error(field: str, value: Any) -> None:
    made: Profile | ProfileError
    try:
        made = from_table({**TABLE, field: value}, "any.toml")
    except ProfileError as problem:
        made = problem
    if isinstance(made, ProfileError):
        assert made.field
        assert made.field in str(made)
    else:
        assert made.tok_s > 0
        assert math.isfinite(made.api_ms + made.ttft_base_ms + made.prefill_tok_s)
