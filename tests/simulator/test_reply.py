from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.examples import PROFILES, asked
from webapp.simulator.answers import load_book
from webapp.simulator.reply import Chunk, Gatherer, Reply, until_stop
from webapp.simulator.text import split_tokens

BOOK = load_book()
PROMPT = "What is wafer-scale?"


def content(reply: Reply) -> str:
    return "".join(text for kind, text in reply if kind == "content")


def gathered(reply: Reply, chunk_tokens: int, steps: list[int], limit: int | None = None) -> list[Chunk]:
    """Let an engine give so many tokens in each step, and one in each step after those."""
    gatherer = Gatherer(reply, chunk_tokens, limit)
    chunks, step = [], 0
    while not gatherer.over:
        chunks += gatherer.take(steps[step] if step < len(steps) else 1, step)
        step += 1
    return chunks


def test_an_answer_that_fits_is_whole_and_stops() -> None:
    reply = Reply(asked(PROMPT), BOOK)
    assert content(reply) == BOOK.find(PROMPT).text
    assert reply.finish_reason == "stop"
    assert reply.tokens == len(split_tokens(BOOK.find(PROMPT).text))


def test_a_limit_cuts_exactly_there() -> None:
    reply = Reply(asked(PROMPT, max_tokens=17), BOOK)
    assert content(reply) == "".join(split_tokens(BOOK.find(PROMPT).text)[:17])
    assert reply.finish_reason == "length"
    assert reply.tokens == 17


def test_forced_length_goes_on_with_sense_until_the_limit() -> None:
    reply = Reply(asked("Write a haiku", max_tokens=3000, ignore_eos=True), BOOK)
    text = content(reply)
    assert reply.tokens == 3000
    assert reply.finish_reason == "length"
    assert text.startswith(BOOK.find("Write a haiku").text)
    assert BOOK.continuations[0] in text


def test_thinking_comes_first_counts_and_ends_with_a_sentence() -> None:
    reply = Reply(asked("no such prompt is prepared", model="thinking"), BOOK)
    kinds = [kind for kind, _ in reply]
    assert kinds == sorted(kinds, reverse=True)  # all reasoning before all content
    assert kinds.count("reasoning") == reply.reasoning_tokens
    thought = "".join(text for kind, text in Reply(asked("x", model="thinking"), BOOK) if kind == "reasoning")
    assert thought.endswith(".")
    assert 0 < reply.reasoning_tokens <= 40


def test_a_limit_may_end_within_the_thinking() -> None:
    reply = Reply(asked(PROMPT, model="thinking", max_tokens=5), BOOK)
    assert {kind for kind, _ in reply} == {"reasoning"}
    assert reply.finish_reason == "length"


@pytest.mark.parametrize("model", ["quick", "thinking"])
@pytest.mark.parametrize(
    "fields", [{}, {"max_tokens": 9}, {"max_tokens": 900, "ignore_eos": True}], ids=["whole", "cut", "forced"]
)
def test_the_engine_is_asked_for_as_many_tokens_as_there_will_be(model: str, fields: dict[str, int]) -> None:
    reply = Reply(asked(PROMPT, model=model, **fields), BOOK)
    most = reply.most_tokens()
    assert sum(1 for _ in reply) == most


@given(
    st.text(alphabet="ab ,\n", max_size=60),
    st.lists(st.text(alphabet="ab ,\n", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_the_stop_text_that_is_complete_first_ends_the_answer_before_it(text: str, stops: list[str]) -> None:
    complete = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    _, cut = min(complete, default=(0, len(text)))
    assert "".join(until_stop(split_tokens(text), tuple(stops))) == text[:cut]


def test_a_stop_text_may_run_across_tokens() -> None:
    text = "one two three four"
    assert len(split_tokens(text)) == 4
    assert "".join(until_stop(split_tokens(text), ("o thr",))) == "one tw"


def test_stop_works_on_an_answer_without_end() -> None:
    reply = Reply(asked("Write a haiku", ignore_eos=True, stop=["Then there is the crowd"]), BOOK)
    assert content(reply) == BOOK.find("Write a haiku").text + "".join(BOOK.continuations[:2]) + "\n\n"
    assert reply.finish_reason == "stop"


@pytest.mark.parametrize("slug", ["quick", "thinking", "bursty"])
@given(steps=st.lists(st.integers(1, 4), max_size=200))
def test_chunks_hold_every_token_and_never_mix_kinds(slug: str, steps: list[int]) -> None:
    least = PROFILES[slug].chunk_tokens
    reply = Reply(asked(PROMPT, model=slug), BOOK)
    found = gathered(reply, least, steps)
    assert sum(chunk.tokens for chunk in found) == reply.tokens
    assert max(chunk.tokens for chunk in found) < least + 4
    assert "".join(chunk.text for chunk in found if chunk.kind == "content") == BOOK.find(PROMPT).text
    assert [chunk.due_ns for chunk in found] == sorted(chunk.due_ns for chunk in found)


def test_a_chunk_of_several_tokens_is_due_with_its_last() -> None:
    found = gathered(Reply(asked(PROMPT, max_tokens=12), BOOK), 5, [])
    assert [(chunk.due_ns, chunk.tokens) for chunk in found] == [(4, 5), (9, 5), (11, 2)]


def test_an_answer_is_cut_where_a_fault_wants_it() -> None:
    found = gathered(Reply(asked(PROMPT), BOOK), 1, [], limit=20)
    assert len(found) == 20
    assert gathered(Reply(asked(PROMPT), BOOK), 1, [], limit=0) == []


def test_nothing_is_made_before_it_is_taken() -> None:
    reply = Reply(asked(PROMPT, max_tokens=100_000, ignore_eos=True), BOOK)
    (first,) = Gatherer(reply, 1, None).take(1, 0)
    assert first.tokens == 1
    assert reply.tokens <= 2
    assert len(list(islice(reply, 3))) == 3
