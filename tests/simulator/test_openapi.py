"""The published description: it says what the parser does, and holds when somebody reads it to the letter."""

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import pytest

from tests.simulator.examples import PROFILES
from webapp.simulator.openapi import description
from webapp.simulator.request import BadRequest, parse_chat, parse_text
from webapp.simulator.request_fields import CHAT, FIELDS, TEXT

SMALLEST: dict[str, dict[str, Any]] = {
    CHAT: {"model": "quick", "messages": [{"role": "user", "content": "x"}]},
    TEXT: {"model": "quick", "prompt": "x"},
}
PARSERS = {CHAT: parse_chat, TEXT: parse_text}
RANGED = [(shape, field.name, field.schema) for field in FIELDS for shape in field.shapes if "minimum" in field.schema]


@pytest.mark.parametrize(("shape", "name", "schema"), RANGED, ids=lambda part: part if isinstance(part, str) else "")
def test_the_bounds_that_are_published_are_those_that_hold(shape: str, name: str, schema: dict[str, Any]) -> None:
    for value in (schema["minimum"], min(schema["maximum"], 100_000)):
        PARSERS[shape](orjson.dumps({**SMALLEST[shape], name: value}), PROFILES)
    for value in (schema["minimum"] - 1, schema["maximum"] + 1, "x", [], True):
        with pytest.raises(BadRequest) as refused:
            # json: the numbers just beyond 64 bits are what is asked for here
            PARSERS[shape](json.dumps({**SMALLEST[shape], name: value}).encode(), PROFILES)
        assert refused.value.param == name


@pytest.mark.parametrize("shape", [CHAT, TEXT])
def test_every_required_field_is_missed_by_name(shape: str) -> None:
    name = {"chat": "ChatRequest", "text": "CompletionRequest"}[shape]
    for required in description()["components"]["schemas"][name]["required"]:
        table = {key: value for key, value in SMALLEST[shape].items() if key != required}
        with pytest.raises(BadRequest) as refused:
            PARSERS[shape](orjson.dumps(table), PROFILES)
        assert refused.value.param == required


@pytest.mark.parametrize("shape", [CHAT, TEXT])
def test_every_optional_field_may_be_null(shape: str) -> None:
    optional = [field.name for field in FIELDS if shape in field.shapes and not field.required]
    PARSERS[shape](orjson.dumps({**SMALLEST[shape], **dict.fromkeys(optional)}), PROFILES)


async def test_the_description_is_served_and_names_every_path_of_the_server(client: aiohttp.ClientSession) -> None:
    async with client.get("/openapi.json") as response:
        found = await response.json()
    assert found["openapi"] == "3.1.0"
    assert found["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] == list(PROFILES)
    for path, methods in found["paths"].items():
        for method in methods:
            async with client.request(method, path.replace("{slug}", "quick"), data=b"{}") as response:
                assert response.status == (400 if method == "post" else 200)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "$ref")
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    found = description(["quick"])
    names = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert set(references(found)) == names - {"#/components/schemas/x"}
