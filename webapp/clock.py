"""The web process's only monotonic clock. Lint forbids clock calls elsewhere."""

from time import perf_counter_ns as now_ns

__all__ = ["now_ns"]
