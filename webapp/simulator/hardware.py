"""What a machine, a model and one way of serving it are made of: the numbers behind every step time.

Pure values. Decimal units as in data sheets (GB, TB/s, TFLOP/s, dense figures); times of one layer in µs.
The shared constants below are the reference fit of the silicon sample (see validation/README.md).
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["bf16", "fp8", "fp4"]
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp8", "fp4")

# Bytes of one weight; fp4 with its block scales (one byte for sixteen weights).
WEIGHT_BYTES: dict[str, float] = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5625}


@dataclass(frozen=True, slots=True)
class Machine:
    """One accelerator. `kind` says which law holds: memory bandwidth, or a fixed latency per layer."""

    slug: str
    label: str
    kind: Literal["bandwidth", "latency"]
    memory_gb: float
    source: str
    date: str
    bandwidth_tb_s: float = 0.0
    bf16_tflops: float = 0.0
    fp8_tflops: float = 0.0
    fp4_tflops: float = 0.0
    link_gb_s: float = 0.0
    bandwidth_share: float = 0.95  # of the data sheet, that a step reaches
    bf16_share: float = 0.50
    fp8_share: float = 0.50
    fp4_share: float = 0.32
    attention_share: float = 0.90  # of the bf16 peak, in prefill attention
    link_share: float = 0.55
    sequence_us: float = 23.0  # sampling, detokenising, scheduling, per sequence and step
    memory_share: float = 0.90  # of the memory, that an engine takes
    reserve_gb: float = 4.0  # per device: activations, graphs, buffers
    kw_all_in: float | None = None  # host, network and cooling included
    usd_per_h: float | None = None
    names: tuple[str, ...] = ()  # that published tables use

    def flops(self, precision: str) -> float:
        """Return what arithmetic in `precision` reaches, FLOP/s; where the machine lacks it, that of bf16."""
        peak, share = {
            "bf16": (self.bf16_tflops, self.bf16_share),
            "fp8": (self.fp8_tflops, self.fp8_share),
            "fp4": (self.fp4_tflops, self.fp4_share),
        }[precision]
        return (peak * share or self.bf16_tflops * self.bf16_share) * 1e12


@dataclass(frozen=True, slots=True)
class Model:
    """One model: about nine numbers. Parameters in billions."""

    slug: str
    label: str
    parameters_b: float
    layers: int
    hidden: int
    attention_width: int  # query heads × head size
    kv_elements: int  # keys and values of one token, over all layers
    context_tokens: int
    source: str
    date: str
    active_b: float = 0.0  # per token; 0: all
    expert_b: float = 0.0  # in experts, of parameters_b; 0: a dense model
    experts: int = 0
    experts_per_token: int = 0
    window_share: float = 0.0  # of the layers, that look only at the last window_tokens
    window_tokens: int = 0
    dense_precision: str = ""  # of what is not in experts; "" for that of the experts
    prefill_share: float = 1.0  # of the machine's arithmetic, in prompts: small experts make small products
    names: tuple[str, ...] = ()  # that published tables use

    @property
    def active_parameters(self) -> float:
        return (self.active_b or self.parameters_b) * 1e9

    def dense_bytes(self, precision: str) -> float:
        """Return the bytes of the weights that every step reads."""
        return (self.parameters_b - self.expert_b) * 1e9 * WEIGHT_BYTES[self.dense_precision or precision]

    def expert_bytes(self, precision: str) -> float:
        """Return the bytes of all experts together."""
        return self.expert_b * 1e9 * WEIGHT_BYTES[precision]

    def experts_touched(self, tokens: int) -> float:
        """Return the expected share of experts that `tokens` tokens choose, if they choose at random."""
        return 1.0 - (1.0 - self.experts_per_token / self.experts) ** tokens if self.experts else 0.0

    def resident(self, tokens: int) -> float:
        """Return what a sequence of `tokens` takes of the KV cache, in tokens: windowed layers keep only a window."""
        return (1.0 - self.window_share) * tokens + self.window_share * min(tokens, self.window_tokens)

    def reach(self, done: int, chunk: int) -> float:
        """Return the sum of the contexts that `chunk` prompt tokens look at, after `done` earlier ones."""
        whole = chunk * done + chunk * (chunk + 1) / 2
        if not self.window_share:
            return whole
        short = max(0, min(chunk, self.window_tokens - done))
        near = short * done + short * (short + 1) / 2 + (chunk - short) * self.window_tokens
        return (1.0 - self.window_share) * whole + self.window_share * near


@dataclass(frozen=True, slots=True)
class Speculation:
    """Draft tokens that the model checks in one step.

    The i-th is accepted with probability accept × decay^(i-1), if those before it were: the shape of the acceptance
    lengths in InferenceX `golden_al_distribution/*.yaml`, fitted within 1.3 % (GLM-5.2 MTP 0.824, 0.965).
    """

    draft_tokens: int
    accept: float
    decay: float
    draft_us: float = 0.0  # the draft model's own time for one token

    def thresholds(self) -> tuple[float, ...]:
        """Return the probabilities that at least 1, 2, … drafts are accepted; they fall."""
        reached, chances = 1.0, []
        for place in range(self.draft_tokens):
            reached *= self.accept * self.decay**place
            chances.append(reached)
        return tuple(chances)

    def mean_tokens(self) -> float:
        """Return the expected tokens of one step and sequence, the checked one included."""
        return 1.0 + sum(self.thresholds())


@dataclass(frozen=True, slots=True)
class Serving:
    """How one model is served on one kind of machine."""

    machine: Machine
    model: Model
    devices: int
    precision: str
    layer_us: float  # launch, synchronisation and host time of one layer; on a latency machine all there is
    kv_bytes: float = 2.0  # of one key or value element
    arithmetic: str = ""  # precision of the products; "" for that of the weights
    data_parallel: int = 1  # groups of devices that each hold all attention weights and their own sequences
    batch_tokens: int = 8192  # a step's budget of tokens
    max_sequences: int = 256
    slots: int = 0  # latency machines: sequences that the pipeline holds at full pace; 0: one per layer
    prefill_tok_s: float = 0.0  # latency machines
    reserves_answers: bool = False  # admit only what surely fits: TensorRT-LLM's default, it never preempts
    whole_prompts: bool = False  # divide no prompt that a step could take whole: TensorRT-LLM's default
    speculation: Speculation | None = None
    jitter_sigma: float = 0.02  # of the log of a step's time
