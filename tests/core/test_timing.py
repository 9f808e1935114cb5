"""Every figure against its definition, on streams whose times were worked out by hand."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.streams import NS_PER_MS, SENT_NS, at, measured, said
from tests.upstreams.wire import DONE, chunk, event, usage
from webapp.core.meter import StreamMeter
from webapp.core.openai import Usage
from webapp.core.timing import Delta, Figures, Marks, estimate_tokens, figures, gaps_ms


def figures_of(meter: StreamMeter, **rest: Any) -> Figures:
    return figures(meter.marks, meter.deltas, meter.usage, **rest)


def answer(*arrivals: tuple[float, str, str], completion_tokens: int | None = None) -> StreamMeter:
    """Return a finished meter of (ms, field, text) chunks, and a usage chunk where a count is given."""
    reads = [(ms, said({field: text})) for ms, field, text in arrivals]
    last_ms = arrivals[-1][0] if arrivals else 0.0
    reads.append((last_ms + 10, said({}, finish="stop")))
    if completion_tokens is not None:
        reads.append((last_ms + 20, said(None, usage=usage(completion_tokens))))
    meter = measured(*reads, (last_ms + 30, DONE))
    meter.finish(at(last_ms + 31))
    return meter


# Two streams that other tools give many different figures for, and what ours are


def test_a_reasoning_stream_with_four_tokens_a_chunk():
    """Role 20 ms; 21 one-token reasoning chunks 200..1200 ms; 25 four-token chunks 1250..2450 ms; 121 tokens.

    Tools in use give this stream a TTFT of 20, 200 or 1250 ms and a TPOT of 10.0 to 20.3 ms.
    """
    thought = [(200 + 50 * n, "reasoning", " wd ") for n in range(21)]
    spoken = [(1250 + 50 * n, "content", " four words of text"[:16]) for n in range(25)]
    reads = [(ms, said({field: text})) for ms, field, text in (*thought, *spoken)]
    ends = [(2460, said({}, finish="stop")), (2470, said(None, usage=usage(121))), (2480, DONE)]
    meter = measured((20, said({"role": "assistant", "content": ""})), *reads, *ends)
    meter.finish(at(2480))
    found = figures_of(meter)
    assert meter.marks.first_event == at(20)
    assert found.ttft_ms == 200
    assert found.ttfo_ms == 1250
    assert found.thinking_ms == 1050
    assert found.e2e_ms == 2450
    assert found.tpot_ms == pytest.approx(2250 / 120)  # 18.75: the first chunk held one token of the 121
    assert found.tok_s == pytest.approx(53.33, abs=0.01)
    assert found.tok_s_e2e == pytest.approx(121 / 2.45)
    assert found.icl_ms is not None
    assert (found.icl_ms.n, found.icl_ms.mean, found.icl_ms.p50, found.icl_ms.max) == (45, 50, 50, 50)
    assert (found.chunks, found.output_tokens, found.tokens_source) == (46, 121, "usage")
    assert found.tokens_per_chunk == pytest.approx(121 / 46)
    assert not found.short


def test_a_fast_stream_shows_the_speed_at_which_it_was_decoded():
    """300 reasoning and 100 answer tokens at exactly 2,000 tok/s, ten to a chunk, the first token at 200 ms.

    Tools in use give this stream 500 to 8,602 tok/s.
    """
    chunks = [(204.5 + 5 * n, "reasoning" if n < 30 else "content", "ten tokens " * 4) for n in range(40)]
    found = figures_of(answer(*chunks, completion_tokens=400))
    assert found.ttft_ms == pytest.approx(204.5)
    assert found.ttfo_ms == pytest.approx(354.5)
    assert found.thinking_ms == pytest.approx(150)
    assert found.tok_s == pytest.approx(2000)
    assert found.tpot_ms == pytest.approx(0.5)
    assert found.e2e_ms == pytest.approx(399.5)
    assert found.tok_s_e2e == pytest.approx(400 / 0.3995)
    assert found.icl_ms is not None
    assert found.icl_ms.p50 == found.icl_ms.p99 == 5  # a chunk gap, ten times a token's
    assert found.tokens_per_chunk == 10
    assert found.tpot_estimated  # nobody said that the first chunk held ten
    assert not found.short


# Definitions, one by one


def test_times_run_from_sent_and_connection_set_up_lies_before_it():
    marks = Marks(
        intended=at(-90),
        connect=at(-60),
        connected=at(-20),
        sent=at(0),
        headers=at(30),
        first_token=at(100),
        first_output=at(100),
        last_token=at(300),
        end=at(350),
    )
    found = figures(marks, [Delta(at(100), "content", "a"), Delta(at(300), "content", "b")], None)
    assert (found.connect_ms, found.headers_ms, found.ttft_ms, found.ttfo_ms) == (40, 30, 100, 100)
    assert found.e2e_ms == 300  # to the last text, not to the close


def test_the_end_of_an_answer_is_its_last_text_not_usage_or_close():
    meter = answer((100, "content", "a"), (200, "content", "b"), completion_tokens=2)
    assert figures_of(meter).e2e_ms == 200
    assert meter.marks.usage == at(220)
    assert meter.marks.end == at(231)


def test_thinking_is_not_available_without_reasoning_or_without_an_answer_after_it():
    assert figures_of(answer((100, "content", "a"))).thinking_ms is None
    assert figures_of(answer((100, "reasoning", "a"))).thinking_ms is None
    assert figures_of(answer((100, "reasoning", "a"))).ttfo_ms is None
    assert figures_of(answer((100, "content", "a"), (150, "reasoning", "b"))).thinking_ms is None
    assert figures_of(answer((100, "reasoning", "a"), (150, "content", "b"))).thinking_ms == 50


def test_the_first_chunks_tokens_are_no_part_of_tpot():
    one_each = answer(*((100 + 10 * n, "content", "word") for n in range(11)), completion_tokens=11)
    found = figures_of(one_each)
    assert (found.tpot_ms, found.tok_s, found.tpot_estimated) == (10, 100, False)


def test_the_servers_count_of_the_first_chunk_goes_before_its_share_of_the_letters():
    meter = measured(
        (100, said({"content": "x"}, usage=usage(6))),
        (200, said({"content": "x" * 99}, usage=usage(16))),
        (210, said({}, finish="stop") + DONE),
    )
    found = figures_of(meter)
    assert found.tpot_ms == 10  # 100 ms for the ten tokens after the first six
    assert not found.tpot_estimated


@pytest.mark.parametrize(
    ("chars", "in_first"), [((40, 40, 40), 10), ((80, 20, 20), 20), ((1, 60, 59), 1), ((118, 1, 1), 28)]
)
def test_several_tokens_a_chunk_are_shared_out_by_letters(chars: tuple[int, ...], in_first: int):
    chunks = [(100.0 * n, "content", "x" * count) for n, count in enumerate(chars, 1)]
    found = figures_of(answer(*chunks, completion_tokens=30))
    assert found.tpot_ms == pytest.approx(200 / (30 - in_first))
    assert found.tpot_estimated


def test_an_answer_in_one_chunk_has_no_speed_but_a_time():
    found = figures_of(answer((100, "content", "a whole answer at once"), completion_tokens=5))
    assert (found.ttft_ms, found.e2e_ms) == (100, 100)
    assert (found.tpot_ms, found.tok_s, found.icl_ms) == (None, None, None)
    assert found.tok_s_e2e == 50
    assert found.short


def test_an_answer_in_one_read_has_no_speed():
    found = figures_of(measured((100, said({"content": "a"}) * 30 + said({}, finish="stop", usage=usage(30)) + DONE)))
    assert (found.tpot_ms, found.tok_s) == (None, None)
    assert found.icl_ms is not None
    assert (found.icl_ms.n, found.icl_ms.max) == (29, 0)


def test_an_empty_answer_has_no_first_token_rather_than_one_at_0():
    found = figures_of(answer(completion_tokens=0))
    assert found.output_tokens == 0
    for name in ("ttft_ms", "ttfo_ms", "e2e_ms", "tpot_ms", "tok_s", "tok_s_e2e", "icl_ms", "tokens_per_chunk"):
        assert getattr(found, name) is None, name


def test_a_request_that_never_left_has_no_figure_at_all():
    found = figures(Marks(intended=at(0), end=at(5)), [], None)
    unset = {"chunks", "tokens_source", "tpot_estimated", "short"}
    assert [
        field.name for field in fields(found) if field.name not in unset and getattr(found, field.name) is not None
    ] == []
    assert (found.chunks, found.short) == (0, False)


def test_counts_come_from_the_server_where_it_counts():
    meter = answer((100, "content", "a"), (200, "content", "b"), completion_tokens=7)
    found = figures_of(meter)
    assert (found.output_tokens, found.tokens_source, found.prompt_tokens) == (7, "usage", 7)


def test_counts_are_marked_as_estimates_where_it_does_not():
    found = figures_of(answer((100, "content", "a"), (200, "content", "b")))
    assert (found.output_tokens, found.tokens_source, found.tpot_estimated) == (2, "estimate", True)
    assert found.prompt_tokens is None


@pytest.mark.parametrize("every", [False, True], ids=["at the end", "in every chunk"])
def test_a_count_of_0_beside_text_is_no_count(every: bool):
    rest = {"usage": usage(0)} if every else {}
    reads = [(100 + 10 * n, said({"content": " word"}, **rest)) for n in range(30)]
    meter = measured(*reads, (400, said({}, finish="stop", usage=usage(0)) + DONE))
    meter.finish(at(400))
    assert meter.tokens == (30, False)
    found = figures_of(meter, prices_usd_per_mtok=(1.0, 1.0))
    assert (found.output_tokens, found.tokens_source, found.tpot_estimated) == (30, "estimate", True)
    assert found.tpot_ms == pytest.approx(10)
    assert found.cost_usd is None


def test_details_of_usage_are_passed_on_and_stay_unknown_where_they_are():
    meter = measured((1, event(chunk({"content": "a"}))))
    found = figures(meter.marks, meter.deltas, Usage(10, 20, 5, 8))
    assert (found.prompt_tokens, found.reasoning_tokens, found.cached_tokens) == (10, 5, 8)
    found = figures(meter.marks, meter.deltas, Usage(None, None))
    assert (found.prompt_tokens, found.reasoning_tokens, found.cached_tokens, found.tokens_source) == (
        None,
        None,
        None,
        "estimate",
    )


@pytest.mark.parametrize(
    ("chunks", "chars", "tokens"), [(0, 0, 0), (10, 40, 10), (10, 80, 10), (10, 84, 21), (1, 400, 100), (5, 1, 5)]
)
def test_an_estimate_is_one_token_a_chunk_until_chunks_are_too_long_for_that(chunks: int, chars: int, tokens: int):
    assert estimate_tokens(chunks, chars) == tokens


def test_gaps_are_between_neighbouring_chunks_whatever_their_kind():
    meter = answer((100, "reasoning", "a"), (130, "reasoning", "b"), (190, "content", "c"))
    assert gaps_ms(meter.deltas) == [30, 60]
    assert gaps_ms(meter.deltas[:1]) == []


@pytest.mark.parametrize(
    ("window_ms", "tokens", "short"), [(49.9, 100, True), (50, 100, False), (500, 19, True), (500, 20, False)]
)
def test_a_decode_window_under_50_ms_or_20_tokens_is_marked_short(window_ms: float, tokens: int, short: bool):
    meter = answer((100, "content", "a"), (100 + window_ms, "content", "b"), completion_tokens=tokens)
    assert figures_of(meter).short is short
    assert figures_of(meter).tok_s is not None  # marked, not hidden


COSTS = [
    (Usage(1000, 500), (0.5, 2.0), 0.0015),
    (Usage(0, 0), (0.5, 2.0), 0.0),
    (Usage(1000, 500), (0.0, 0.0), 0.0),
    (Usage(1000, 500), (None, 2.0), None),
    (Usage(1000, 500), (0.5, None), None),
    (Usage(None, 500), (0.5, 2.0), None),
    (Usage(1000, None), (0.5, 2.0), None),
    (None, (0.5, 2.0), None),
]


@pytest.mark.parametrize(("counts", "prices", "usd"), COSTS)
def test_cost_is_known_only_with_both_counts_and_both_prices(
    counts: Usage | None, prices: tuple[float | None, float | None], usd: float | None
):
    assert figures(Marks(), [], counts, prices).cost_usd == (usd if usd is None else pytest.approx(usd))


def test_figures_under_way_leave_out_what_takes_a_look_at_every_delta():
    meter = measured((100, said({"content": "a"})), (200, said({"content": "b"})))
    found = figures_of(meter, live=True)
    assert (found.tpot_ms, found.tok_s, found.icl_ms) == (None, None, None)
    assert (found.ttft_ms, found.output_tokens, found.chunks) == (100, 2, 2)


def test_whoever_keeps_the_gaps_gets_all_figures_but_the_inter_chunk_latency():
    meter = answer((100, "content", "a"), (200, "content", "b"), completion_tokens=2)
    whole = figures_of(meter)
    assert whole.icl_ms is not None
    assert figures_of(meter, icl=False) == replace(whole, icl_ms=None)


def test_figures_are_the_same_whether_or_not_the_letters_were_counted_before():
    meter = answer((100, "content", "a" * 50), (200, "reasoning", "b" * 70), completion_tokens=None)
    assert figures_of(meter, chars=meter.chars) == figures_of(meter)


ARRIVALS = st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 60)), min_size=1, max_size=30)


@given(ARRIVALS, st.integers(0, 500), st.integers(0, 10**15))
def test_figures_depend_on_differences_of_the_clock_only(arrivals: list[tuple[int, int]], tokens: int, later_ns: int):
    def on_a_clock(start_ns: int) -> Figures:
        times = sorted(ns for ns, _ in arrivals)
        deltas = [Delta(start_ns + ns, "content", "x" * n) for ns, (_, n) in zip(times, arrivals, strict=True)]
        first, last = deltas[0].at_ns, deltas[-1].at_ns
        marks = Marks(sent=start_ns, first_token=first, first_output=first, last_token=last, end=last)
        return figures(marks, deltas, Usage(1, tokens))

    assert on_a_clock(SENT_NS) == on_a_clock(SENT_NS + later_ns)


@given(ARRIVALS, st.integers(0, 500))
def test_speed_and_tpot_are_one_figure_and_never_count_more_than_there_is(arrivals: list[tuple[int, int]], tokens: int):
    times = sorted(ns for ns, _ in arrivals)
    deltas = [Delta(SENT_NS + ns, "content", "x" * n) for ns, (_, n) in zip(times, arrivals, strict=True)]
    marks = Marks(sent=SENT_NS, first_token=deltas[0].at_ns, last_token=deltas[-1].at_ns)
    found = figures(marks, deltas, Usage(1, tokens))
    count = tokens or estimate_tokens(len(deltas), sum(n for _, n in arrivals))  # 0 beside text is no count
    assert found.output_tokens == count
    window_ms = (times[-1] - times[0]) / NS_PER_MS
    if found.tpot_ms is None:
        assert found.tok_s is None
    else:
        assert found.tok_s == pytest.approx(1000 / found.tpot_ms)
        assert window_ms / found.tpot_ms >= 1 - 1e-6
        assert window_ms / found.tpot_ms <= count - 1 + 1e-6  # the first chunk holds one at least
    if found.icl_ms is not None:
        assert found.icl_ms.mean * found.icl_ms.n == pytest.approx(window_ms, abs=1e-3)


def test_marks_are_given_relative_to_any_start_and_unknown_stays_unknown():
    relative = Marks(sent=at(5), end=at(7)).since(at(0))
    assert (relative["sent"], relative["end"], relative["headers"]) == (5_000_000, 7_000_000, None)


def test_figures_can_be_written_as_json_values():
    values = figures_of(answer((100, "content", "a"), (200, "content", "b"), completion_tokens=2)).as_dict()
    assert values["icl_ms"]["p50"] == 100
    assert values["ttft_ms"] == 100
