from itertools import islice

from tests.simulator.examples import asked, events, sims, text_of
from webapp.simulator.answers import load_book
from webapp.simulator.emission import BURST, PATIENCE_NS, RETRY_NS, Answering, Collection, Emission
from webapp.simulator.machine import plan
from webapp.simulator.reply import Reply, chunks
from webapp.simulator.request import ChatRequest

BOOK = load_book()
ARRIVED_NS = 10_000_000_000


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


def answering(request: ChatRequest) -> Answering:
    timetable = plan(request.profile, request.prompt_tokens, seed=1)
    reply = Reply(request, BOOK)
    tokens = islice(reply, request.fault.after_tokens)
    return Answering(
        request, timetable, reply, chunks(tokens, timetable, request.profile.chunk_tokens), ARRIVED_NS, "id", 0
    )


def emission(**fields: object) -> tuple[Emission, Reader]:
    reader = Reader()
    return Emission(answering(asked("Write a haiku", stream=True, **fields)), reader), reader


def run(stream: Emission) -> list[int]:
    """Fire the stream whenever it asks; return the times."""
    times = []
    at_ns: int | None = stream.first_ns
    while at_ns is not None:
        times.append(at_ns)
        at_ns = stream.fire(at_ns)
    return times


def test_each_chunk_leaves_in_its_own_write_when_nothing_is_late() -> None:
    stream, reader = emission(max_tokens=10)
    times = run(stream)
    assert times == [stream.first_ns + 500_000 * step for step in range(10)]
    assert len(reader.writes) == 10
    truths = sims(events(b"".join(reader.writes)))
    assert [truth["sent_ns"] for truth in truths] == times
    assert [ARRIVED_NS + truth["due_us"] * 1000 for truth in truths] == times


def test_what_is_late_leaves_together_and_says_so() -> None:
    stream, reader = emission(max_tokens=10)
    now_ns = stream.first_ns + 4 * 500_000 + 1
    assert stream.fire(now_ns) == stream.first_ns + 5 * 500_000
    assert len(reader.writes) == 1
    truths = sims(events(reader.writes[0]))
    assert len(truths) == 5
    assert {truth["sent_ns"] for truth in truths} == {now_ns}
    assert truths[0]["due_us"] * 1000 + ARRIVED_NS == stream.first_ns


def test_the_first_event_is_the_role_alone_and_the_last_is_done() -> None:
    stream, reader = emission(max_tokens=3)
    run(stream)
    found = events(b"".join(reader.writes))
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert found[0]["sim"] == {"arrived_ns": ARRIVED_NS}
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    assert found[-1] == "[DONE]"


def test_a_stream_that_is_far_behind_lets_the_others_in_between() -> None:
    stream, reader = emission(max_tokens=1000, ignore_eos=True)
    now_ns = stream.first_ns + 10**12
    again_ns = stream.fire(now_ns)
    assert again_ns is not None
    assert again_ns <= now_ns
    assert len(events(reader.writes[0])) == BURST


def test_a_client_that_does_not_read_is_left_alone_and_then_gets_everything() -> None:
    stream, reader = emission()
    reader.full = True
    now_ns = stream.first_ns
    for _ in range(100):
        assert stream.fire(now_ns) == now_ns + RETRY_NS
        now_ns += RETRY_NS
    assert not reader.writes
    reader.full = False
    assert stream.fire(now_ns) is None
    assert text_of(events(b"".join(reader.writes))) == BOOK.find("Write a haiku").text


def test_patience_with_a_client_that_does_not_read_has_an_end() -> None:
    stream, reader = emission()
    reader.full = True
    assert stream.fire(stream.first_ns) is not None
    assert stream.fire(stream.first_ns + PATIENCE_NS) is None
    assert reader.was_reset


def test_an_answer_of_no_tokens_is_still_a_message() -> None:
    stream, reader = emission(stop="The cursor", stream_options={"include_usage": True})
    assert run(stream) == [ARRIVED_NS + plan(asked("Write a haiku").profile, 4, 1).first_ns]
    role, finish, usage, done = events(b"".join(reader.writes))
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == 0
    assert done == "[DONE]"


def test_a_whole_answer_is_ready_when_its_last_chunk_is_due() -> None:
    collection = Collection(answering(asked("Write a haiku", max_tokens=10)))
    last_ns = ARRIVED_NS + plan(asked("Write a haiku").profile, 4, 1).first_ns + 9 * 500_000
    assert collection.fire(ARRIVED_NS) == last_ns
    assert collection.fire(last_ns - 1) == last_ns
    assert collection.fire(last_ns) is None


def test_a_long_whole_answer_is_collected_in_slices() -> None:
    collection = Collection(answering(asked("x", max_tokens=2000, ignore_eos=True)))
    assert collection.fire(ARRIVED_NS) == ARRIVED_NS
    assert b"prompt_tokens" in collection.body()
