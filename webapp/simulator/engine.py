"""The serving engine: continuous batching in steps, without a clock.

Whoever drives it says what time it is: `virtual.py` jumps from step to step, the server waits for each. A step
decodes one token (with speculation: several) for every running sequence and fills the rest of its token budget with
prompts, first come first served. When the KV cache would overflow, the newest request gives its place back and
computes its context again later. Between two steps the state is that of the last step's end. The same seed and the
same submissions at the same times give the same trace.
"""

from collections import OrderedDict, deque
from math import exp
from random import Random

from webapp.simulator.batch import Batch
from webapp.simulator.costs import Load, Split, costs_of
from webapp.simulator.hardware import Serving
from webapp.simulator.sequence import Ask, Refused, RequestTimes, Sequence, Step

__all__ = ["Ask", "Engine", "Refused", "RequestTimes", "Split", "Step"]

EVERYTHING = 1 << 62  # tokens: no budget
REMEMBERED = 4096  # finished requests whose times can still be asked for


class Engine:
    """One machine, or a group of devices that works as one, with its queue."""

    def __init__(self, serving: Serving, seed: int = 0) -> None:
        self._costs = costs_of(serving)
        self._model = serving.model
        self._max_sequences = serving.max_sequences
        self._reserves = serving.reserves_answers
        self._whole_prompts = serving.whole_prompts
        self._promised = 0.0  # KV tokens that all running sequences will need in the end, where answers are reserved
        self._sigma = serving.jitter_sigma
        self._jitter = Random(f"jitter {seed}")
        self._batch = Batch(serving.model, serving.speculation, Random(f"drafts {seed}"))
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}  # in order of admission
        self._prefilling: list[Sequence] = []
        self._known: dict[int, Sequence] = {}
        self._over: OrderedDict[int, tuple[Sequence, Split]] = OrderedDict()
        self._totals = [0] * len(Split._fields)
        self._steps = 0
        self.free_ns = 0  # when the last step ends
        self.kv_capacity = max(0, int(self._costs.kv_capacity))  # tokens

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def kv_used(self) -> float:
        """Tokens in the KV cache, those of unfinished prompts in full."""
        prompts = sum(self._model.resident(sequence.prompt) for sequence in self._prefilling)
        return self._batch.context_tokens + prompts

    def time_of(self, ask_id: int) -> RequestTimes:
        """Return where a request's time went, up to the end of the last step. Raises KeyError for an unknown one."""
        sequence = self._known.get(ask_id)
        if sequence is not None:
            return sequence.times(self.free_ns, Split(*self._totals))
        sequence, totals = self._over[ask_id]
        return sequence.times(self.free_ns, totals)

    def submit(self, ask: Ask) -> None:
        """Put a request at the end of the queue.

        Raises Refused where its prompt and answer can never fit the KV cache, ValueError where its id is taken.
        """
        if ask.id in self._known:
            raise ValueError(f"there is a request {ask.id} already")
        tokens = ask.prompt_tokens + ask.output_tokens
        if self._model.resident(tokens) > self.kv_capacity:
            raise Refused(f"prompt and answer need {tokens} tokens of KV cache, which holds {self.kv_capacity} here")
        sequence = self._known[ask.id] = Sequence(ask)
        self._waiting.append(sequence)

    def cancel(self, ask_id: int) -> None:
        """Forget a request and free its slot and KV cache at once. Nothing happens where it is unknown or over."""
        sequence = self._known.get(ask_id)
        if sequence is None:
            return
        if ask_id in self._running:
            self._release(sequence)
        else:
            self._waiting.remove(sequence)
        self._close(sequence)

    def step(self, now_ns: int) -> Step | None:
        """Make the next step, from `now_ns` or from the end of the one before. None where there is nothing to do."""
        if not self._running and not self._waiting:
            return None
        began_ns = max(now_ns, self.free_ns)
        preempted = self._make_room()
        sequences, context = len(self._batch), self._batch.context_tokens
        admitted: tuple[int, ...] = ()
        tokens, reach, prompts = 0, 0.0, 0
        ready: list[Sequence] = []
        if self._prefilling or self._waiting:
            head = self._prefilling[0] if self._prefilling else self._waiting[0]
            budget = self._costs.budget(sequences, head.left, self._steps)
            if self._costs.slots:
                admitted = () if preempted else self._admit(began_ns, EVERYTHING)
                prompts = len(self._prefilling)
                tokens, ready = self._prefill_each(budget)
            else:
                admitted = () if preempted else self._admit(began_ns, budget)
                tokens, reach, ready = self._prefill(budget)
        split = self._pass_time(began_ns, self._costs.split(Load(sequences, context, tokens, reach, prompts)))
        emitted, over = self._batch.advance()
        for sequence in over:
            self._leave(sequence)
            self._close(sequence)
        finished = tuple(sequence.ask.id for sequence in over)
        if not ready:
            return Step(began_ns, self.free_ns, emitted, (), finished, admitted, preempted, split)
        started, ended = self._begin(ready)
        emitted += tuple((sequence.ask.id, 1) for sequence in ready)
        return Step(began_ns, self.free_ns, emitted, started, finished + ended, admitted, preempted, split)

    def _pass_time(self, began_ns: int, split: Split) -> Split:
        """Let a step of these parts pass; return them with noise, so that they sum to its length."""
        if self._sigma:  # a factor whose mean is 1, so that noise does not change the pace
            noise = exp(self._jitter.gauss(-self._sigma * self._sigma / 2, self._sigma))
            split = Split(*(int(part * noise) for part in split))
        self.free_ns = began_ns + max(1, sum(split))
        self._steps += 1
        for place, part in enumerate(split):
            self._totals[place] += part
        return split

    def _admit(self, began_ns: int, budget: int) -> tuple[int, ...]:
        """Let in who is first in the queue, while there are slots, room, and budget for a first chunk."""
        budget -= sum(sequence.left for sequence in self._prefilling)
        taken = self._promised if self._reserves else self.kv_used + len(self._batch) * self._batch.most_each
        admitted: list[int] = []
        while self._waiting and budget > 0 and len(self._running) < self._max_sequences:
            sequence = self._waiting[0]
            room = self._room(sequence)
            if taken + room > self.kv_capacity:
                break
            if self._whole_prompts and self._prefilling and sequence.left > budget:
                break
            self._waiting.popleft()
            self._running[sequence.ask.id] = sequence
            self._promised += room
            self._prefilling.append(sequence)
            taken += room
            budget -= sequence.left
            admitted.append(sequence.ask.id)
            if sequence.before is None:
                sequence.before, sequence.admitted_ns = Split(*self._totals), max(began_ns, sequence.ask.arrived_ns)
        return tuple(admitted)

    def _room(self, sequence: Sequence) -> float:
        """Return what of the KV cache a sequence needs to be let in."""
        ask = sequence.ask
        return self._model.resident(ask.prompt_tokens + ask.output_tokens if self._reserves else sequence.prompt)

    def _prefill(self, budget: int) -> tuple[int, float, list[Sequence]]:
        """Spend the budget on prompts in order; return the tokens, their reach, and whose prompt is done."""
        spent, reach, ready = 0, 0.0, []
        for sequence in self._prefilling:
            chunk = min(sequence.left, budget - spent)
            if chunk <= 0:
                break
            reach += self._model.reach(sequence.prompt - sequence.left, chunk)
            sequence.left -= chunk
            spent += chunk
            if not sequence.left:
                ready.append(sequence)
        del self._prefilling[: len(ready)]
        return spent, reach, ready

    def _prefill_each(self, budget: int) -> tuple[int, list[Sequence]]:
        """Spend the budget on every prompt, side by side; return the longest part, and whose prompt is done."""
        longest = 0
        for sequence in self._prefilling:
            chunk = min(sequence.left, budget)
            sequence.left -= chunk
            longest = max(longest, chunk)
        ready = [sequence for sequence in self._prefilling if not sequence.left]
        self._prefilling = [sequence for sequence in self._prefilling if sequence.left]
        return longest, ready

    def _begin(self, ready: list[Sequence]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Let finished prompts decode; each has just produced a token. Return whose first that was, and whose last."""
        started, ended = [], []
        for sequence in ready:
            sequence.produced += 1
            if sequence.first_ns < 0:
                sequence.first_ns = self.free_ns
                started.append(sequence.ask.id)
            left = sequence.ask.output_tokens - sequence.produced
            if left:
                self._batch.enter(sequence, left)
            else:
                self._leave(sequence)
                self._close(sequence)
                ended.append(sequence.ask.id)
        return tuple(started), tuple(ended)

    def _make_room(self) -> tuple[int, ...]:
        """Preempt the newest until the next tokens of the others fit."""
        preempted = []
        batch = self._batch
        while len(self._running) > 1 and self.kv_used + len(batch) * batch.most_each > self.kv_capacity:
            sequence = next(reversed(self._running.values()))
            self._release(sequence)
            sequence.prompt = sequence.left = sequence.ask.prompt_tokens + sequence.produced
            self._waiting.appendleft(sequence)
            preempted.append(sequence.ask.id)
        return tuple(preempted)

    def _release(self, sequence: Sequence) -> None:
        """Free the slot and the KV cache of a running sequence."""
        self._leave(sequence)
        if sequence.ends >= 0:
            self._batch.leave(sequence)
        else:
            self._prefilling.remove(sequence)

    def _leave(self, sequence: Sequence) -> None:
        """Free the slot of a running sequence."""
        del self._running[sequence.ask.id]
        self._promised = self._promised - self._room(sequence) if self._running else 0.0  # floats must not drift

    def _close(self, sequence: Sequence) -> None:
        """Note when a sequence left, for whoever asks later."""
        del self._known[sequence.ask.id]
        sequence.done_ns = self.free_ns
        self._over[sequence.ask.id] = sequence, Split(*self._totals)
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
