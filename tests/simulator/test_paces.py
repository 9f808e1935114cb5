"""Two figures of one machine, the maker's and an independent one: either sets the pace, and the server says which."""

import aiohttp
import pytest
from aiohttp import web

from tests.simulator.examples import body
from webapp.simulator.answers import load_book
from webapp.simulator.paces import BY, all_by, figure_of, paced_by, with_both
from webapp.simulator.profile import load_all
from webapp.simulator.server import build_runner

SHIPPED = load_all()
WAFER = "wse3-gpt-oss-120b"


@pytest.mark.parametrize("slug", [slug for slug, profile in SHIPPED.items() if profile.figures])
def test_each_figure_can_set_the_pace(slug: str) -> None:
    for figure in SHIPPED[slug].figures:
        paced = paced_by(SHIPPED[slug], figure)
        assert paced.tok_s == pytest.approx(figure.tok_s, rel=1e-3)
        assert (paced.pace, paced.source, paced.date) == (figure.by, figure.source, figure.date)


@pytest.mark.parametrize("by", BY)
def test_all_profiles_take_that_kind_of_figure_where_they_have_one(by: str) -> None:
    for slug, profile in all_by(SHIPPED, by).items():
        figure = figure_of(SHIPPED[slug], by)
        assert profile == (SHIPPED[slug] if figure is None else paced_by(SHIPPED[slug], figure))


def test_where_the_two_kinds_differ_both_are_models_of_their_own() -> None:
    found = with_both(SHIPPED)
    assert set(SHIPPED) < set(found)
    assert found[f"{WAFER}@vendor"].tok_s == pytest.approx(3000, rel=1e-3)
    assert found[f"{WAFER}@measured"].tok_s == pytest.approx(2059, rel=1e-3)
    assert "groq-llama-8b@vendor" not in found  # nobody independent has measured it


async def test_the_server_says_whose_figure_sets_a_models_pace() -> None:
    runner = build_runner(with_both(SHIPPED), load_book())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
        async with client.get("/v1/models") as response:
            models = {entry["id"]: entry["sim"] for entry in (await response.json())["data"]}
        asking = body(model=f"{WAFER}@vendor+no-done", max_tokens=2)
        async with client.post("/v1/chat/completions", json=asking) as response:
            assert (await response.json())["model"] == f"{WAFER}@vendor+no-done"
    await runner.cleanup()
    assert [models[f"{WAFER}{end}"]["pace"] for end in ("", "@vendor", "@measured")] == ["", "vendor", "measured"]
    assert models[f"{WAFER}@vendor"]["source"] == "Cerebras catalogue"
    assert "(vendor)" in models[f"{WAFER}@vendor"]["label"]
