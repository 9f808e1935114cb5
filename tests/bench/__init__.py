"""The benchmark: every figure of ours beside the same figure of a reference, taken in one run.

    python -m tests.bench [--only P1,P3] [--quick] [--json FILE]

Real processes, loopback only. The relay that is measured runs alone on the first core, the reference stream and the
readers on the second. The reference stream (tests/upstreams/reference.py) writes the time of emission into each token;
readers note when it came out at the other end.
"""
