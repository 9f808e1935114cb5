from collections.abc import Callable
from typing import Any

import pytest

from tests.simulator.examples import asked, events, sims, text_of
from webapp.simulator.answers import load_book
from webapp.simulator.costs import Split
from webapp.simulator.emission import BURST, PATIENCE_NS, RETRY_NS, Answering, Collection, Fire, Stream
from webapp.simulator.engine import RequestTimes
from webapp.simulator.reply import Reply
from webapp.simulator.request import Asked, BadRequest

BOOK = load_book()
ARRIVED_NS = 10_000_000_000
API_NS = 5_000_000
STEP_NS = 500_000
TIMES = RequestTimes(ARRIVED_NS + API_NS, queue_ns=0, prefill_ns=1_000_000, decode_ns=0, split=Split(1, 2, 3, 4, 5, 6))


class Reader:
    """A client that can stop reading."""

    def __init__(self) -> None:
        self.full = False
        self.was_reset = False
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def reset(self) -> None:
        self.was_reset = True


class Later:
    """Remembers the one appointment that was made."""

    def __init__(self) -> None:
        self.at_ns: int | None = None
        self.fire: Fire | None = None

    def __call__(self, at_ns: int, fire: Fire) -> None:
        self.at_ns, self.fire = at_ns, fire

    def pass_to(self, now_ns: int) -> int | None:
        assert self.fire is not None
        return self.fire(now_ns)


class Play:
    """A stream, its reader, and an engine that gives it a token each step."""

    def __init__(self, prompt: str = "Write a haiku", **fields: Any) -> None:
        self.answering = answering(asked(prompt, stream=True, **fields))
        self.reader = Reader()
        self.later = Later()
        self.ended = 0
        self.stream = Stream(self.answering, self.reader, self.later, self.end)
        self.due_ns = ARRIVED_NS + API_NS + 1_000_000
        self.left = self.answering.tokens

    def end(self) -> None:
        self.ended += 1

    def step(self, tokens: int = 1) -> bool:
        over = self.stream.feed(tokens, self.due_ns)
        self.due_ns += STEP_NS
        self.left -= tokens
        if over or self.left <= 0:
            self.stream.finish(TIMES)
        return over or self.left <= 0

    def run(self) -> list[int]:
        """Flush after each step at its time; return the times."""
        times, over = [], False
        while not over:
            times.append(self.due_ns)
            over = self.step()
            self.stream.flush(times[-1])
        return times

    @property
    def events(self) -> list[Any]:
        return events(b"".join(self.reader.writes))


def answering(request: Asked) -> Answering:
    return Answering(request, Reply(request, BOOK), ARRIVED_NS, API_NS, "id", 0)


def collected(done: Callable[[], None] = lambda: None, **fields: Any) -> Collection:
    return Collection(answering(asked("Write a haiku", **fields)), done)


def test_each_chunk_leaves_in_its_own_write_when_nothing_is_late() -> None:
    play = Play(max_tokens=10)
    times = play.run()
    assert len(play.reader.writes) == len(times) == 10
    truths = sims(play.events)
    assert [truth["sent_ns"] for truth in truths] == times
    assert [ARRIVED_NS + truth["due_us"] * 1000 for truth in truths] == times


def test_what_is_late_leaves_together_and_says_so() -> None:
    play = Play(max_tokens=10)
    first_ns = play.due_ns
    for _ in range(5):
        play.step()
    play.stream.flush(first_ns + 10 * STEP_NS)
    assert len(play.reader.writes) == 1
    truths = sims(play.events)
    assert len(truths) == 5
    assert {truth["sent_ns"] for truth in truths} == {first_ns + 10 * STEP_NS}
    assert truths[0]["due_us"] * 1000 + ARRIVED_NS == first_ns


def lateness(play: Play) -> int:
    found = play.events[-2]["time_info"]["emitted"]["late_ns"]
    assert isinstance(found, int)
    return found


def test_the_end_tells_the_most_that_this_host_was_late() -> None:
    play = Play()
    for late_ns in (0, 7 * STEP_NS, 0, 3 * STEP_NS):
        play.step()
        play.stream.flush(play.due_ns - STEP_NS + late_ns)
    play.run()
    assert lateness(play) == 7 * STEP_NS


def test_what_a_client_did_not_read_in_time_is_no_lateness_of_this_host() -> None:
    play = Play()
    play.step()
    play.stream.flush(play.due_ns - STEP_NS + 1)
    play.reader.full = True
    times = play.run()
    play.reader.full = False
    while play.later.pass_to(times[-1] + 1_000_000_000) is not None:
        pass
    assert lateness(play) == 1


def test_the_first_event_is_the_role_alone_and_the_last_is_done() -> None:
    play = Play(max_tokens=3)
    play.run()
    found = play.events
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert found[0]["sim"] == {"arrived_ns": ARRIVED_NS}
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    assert found[-1] == "[DONE]"
    assert play.ended == 1


def test_tokens_of_one_step_are_one_chunk_that_says_how_many() -> None:
    play = Play(max_tokens=7)
    while not play.step(tokens=3):
        pass
    play.stream.flush(play.due_ns)
    assert [truth.get("tokens", 1) for truth in sims(play.events)] == [3, 3, 1]


def test_time_info_comes_with_the_counts_or_else_with_the_finish_reason() -> None:
    asked_for, unasked = Play(stream_options={"include_usage": True}), Play()
    asked_for.run()
    unasked.run()
    assert asked_for.events[-2]["time_info"] == unasked.events[-2]["time_info"]
    assert "time_info" not in asked_for.events[-3]
    assert unasked.events[-2]["choices"][0]["finish_reason"] == "stop"


