"""What may import what, what may read a clock, and what may not stand in any file: checked on the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WEBAPP = ROOT / "webapp"
SOURCES = sorted(WEBAPP.rglob("*.py"))
LOAD_GENERATOR = sorted((ROOT / "loadtests").rglob("*.py"))
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
SCRIPTS = sorted((ROOT / "static" / "js").rglob("*.js"))

# Who may import whom, inside webapp. A layer may always import itself; a name that is no layer stands for itself.
MAY_IMPORT = {
    "core": set(),
    "clock": set(),
    "simulator": {"core"},
    "backends": {"core", "clock"},
    "drain": set(),
    "origins": set(),
    "push": set(),
    "models": {"core"},
    "queries": {"core", "models"},
    "services": {"core", "clock", "backends", "queries", "models", "drain", "push", "simulator.profile"},
    "forms": {"core", "services", "models"},
    "views": {"core", "clock", "services", "queries", "models", "backends", "forms", "drain", "origins"},
    "consumers": {"core", "clock", "services", "views", "queries", "forms", "drain", "origins"},
}
# What the pure packages may not know of, in any of its spellings.
NOT_IN_CORE = {"asyncio", "time", "socket", "threading", "django", "gevent", "aiohttp", "os", "pathlib", "subprocess"}
CLOCKS = {"time", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time_ns", "process_time"}
ROW_WRITES = {"create", "bulk_create", "get_or_create", "update_or_create", "update", "bulk_update", "delete"}
MAY_READ_CLOCKS = {"clock.py", "simulator/pacing.py"}
RAW_HTML = re.compile(
    r"\.(?:inner|outer)HTML\s*\+?=(?!=)|insertAdjacentHTML|document\.write|createContextualFragment|setHTML"
)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def name_of(path: Path) -> str:
    """Return a module's dotted name below webapp: "core.sse", "settings"."""
    parts = path.relative_to(WEBAPP).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "webapp"


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a module imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name: str) -> str | None:
    head = name.split(".")[0]
    return head if head in MAY_IMPORT else None


def test_the_search_sees_imports_of_every_sort():
    assert {"webapp.core.sse.SSEDecoder", "dataclasses.field"} <= set(imports(WEBAPP / "core" / "meter.py"))
    assert len(SOURCES) > 50
    assert TEMPLATES
    assert SCRIPTS


@pytest.mark.parametrize("path", [path for path in SOURCES if layer_of(name_of(path))], ids=name_of)
def test_imports_point_downward_only(path: Path):
    layer = layer_of(name_of(path))
    assert layer is not None
    inside = {name.removeprefix("webapp.") for name in imports(path) if name.startswith("webapp.")}
    allowed = MAY_IMPORT[layer] | {layer}
    upward = {name for name in inside if not any(name == each or name.startswith(f"{each}.") for each in allowed)}
    assert not upward


@pytest.mark.parametrize("path", [path for path in SOURCES if layer_of(name_of(path)) == "core"], ids=name_of)
def test_the_core_imports_the_standard_library_and_orjson_only(path: Path):
    roots = {name.split(".")[0] for name in imports(path)} - {"webapp"}
    assert roots <= sys.stdlib_module_names | {"orjson"}
    assert not roots & NOT_IN_CORE


@pytest.mark.parametrize("path", LOAD_GENERATOR, ids=lambda path: path.name)
def test_the_load_generator_knows_the_core_and_the_clock_only(path: Path):
    ours = {name for name in imports(path) if name.startswith("webapp.")}
    assert not {name for name in ours if not name.startswith(("webapp.core.", "webapp.clock."))}


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if layer_of(name_of(path)) in ("clock", "backends", "simulator")], ids=name_of
)
def test_the_edges_know_nothing_of_django(path: Path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("django", "channels", "gevent", "locust")}


