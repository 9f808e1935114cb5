"""What one step costs. Pure arithmetic on a `Serving`, in float nanoseconds; nothing here has a state.

Two laws. A *bandwidth* machine streams the weights and the KV cache once a step and pays arithmetic, two
all-reduces a layer, a fixed time per layer and a little per sequence:

    T = L·tau + max(W(B) / bw, 2·A·B / flops) + kv·SC / bw
      + prefill arithmetic (less the time in which decoding leaves its units waiting for the weights)
      + prefill attention + all-reduces + c·B

A *latency* machine (wafer, LPU) holds everything in SRAM and pays per layer only. A prompt passes at a fixed rate in
a pipeline slot of its own, beside the decoding and beside other prompts; what exceeds the slots waits in turn.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from webapp.simulator.hardware import Serving

ATTENTION_FLOPS = 4.0  # per query element and context token: two products, multiply and add
PURE_PREFILL_SLICE_S = 0.005  # latency machines take new arrivals and cancellations at least this often


class Split(NamedTuple):
    """Where a step's time goes, ns; the sum is the step's time."""

    overhead_ns: int
    weights_ns: int
    kv_ns: int
    prefill_ns: int
    communication_ns: int
    sequences_ns: int  # per-sequence work; on a latency machine the wait for a pipeline slot


class Load(NamedTuple):
    """What one step has to do. On a machine with slots `prefill_tokens` are those of the longest part of a prompt."""

    sequences: int  # that decode
    context_tokens: float  # of those, window counted
    prefill_tokens: int
    prefill_reach: float  # sum over the prefilled tokens of the context that each looks at
    prompts: int = 0  # that are computed side by side, on a machine with slots


class Costs(Protocol):
    """A law of step times."""

    @property
    def kv_capacity(self) -> float:
        """Tokens that the KV cache holds."""

    @property
    def slots(self) -> int:
        """Prompts and decoding sequences side by side; 0: prompts share the step's one budget, in order."""

    def budget(self, sequences: int, first_left: int, step: int) -> int:
        """Return how many prompt tokens the step may take beside `sequences` decoding ones; with slots, of each."""

    def split(self, load: Load) -> Split:
        """Return the step's time in its parts."""


def costs_of(serving: Serving) -> Costs:
    """Return the law that the serving's machine obeys."""
    if serving.machine.kind == "latency":
        return LatencyCosts.of(serving)
    return BandwidthCosts.of(serving)


def kv_capacity(serving: Serving) -> float:
    """Return how many tokens the KV cache holds beside the weights; zero or less where the weights do not fit."""
    machine, model = serving.machine, serving.model
    weights = model.dense_bytes(serving.precision) * serving.data_parallel + model.expert_bytes(serving.precision)
    each = machine.memory_gb * machine.memory_share - machine.reserve_gb
    return (each * 1e9 * serving.devices - weights) / (model.kv_elements * serving.kv_bytes)


@dataclass(slots=True)
class BandwidthCosts:
    """Step times of a machine that streams weights and KV cache from its memory."""

    kv_capacity: float
    _overhead: float
    _dense: float
    _experts: float
    _touched: list[float]  # share of the experts that 0, 1, 2, … tokens choose
    _moe: bool
    _per_token: float
    _per_prompt_token: float
    _per_context: float
    _per_reach: float
    _per_transfer: float
    _per_sequence: float
    _tokens_each: int
    _batch_tokens: int
    slots: int = 0

    @classmethod
    def of(cls, serving: Serving) -> "BandwidthCosts":
        """Work out the constants, ns each."""
        machine, model, devices = serving.machine, serving.model, serving.devices
        memory = machine.bandwidth_tb_s * 1e12 * machine.bandwidth_share * devices / 1e9
        flops = machine.flops(serving.arithmetic or serving.precision) * devices / 1e9
        attention = machine.bf16_tflops * 1e12 * machine.attention_share * devices / 1e9
        hops = 4 * (devices - 1) / devices  # a ring all-reduce moves 2·(N-1)/N of its bytes; two a layer
        link = machine.link_gb_s * machine.link_share  # GB/s is bytes per ns
        drafts = serving.speculation.draft_tokens if serving.speculation else 0
        draft_ns = drafts * serving.speculation.draft_us * 1e3 if serving.speculation else 0.0
        most = serving.max_sequences * (drafts + 1)
        return cls(
            kv_capacity=kv_capacity(serving),
            _overhead=model.layers * serving.layer_us * 1e3 + draft_ns,
            _dense=model.dense_bytes(serving.precision) * serving.data_parallel / memory,
            _experts=model.expert_bytes(serving.precision) / memory,
            _touched=[model.experts_touched(tokens) for tokens in range(most + 1)],
            _moe=model.experts > 0,
            _per_token=2 * model.active_parameters / flops,
            _per_prompt_token=2 * model.active_parameters / flops / model.prefill_share,
            _per_context=model.kv_elements * serving.kv_bytes / memory,
            _per_reach=ATTENTION_FLOPS * model.attention_width * model.layers / attention,
            _per_transfer=hops * model.layers * model.hidden * 2 / link if devices > 1 else 0.0,
            _per_sequence=machine.sequence_us * 1e3 / serving.data_parallel,
            _tokens_each=drafts + 1,
            _batch_tokens=serving.batch_tokens,
        )

    def budget(self, sequences: int, first_left: int, step: int) -> int:
        return self._batch_tokens - sequences * self._tokens_each

    def split(self, load: Load) -> Split:
        sequences, context, prefill, reach, _ = load
        tokens = sequences * self._tokens_each
        # A chunk of prompt touches practically all experts; a decode batch those that its tokens choose.
        touched = 1.0 if prefill else self._touched[tokens]
        read, decode = self._dense + self._experts * touched, tokens * self._per_token
        arithmetic = prefill * self._per_prompt_token
        if not self._moe:  # a dense step reads its weights once for both: a prompt is free while the units await them
            arithmetic = max(0.0, arithmetic - max(0.0, read - decode))
        return Split(
            int(self._overhead),
            int(max(read, decode)),
            int(context * self._per_context),
            int(arithmetic + reach * self._per_reach),
            int((tokens + prefill) * self._per_transfer),
            int(sequences * self._per_sequence),
        )


@dataclass(frozen=True, slots=True)
class LatencyCosts:
    """Step times of a machine whose pace is set by its layers, whatever the batch, up to its slots."""

    kv_capacity: float
    slots: int
    _pass_ns: float
    _prefill_tok_ns: float

    @classmethod
    def of(cls, serving: Serving) -> "LatencyCosts":
        layers = serving.model.layers
        return cls(
            kv_capacity=kv_capacity(serving),
            slots=serving.slots or layers,
            _pass_ns=layers * serving.layer_us * 1e3,
            _prefill_tok_ns=serving.prefill_tok_s / 1e9,
        )

    def budget(self, sequences: int, first_left: int, step: int) -> int:
        if not sequences:
            return min(first_left, max(1, int(PURE_PREFILL_SLICE_S * 1e9 * self._prefill_tok_ns)))
        each = self._pass_ns * self._prefill_tok_ns
        return int(each * (step + 1)) - int(each * step)  # whole tokens now, the fraction later

    def split(self, load: Load) -> Split:
        prefill = 0.0 if load.sequences else load.prefill_tokens / self._prefill_tok_ns - self._pass_ns
        alone = self._pass_ns + max(0.0, prefill)
        waited = alone * max(0.0, (load.sequences + load.prompts) / self.slots - 1)
        return Split(int(self._pass_ns), 0, 0, int(max(0.0, prefill)), 0, int(waited))
