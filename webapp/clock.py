"""The one monotonic clock of the web process and of the load generator. Lint forbids clock calls elsewhere."""

from time import perf_counter_ns as now_ns

__all__ = ["now_ns"]
