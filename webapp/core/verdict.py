"""The comparison in one sentence, computed, and every reason why it may not have been fair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from webapp.core.errors import Outcome

TIE_RATIO = 1.02  # closer than this is "together": within the error of one run
LENGTH_RATIO = 1.1
BUSY_LAG_MS = 5.0


@dataclass(frozen=True, slots=True)
class LaneResult:
    """What the verdict needs of a lane. Times in ms; None is "n/a".

    `total_ms` is the figure that the comparison is about (whole answer, agent loop, mean caption lag); a DONE lane
    has none where it brought no answer: no text at all or, with `only_thought`, nothing but reasoning. `sent_ms`
    when the first request left, after the common start. `earlier` are the prompts that its conversation began with,
    before this one. `host_lag_ms` how late our own loop was (p99), `server_late_ms`
    how late a server wrote that says when it meant to (at most).
    """

    letter: str
    label: str
    model_family: str
    badge: str
    outcome: Outcome
    ttft_ms: float | None
    total_ms: float | None
    output_tokens: int | None
    cached_tokens: int | None
    reused: bool | None
    sent_ms: float | None
    only_thought: bool = False
    earlier: tuple[str, ...] = ()
    host_lag_ms: float | None = None
    server_late_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Warn:
    """A reason why a comparison may not have been fair: two or three words for the page, and one sentence."""

    short: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`winner` is a lane's letter, "" where there is none; `skew_ms` the time between first and last request sent."""

    sentence: str
    details: str = ""
    winner: str = ""
    skew_ms: float | None = None
    warnings: tuple[Warn, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    lanes: Sequence[LaneResult], *, order: str = "parallel", what: str = "finished", first_token: bool = True
) -> Verdict:
    """Return the verdict on lanes that have all ended. `what` is the verb of the sentence's first half.

    `first_token` says whether the first token deserves a sentence of its own.
    """
    done = sorted((lane for lane in lanes if _counts(lane)), key=lambda lane: lane.total_ms or 0.0)
    sent = [lane.sent_ms for lane in lanes if lane.sent_ms is not None]
    skew_ms = max(sent) - min(sent) if len(sent) > 1 and order == "parallel" else None
    warnings = tuple(_warnings(lanes, done, order))
    if not done:
        return Verdict(_nobody(lanes), skew_ms=skew_ms, warnings=warnings)
    if len(done) == 1:
        only = done[0]
        alone = "" if len(lanes) == 1 else "; no other lane finished"
        return Verdict(
            f"{only.letter} {what} in {duration(only.total_ms)}{alone}.",
            winner=only.letter if len(lanes) > 1 else "",
            skew_ms=skew_ms,
            warnings=warnings,
        )
    return Verdict(
        _sentence(done, what), _details(done, first_token), _winner(done), skew_ms=skew_ms, warnings=warnings
    )


def _counts(lane: LaneResult) -> bool:
    return lane.outcome is Outcome.DONE and lane.total_ms is not None


def _winner(done: Sequence[LaneResult]) -> str:
    first, second = done[0], done[1]
    return first.letter if _ratio(second.total_ms, first.total_ms) >= TIE_RATIO else ""


def _sentence(done: Sequence[LaneResult], what: str) -> str:
    first, last = done[0], done[-1]
    shown = _totals(done)
    times = f"{shown[0]} against {shown[-1]}"
    ratio = _ratio(last.total_ms, first.total_ms)
    if ratio < TIE_RATIO:
        return f"{_names(done)} {what} together: {times}."
    than = f" than {last.letter}" if len(done) > 2 else ""
    return f"{first.letter} {what} {times_sooner(ratio)} sooner{than}: {times}."


def _totals(done: Sequence[LaneResult]) -> list[str]:
    """Return the totals that the verdict names, in words: the first lane's, the second's and the last's."""
    return durations([lane.total_ms for lane in (done[0], done[1], done[-1])])