def test_the_parts_of_time_info_are_those_of_the_engine_and_its_times_add_up() -> None:
    play = Play()
    play.run()
    info = play.events[-2]["time_info"]
    assert {name: s for name, s in info["parts"].items() if name != "hand_out"} == {
        "overhead": 1e-9,
        "weights": 2e-9,
        "kv": 3e-9,
        "prefill": 4e-9,
        "communication": 5e-9,
        "sequences": 6e-9,
    }
    total = sum(info[f"{name}_time"] for name in ("api", "queue", "prompt", "completion"))
    assert total == pytest.approx(info["total_time"])
    assert info["api_time"] == API_NS / 1e9


def test_what_is_in_the_front_end_is_sent_when_it_is_due_and_no_sooner() -> None:
    play = Play(max_tokens=4)
    due_ns = [play.due_ns + place * STEP_NS for place in range(4)]
    while not play.step():
        pass
    for place, at_ns in enumerate(due_ns):
        play.stream.flush(at_ns - 1)
        assert (len(sims(play.events)), play.ended) == (place, 0)
        play.stream.flush(at_ns)
    assert (len(sims(play.events)), play.ended) == (4, 1)
    assert [truth["sent_ns"] for truth in sims(play.events)] == due_ns


def test_who_reads_again_gets_nothing_that_is_in_the_front_end_still() -> None:
    play = Play(max_tokens=4)
    first_ns = play.due_ns
    play.step()
    play.reader.full = True
    play.stream.flush(first_ns)
    while not play.step():
        pass
    play.reader.full = False
    assert play.later.pass_to(first_ns + STEP_NS) is None
    assert (len(sims(play.events)), play.ended) == (2, 0)
    play.stream.flush(first_ns + 3 * STEP_NS)
    assert (len(sims(play.events)), play.ended) == (4, 1)


def test_a_whole_answer_is_over_when_its_last_token_has_left_the_front_end() -> None:
    ended: list[bool] = []
    collection = collected(lambda: ended.append(True), max_tokens=2)
    due_ns = ARRIVED_NS + API_NS
    for place in range(2):
        collection.feed(1, due_ns + place)
    collection.finish(TIMES)
    collection.flush(due_ns)
    assert not ended
    collection.flush(due_ns + 1)
    assert ended


def test_a_client_that_does_not_read_is_left_alone_and_then_gets_everything() -> None:
    play = Play()
    play.reader.full = True
    times = play.run()
    assert play.later.at_ns == times[0] + RETRY_NS
    now_ns = times[0]
    for _ in range(100):
        now_ns += RETRY_NS
        assert play.later.pass_to(now_ns) == now_ns + RETRY_NS
    assert not play.reader.writes
    play.reader.full = False
    assert play.later.pass_to(now_ns) is None
    assert text_of(play.events) == BOOK.find("Write a haiku").text
    assert [ARRIVED_NS + truth["due_us"] * 1000 for truth in sims(play.events)] == times
    assert play.ended == 1


def test_a_debt_is_paid_in_slices_so_that_others_come_in_between() -> None:
    play = Play(max_tokens=1000, ignore_eos=True)
    play.reader.full = True
    times = play.run()
    play.reader.full = False
    assert play.later.pass_to(times[-1]) == times[-1]
    assert len(sims(play.events)) == BURST + 1  # the first step was not a debt yet
    while play.later.pass_to(times[-1]) is not None:
        pass
    assert len(sims(play.events)) == 1000
    assert play.events[-1] == "[DONE]"


def test_patience_with_a_client_that_does_not_read_has_an_end() -> None:
    play = Play()
    play.reader.full = True
    play.step()
    play.stream.flush(play.due_ns)
    assert play.later.pass_to(play.due_ns + PATIENCE_NS) is None
    assert play.reader.was_reset
    assert play.ended == 1


def test_a_client_that_has_left_is_sent_nothing_more() -> None:
    play = Play()
    play.step()
    play.stream.close()
    play.stream.flush(play.due_ns)
    assert not play.reader.writes


def test_an_answer_of_no_tokens_is_still_a_message() -> None:
    play = Play(stop="The cursor", stream_options={"include_usage": True})
    assert len(play.run()) == 1
    role, finish, usage, done = play.events
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == 0
    assert done == "[DONE]"


def test_an_engine_that_fails_says_so_in_the_stream() -> None:
    play = Play()
    play.stream.fail("There is no room.")
    assert play.events[0]["error"]["message"] == "There is no room."
    assert play.ended == 1


def test_a_whole_answer_is_ready_when_its_last_chunk_is_due() -> None:
    ends: list[None] = []
    collection = collected(lambda: ends.append(None), max_tokens=2)
    assert not collection.feed(1, ARRIVED_NS + 1)
    collection.flush(ARRIVED_NS + 1)
    assert not ends
    assert collection.feed(1, ARRIVED_NS + 2)
    collection.finish(TIMES)
    collection.flush(ARRIVED_NS + 2)
    assert len(ends) == 1
    assert b'"completion_tokens":2' in collection.body()


def test_a_whole_answer_of_an_engine_that_failed_is_an_error() -> None:
    collection = collected()
    collection.fail("There is no room.")
    with pytest.raises(BadRequest, match="no room"):
        collection.body()
