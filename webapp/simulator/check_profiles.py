"""The profiles that the check of the pace serves: machines that give every stream exactly its rate."""

from pathlib import Path

CELL_RATES = (50, 2000, 2500)

_TEXT = """
label = "Check, {tok_s} tok/s"
hardware = "none"
family = "none"
devices = 1
precision = "fp8"
layer_us = {layer_us}
slots = 10000
max_sequences = {max_sequences}
prefill_tok_s = 1e7
jitter_sigma = 0.0
api_ms = 5.0
api_sigma = 0.0
source = "made for the check"
date = "2026-11"
calibrated_on = "nothing"
error = "none"
status = "A"
confidence = "H"

[machine]
label = "none"
kind = "latency"
memory_gb = 10000
source = "made for the check"
date = "2026-11"

[model]
label = "none"
parameters_b = 0.001
layers = 1
hidden = 1
attention_width = 1
kv_elements = 1
context_tokens = 131072
source = "made for the check"
date = "2026-11"
"""


def write_profiles(folder: Path) -> Path:
    """Write one profile per rate into the folder, and one that lets everybody wait; return the folder."""
    for tok_s in CELL_RATES:
        text = _TEXT.format(tok_s=tok_s, layer_us=1e6 / tok_s, max_sequences=8000)
        (folder / f"check-{tok_s}.toml").write_text(text, encoding="utf-8")
    waiting = _TEXT.format(tok_s=1, layer_us=1e6, max_sequences=1)
    (folder / "check-wait.toml").write_text(waiting, encoding="utf-8")
    return folder