def _details(done: Sequence[LaneResult], first_token: bool) -> str:
    parts = []
    if len(done) > 2 and _winner(done):
        second = done[1]
        ratio = _ratio(second.total_ms, done[0].total_ms)
        parts.append(f"Next was {second.letter}, {times_sooner(ratio)} later: {_totals(done)[1]}.")
    timed = sorted((lane for lane in done if lane.ttft_ms), key=lambda lane: lane.ttft_ms or 0.0)
    if first_token and len(timed) > 1:
        first, last = timed[0], timed[-1]
        ratio = _ratio(last.ttft_ms, first.ttft_ms)
        times = " against ".join(durations([first.ttft_ms, last.ttft_ms]))
        if ratio < TIE_RATIO:
            parts.append(f"First tokens came together: {times}.")
        else:
            than = f" than {last.letter}" if len(timed) > 2 else ""
            parts.append(f"First token {times_sooner(ratio)} sooner on {first.letter}{than}: {times}.")
    return " ".join(parts)


def _nobody(lanes: Sequence[LaneResult]) -> str:
    if lanes and all(lane.outcome is Outcome.STOPPED for lane in lanes):
        return "Stopped before anyone finished."
    if done := [lane for lane in lanes if lane.outcome is Outcome.DONE]:
        what = "gave an answer" if any(lane.only_thought for lane in done) else "sent any text"
        return f"No lane {what}, so there is nothing to compare."
    return "No lane finished, so there is nothing to compare."


def _warnings(lanes: Sequence[LaneResult], done: Sequence[LaneResult], order: str) -> list[Warn]:
    """Every reason why the comparison was not fair, in the order of their weight."""
    found = []
    if failed := [lane for lane in lanes if lane.outcome.failed]:
        found.append(Warn("not all finished", f"{_names(failed)} failed and {_is(failed)} left out of the comparison."))
    if stopped := [lane for lane in lanes if lane.outcome in (Outcome.STOPPED, Outcome.INTERRUPTED)]:
        found.append(Warn("stopped early", f"{_names(stopped)} {_was(stopped)} stopped and {_is(stopped)} left out."))
    found += _empty_warnings([lane for lane in lanes if lane.outcome is Outcome.DONE and lane.total_ms is None])
    families = {lane.model_family for lane in lanes}
    if len(families) > 1:
        found.append(Warn("different models", "The lanes run different models: " + ", ".join(sorted(families)) + "."))
    if len({lane.badge for lane in lanes}) > 1:
        kinds = ", ".join(f"{lane.letter} {lane.badge}" for lane in lanes)
        found.append(Warn("live and simulated mixed", f"Not every lane is measured on real hardware: {kinds}."))
    found += _history_warning(done)
    found += _length_warning(done)
    cached = [lane for lane in lanes if lane.cached_tokens]
    if cached and len(cached) < len(lanes):
        found.append(Warn("cached prompt", f"{_names(cached)} answered from a prompt cache; the others reported none."))
    cold = [lane for lane in lanes if lane.reused is False]
    if cold and len(cold) < len(lanes):
        detail = f"{_names(cold)} had to open a connection first, the others did not; set-up is outside of TTFT."
        found.append(Warn("cold connection", detail))
    if order == "sequential" and len(lanes) > 1:
        found.append(Warn("one after the other", "The lanes ran at different times."))
    lag_ms = max((lane.host_lag_ms or 0.0 for lane in lanes), default=0.0)
    if lag_ms > BUSY_LAG_MS:
        found.append(
            Warn("host too busy", f"This host was late by up to {lag_ms:.0f} ms (p99): times are uncertain by as much.")
        )
    if late := [lane for lane in lanes if (lane.server_late_ms or 0.0) > BUSY_LAG_MS]:
        most_ms = max(lane.server_late_ms or 0.0 for lane in late)
        detail = f"The simulator of {_names(late)} ran up to {most_ms:.0f} ms behind its schedule"
        found.append(Warn("simulator late", f"{detail}: that time is its host's, not the simulated machine's."))
    return found


