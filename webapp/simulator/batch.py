"""The sequences that decode, in lock-step: one token each at every advance, more where drafts are accepted.

What a step's time depends on is kept as running sums, so an advance costs the same for 4 and for 400 sequences: a
sequence is looked at when it enters, when it leaves and when it outgrows an attention window, never in between. Its
state between those moments follows from the number of advances made since. Speculation alone has to look at each.
"""

from bisect import bisect_left
from collections.abc import Iterator
from random import Random

from webapp.simulator.hardware import Model, Speculation
from webapp.simulator.sequence import Sequence

Emitted = tuple[tuple[int, int], ...]


class Batch:
    """The decoding sequences of one engine."""

    def __init__(self, model: Model, speculation: Speculation | None, random: Random) -> None:
        self.most_each = 1 + (speculation.draft_tokens if speculation else 0)
        self._random = random
        self._chances = [-chance for chance in speculation.thresholds()] if speculation else []  # rising, for bisect
        self._window = model.window_tokens
        self._near_share = model.window_share
        self._far_share = 1.0 - model.window_share
        self._members: dict[int, Sequence] = {}
        self._events: dict[int, list[Sequence]] = {}  # by advance: who ends or outgrows the window there
        self._advances = 0
        self._full = 0  # KV tokens of all members
        self._near = 0  # the same, each at most a window
        self._narrow = 0  # members that are still within the window
        self._everyone: Emitted | None = ()  # what a plain advance emits; None: members have changed

    def __len__(self) -> int:
        return len(self._members)

    @property
    def context_tokens(self) -> float:
        """KV tokens of all members; what lies beyond a window counts only in the layers without one."""
        return self._far_share * self._full + self._near_share * self._near

    def enter(self, sequence: Sequence, left: int) -> None:
        """Take in a sequence whose prompt is done and which still has `left` tokens to produce."""
        now, context = self._advances, sequence.prompt
        sequence.base, sequence.ends = context - now, now + left
        self._members[sequence.ask.id] = sequence
        self._full += context
        self._near += min(context, self._window)
        if context < self._window:
            self._narrow += 1
            sequence.widens = now + self._window - context
            self._at(sequence.widens, sequence)
        self._at(sequence.ends, sequence)
        self._everyone = None

    def leave(self, sequence: Sequence) -> None:
        """Take a sequence out; what it has produced by then is noted in it."""
        context = sequence.base + self._advances
        del self._members[sequence.ask.id]
        self._full -= context
        self._near -= min(context, self._window)
        if sequence.widens >= 0:
            self._narrow -= 1
        sequence.produced = sequence.ask.output_tokens - (sequence.ends - self._advances)
        sequence.ends = sequence.widens = -1
        self._everyone = None

    def advance(self) -> tuple[Emitted, list[Sequence]]:
        """Give every member its token; return (ask id, tokens) of each, and the members that have left with this."""
        if not self._members:
            return (), []
        self._full += len(self._members)
        self._near += self._narrow
        self._advances += 1
        if self._chances:
            emitted = tuple(self._speculate(self._advances))
        else:
            if self._everyone is None:
                self._everyone = tuple((key, 1) for key in self._members)
            emitted = self._everyone
        events = self._events.pop(self._advances, None)
        return emitted, self._settle(events) if events else []

    def _settle(self, events: list[Sequence]) -> list[Sequence]:
        """Look at those for whom this advance is special. Entries of moments that were put off are passed over."""
        finished = []
        for sequence in events:
            if sequence.widens == self._advances:
                sequence.widens = -1
                self._narrow -= 1
            if sequence.ends == self._advances:
                self.leave(sequence)
                finished.append(sequence)
        return finished

    def _speculate(self, now: int) -> Iterator[tuple[int, int]]:
        """Accept drafts: a sequence jumps ahead by as many tokens, and its moments come as much sooner."""
        for key, sequence in self._members.items():
            extra = min(bisect_left(self._chances, -self._random.random()), sequence.ends - now)
            if extra:
                context = sequence.base + now
                sequence.base += extra
                sequence.ends -= extra
                self._full += extra
                self._near += min(context + extra, self._window) - min(context, self._window)
                self._at(sequence.ends, sequence)
                if sequence.widens >= 0:
                    sequence.widens = max(now, sequence.widens - extra)
                    self._at(sequence.widens, sequence)
            yield key, 1 + extra

    def _at(self, advance: int, sequence: Sequence) -> None:
        self._events.setdefault(advance, []).append(sequence)
