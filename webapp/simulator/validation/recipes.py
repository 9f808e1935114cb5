"""How the rows of a file were measured, where the file does not say it. A table; pure.

What a public recipe of InferenceX says (github.com/SemiAnalysisAI/InferenceX, `benchmarks/` at the commit named) is
taken from there; what only the rows themselves say is marked so. Defaults, for whatever no entry speaks of, stand in
`rows.py`.
"""

from dataclasses import dataclass

ROWS = "the rows themselves"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is known of the rows that have these names; an empty name or tuple means any. None: nothing is known."""

    backend: str
    source: str
    model: str = ""
    systems: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    kv_bytes: float | None = None  # of one element of the KV cache
    prompts_a_step: int | None = None  # a step's budget in prompts; each data-parallel group has its own
    most_at_once: int | None = None  # requests that the engine works on; the others wait
    one_wave: bool = False  # as many requests as users: every one of them met the start burst
    known_prompts: bool = False  # the same prompts were asked before, and the engine keeps what it computed for them
    precision: str = ""  # of the weights, where the row gives none

    def fits(self, backend: str, model: str, system: str, version: str) -> bool:
        """Return whether it speaks of a row with these names, machine and model by ours."""
        return (
            self.backend == backend
            and self.model in ("", model)
            and (not self.systems or system in self.systems)
            and (not self.versions or version in self.versions)
        )


_MINIMAX, _GPT_OSS, _BLACKWELL = "minimax-m2.5", "gpt-oss-120b", ("b200", "b300")

RECIPES = (
    # Its server took $CONC at once, 4 to 64, its client sent 10·$CONC and reported a concurrency of 512.
    Recipe("vllm", "25506e8, gptoss_fp4_h100_docker.sh", _GPT_OSS, ("h100",), ("", "0.11.2"), most_at_once=64),
    Recipe("vllm", "f342df1, minimaxm2.5_fp8_b200.sh", _MINIMAX, ("b200",), ("0.17.0",), kv_bytes=2.0),
    Recipe("vllm", "bddbf40, 79bd988, 340d785", _MINIMAX, _BLACKWELL, ("0.19.0",), kv_bytes=1.0, prompts_a_step=2),
    Recipe("vllm", "the same flag in every recipe for these machines", systems=(*_BLACKWELL, "gb200"), kv_bytes=1.0),
    # InferenceX switches vLLM's prefix cache off; here it was on, as it is by default: seven of nine rows are met
    # within 7 % with all prompts in it, none within 25 % with none.
    Recipe("vllm", ROWS, "llama-8b", ("h200",), ("0.12.0",), known_prompts=True),
    # Its speeds cannot be reached with bf16 weights; those of 0.5.8 are theirs, and so is the KV cache that fills.
    Recipe("sglang", ROWS, versions=("0.5.1.post1",), one_wave=True, precision="fp8"),
    Recipe("sglang", ROWS, versions=("0.5.8.post1",), one_wave=True),
    Recipe("trtllm", "b328c7f, 70b_fp8_h200_trt_slurm.sh", kv_bytes=1.0),
)


NOTHING_KNOWN = Recipe("", "")


def recipe_of(backend: str, model: str, system: str, version: str) -> Recipe:
    """Return the first that speaks of these rows, or one that knows nothing."""
    return next((one for one in RECIPES if one.fits(backend, model, system, version)), NOTHING_KNOWN)