def _empty_warnings(empty: Sequence[LaneResult]) -> list[Warn]:
    found = []
    if silent := [lane for lane in empty if not lane.only_thought]:
        found.append(Warn("empty answer", f"{_names(silent)} ended without any text and {_is(silent)} left out."))
    if thought := [lane for lane in empty if lane.only_thought]:
        detail = f"{_names(thought)} only thought and gave no answer, and {_is(thought)} left out."
        found.append(Warn("no answer", detail))
    return found


def _history_warning(done: Sequence[LaneResult]) -> list[Warn]:
    """Warn of conversations that differ: more to read delays the first token, and what was said before the answer."""
    histories: dict[tuple[str, ...], list[LaneResult]] = {}
    for lane in sorted(done, key=lambda lane: lane.letter):
        histories.setdefault(lane.earlier, []).append(lane)
    if len(histories) < 2:
        return []
    parts = []
    for earlier, lanes in histories.items():
        prompts = "1 earlier prompt" if len(earlier) == 1 else f"{len(earlier) or 'no'} earlier prompts"
        parts.append(f"{_names(lanes)} after {prompts}")
    return [Warn("different histories", f"The lanes answered in different conversations: {', '.join(parts)}.")]


def _length_warning(done: Sequence[LaneResult]) -> list[Warn]:
    lengths = [lane.output_tokens for lane in done if lane.output_tokens]
    if len(lengths) < 2 or max(lengths) / min(lengths) <= LENGTH_RATIO:
        return []
    detail = f"The answers have {min(lengths)} to {max(lengths)} tokens; force full length to compare whole answers."
    return [Warn("different lengths", detail)]


def _names(lanes: Sequence[LaneResult]) -> str:
    letters = [lane.letter for lane in lanes]
    return letters[0] if len(letters) == 1 else ", ".join(letters[:-1]) + " and " + letters[-1]


def _is(lanes: Sequence[LaneResult]) -> str:
    return "is" if len(lanes) == 1 else "are"


def _was(lanes: Sequence[LaneResult]) -> str:
    return "was" if len(lanes) == 1 else "were"


def _ratio(larger: float | None, smaller: float | None) -> float:
    return (larger or 0.0) / smaller if smaller else float("inf")


def times_sooner(ratio: float) -> str:
    """Return a ratio as people say it: "1.4×", "3.1×", "18×"."""
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.2f}×" if ratio < 1.095 else f"{ratio:.1f}×"


def durations(times_ms: Sequence[float | None]) -> list[str]:
    """Return times that are compared with the first of them, the shortest, in one unit: "0.41 s", "7.5 s".

    With two significant digits where these give the ratios of the times themselves, else with three.
    """
    known = [ms or 0.0 for ms in times_ms]
    if known[0] >= 99_950:
        return [duration(ms) for ms in known]
    in_ms = known[-1] < 999.5 or (known[0] < 99.95 and known[-1] < 9_995)  # "92 ms against 2660 ms", not 0.092 s
    unit, unit_ms = ("ms", 1) if in_ms else ("s", 1000)
    ratios = [times_sooner(_ratio(ms, known[0])) for ms in known]
    for digits in (2, 3):
        shown = [_digits(ms / unit_ms, digits) for ms in known]
        if [times_sooner(_ratio(float(text), float(shown[0]))) for text in shown] == ratios:
            break
    return [f"{text} {unit}" for text in shown]


def _digits(value: float, digits: int) -> str:
    """Return a number with so many significant digits, or more where it is a larger whole number."""
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def duration(ms: float | None) -> str:
    """Return a time as people read it: "94 ms", "0.41 s", "7.5 s", "1 min 20 s"; "n/a" for None."""
    if ms is None:
        return "n/a"
    if ms < 99.95:
        return f"{ms:.1f} ms" if ms < 9.95 else f"{ms:.0f} ms"
    if ms < 9_995:
        return f"{ms / 1000:.2f} s"
    if ms < 99_950:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s"
