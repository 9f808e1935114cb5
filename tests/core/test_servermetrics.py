"""What a server says of itself at /metrics, and what follows from it about users who have left."""

from __future__ import annotations

from webapp.core.servermetrics import ServerState, ServerWatch, read

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_running{engine="0",model_name="other"} 9.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+03
vllm:generation_tokens_total{engine="1",model_name="m"} 500.0
"""


def test_vllms_gauges_are_read_for_one_model_over_all_its_engines() -> None:
    assert read(VLLM, "m") == ServerState(running=5, waiting=7, kv_usage=0.5, output_tokens=2000)


def test_a_simulators_own_lateness_is_read_and_told_where_it_is_more_than_a_time_slice() -> None:
    watch = ServerWatch()
    assert watch.warnings() == []
    for late_s in ("0.0195", "0.0001"):
        state = read(f'{VLLM}sim:late_seconds{{model_name="m"}} {late_s}\n', "m")
        assert state is not None
        watch.see(state, 0)
    found = watch.summary(0, 0, 1)
    assert found is not None
    assert found["most_late_ms"] == 19.5
    assert watch.warnings() == []
    watch.see(ServerState(1, 0, late_ms=203.4), 0)
    assert watch.warnings() == [
        "The simulator ran up to 203 ms behind its schedule: its host's lateness, not the model's."
    ]


def test_a_server_that_tells_little_is_read_as_far_as_it_goes_and_another_not_at_all() -> None:
    few = 'vllm:num_requests_running{model_name="m"} 1\nvllm:num_requests_waiting{model_name="m"} 0\n'
    assert read(few, "m") == ServerState(running=1, waiting=0)
    for text in (
        "",
        "<html>not found</html>",
        few.replace("vllm:", "tgi_"),
        'vllm:num_requests_running{model_name="m"} 1',
    ):
        assert read(text, "m") is None
    assert read(few, "x") is None


def test_a_server_that_stops_at_once_holds_nothing_and_produces_nothing_for_nobody() -> None:
    watch = ServerWatch()
    for k in range(10):
        watch.see(ServerState(4, 0, 0.1, 100 + 10 * k), 4)
    found = watch.summary(delivered_tokens=90, left=20, seconds=10)
    assert found == {
        "output_tokens": 90, "unread_tokens": 0, "held_ms": 0.0, "most_waiting": 0, "most_kv_usage": 0.1,
        "most_late_ms": None,
    }  # fmt: skip


def test_requests_that_nobody_waits_for_show_for_how_long_they_go_on() -> None:
    watch = ServerWatch()
    for k in range(10):
        watch.see(ServerState(6, 2, 0.9, 1000 * k), 4)
    found = watch.summary(delivered_tokens=3000, left=20, seconds=10)
    assert found is not None
    assert found["unread_tokens"] == 6000
    assert found["held_ms"] == 2000.0  # four at any time for ten seconds, shared by twenty who left


def test_a_server_that_was_restarted_or_tells_nothing_leaves_the_figures_unknown() -> None:
    assert ServerWatch().summary(10, 1, 10) is None
    watch = ServerWatch()
    for tokens in (5000, 10):
        watch.see(ServerState(1, 0, None, tokens), 1)
    found = watch.summary(10, 0, 10)
    assert found is not None
    assert (found["output_tokens"], found["unread_tokens"], found["held_ms"]) == (None, None, None)
