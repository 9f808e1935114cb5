from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.examples import PROFILES, asked
from webapp.simulator.answers import load_book
from webapp.simulator.machine import plan
from webapp.simulator.reply import Reply, chunks, until_stop
from webapp.simulator.text import split_tokens

BOOK = load_book()
PROMPT = "What is wafer-scale?"


def content(reply: Reply) -> str:
    return "".join(text for kind, text in reply if kind == "content")


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
def test_chunks_hold_every_token_and_never_mix_kinds(slug: str) -> None:
    profile = PROFILES[slug]
    reply = Reply(asked(PROMPT, model=slug), BOOK)
    found = list(chunks(reply, plan(profile, 10, 1), profile.chunk_tokens))
    assert sum(chunk.tokens for chunk in found) == reply.tokens
    assert max(chunk.tokens for chunk in found) == profile.chunk_tokens
    assert "".join(chunk.text for chunk in found if chunk.kind == "content") == BOOK.find(PROMPT).text
    assert [chunk.due_ns for chunk in found] == list(islice(plan(profile, 10, 1).steps(), len(found)))


def test_nothing_is_made_before_it_is_taken() -> None:
    reply = Reply(asked(PROMPT, max_tokens=100_000, ignore_eos=True), BOOK)
    first = next(chunks(reply, plan(PROFILES["quick"], 10, 1), 1))
    assert first.tokens == 1
    assert reply.tokens <= 2