@pytest.mark.parametrize("path", [path for path in SOURCES if "migrations" not in path.parts], ids=name_of)
def test_no_import_is_hidden_inside_a_function(path: Path):
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    inner = [n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in inner] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if layer_of(name_of(path)) != "services"], ids=name_of)
def test_services_alone_write_the_database(path: Path):
    calls = [n.func for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    writes = [ast.unparse(f) for f in calls if f.attr in ROW_WRITES and ".objects" in ast.unparse(f.value)]
    assert writes == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_clocks_are_read_in_two_modules_only(path: Path):
    if str(path.relative_to(WEBAPP)) in MAY_READ_CLOCKS:
        return
    taken = {name for name in imports(path) if name.startswith("time.") and name.split(".")[1] in CLOCKS}
    used = {
        ast.unparse(node)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "time" and node.attr in CLOCKS
    }
    assert not taken | used


@pytest.mark.parametrize("package", ["webapp.core", "webapp.backends", "webapp.simulator.server"])
def test_a_fresh_interpreter_gets_the_package_without_django_or_gevent(package: str):
    modules = [name for name in map(name_of, SOURCES) if f"webapp.{name}.".startswith(f"{package}.")]
    program = "import sys, importlib\n" + "".join(f"importlib.import_module('webapp.{name}')\n" for name in modules)
    program += "print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "webapp" in loaded
    assert not loaded & {"django", "channels", "gevent", "locust", "daphne", "twisted"}
    if package == "webapp.core":
        assert not loaded & {"asyncio", "aiohttp", "socket", "threading"} - at_start()


@cache
def at_start() -> frozenset[str]:
    """Return what an interpreter has loaded by itself and with the core's own dependencies."""
    program = "import sys, dataclasses, typing, json, enum, orjson; print(*{n.split('.')[0] for n in sys.modules})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return frozenset(result.stdout.split())


# The page


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_from_text(path: Path):
    found = [line.strip() for line in path.read_text("utf-8").splitlines() if RAW_HTML.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("a.innerHTML = text", True),
        ("a.innerHTML += text", True),
        ("a.outerHTML=text", True),
        ("a.insertAdjacentHTML('beforeend', text)", True),
        ("if (a.innerHTML !== b.innerHTML)", False),
        ("if (a.innerHTML === b.innerHTML)", False),
        ("a.textContent = text", False),
    ],
)
def test_the_search_for_markup_made_from_text_finds_it(line: str, bad: bool):
    assert bool(RAW_HTML.search(line)) is bad


class Inline(HTMLParser):
    """Collects what a strict content security policy would refuse."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self._script = tag == "script" and "src" not in names
        bad = [name for name in names if name == "style" or name.startswith("on") or name.startswith("hx-on")]
        bad += [name for name, value in attrs if value and value.strip().lower().startswith("javascript:")]
        self.found += [f"{tag} {name}" for name in bad]
        if tag == "style" or self._script:
            self.found.append(tag)

    handle_startendtag = handle_starttag


def inline_in(text: str) -> list[str]:
    """Return what is inline in a template. Its tags are taken out first, so that attributes inside them are seen."""
    parser = Inline()
    parser.feed(re.sub(r"{%.*?%}|{#.*?#}", " ", text, flags=re.DOTALL))
    return parser.found


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_no_template_holds_inline_script_or_style(path: Path):
    text = path.read_text("utf-8")
    assert inline_in(text) == []
    assert not re.search(r"\|\s*safe\b|autoescape\s+off", text) or path.name == "_answer.html"


def test_the_search_for_inline_script_and_style_finds_it():
    template = """{% if a %}<p {% if b %}onclick="x()"{% endif %} style="color: red">{% endif %}<script>x()</script>
    <style>p {}</style><a href="javascript:x()">y</a><script src="ok.js"></script>
    <b hx-on:click="x()"></b><br style="">"""
    assert inline_in(template) == ["p onclick", "p style", "script", "style", "a href", "b hx-on:click", "br style"]


# The repository


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_index():
    index = re.compile(
        rb"--(?:extra-)?index-url|index[-_]url\s*=|(?:files\.)?pythonhosted\.org|pypi\.org|registry\.npmjs|/simple/",
        re.I,
    )
    found = {str(path.relative_to(ROOT)) for path in tracked() if index.search(path.read_bytes())}
    assert found <= {"tests/test_architecture.py"}


def test_nothing_binary_is_large():
    for path in tracked():
        data = path.read_bytes()
        assert len(data) <= 300_000 or b"\0" not in data[:8000], path.name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_opens_with_what_it_is(path: Path):
    assert ast.get_docstring(tree(path)) or path.name == "__init__.py" or "migrations" in path.parts
