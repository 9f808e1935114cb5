"""Every figure on the page has its definition, and no definition is of a figure that is nowhere."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import webapp

ROOT = Path(webapp.__file__).parent
DEFINITIONS = tomllib.loads((ROOT / "definitions.toml").read_text("utf-8"))["definitions"]
MAKERS = {"Figure", "_time", "_figure"}  # calls whose first argument is a figure's key


def keys_in_code(path: Path) -> set[str]:
    """Return the keys given to figures in a module, those in a table of (key, label) pairs included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS and node.args:
            found |= words(node.args[0])
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["_SECONDARY"]:
            found |= {row.elts[0].value for row in node.value.elts}  # type: ignore[attr-defined]
    return found


def words(node: ast.expr) -> set[str]:
    """Return the constant strings that an expression may come to."""
    if isinstance(node, ast.Constant):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return words(node.body) | words(node.orelse)
    return set()


def keys_on_the_page() -> set[str]:
    in_code = set().union(*(keys_in_code(path) for path in (ROOT / "views").glob("*.py")))
    templates = "".join(path.read_text("utf-8") for path in (ROOT.parent / "templates").rglob("*.html"))
    return in_code | set(re.findall(r'data-define="([a-z0-9_]+)"', templates))


def test_the_search_finds_keys_of_every_sort():
    assert {"ttft", "tpot", "elapsed", "e2e", "cost", "phases", "race", "skew"} <= keys_on_the_page()


def test_every_figure_on_the_page_is_defined_and_every_definition_is_of_a_figure_there():
    assert keys_on_the_page() == {definition["key"] for definition in DEFINITIONS}


def test_no_figure_is_defined_twice():
    assert len({definition["key"] for definition in DEFINITIONS}) == len(DEFINITIONS)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition["key"])
def test_a_definition_says_everything_that_one_needs_to_judge_the_number(definition: dict[str, str]):
    assert set(definition) == {"key", "name", "short", "formula", "clock", "start", "end", "error"}
    assert all(text.strip() == text != "" for text in definition.values())
    assert definition["short"].endswith(".")
