"""Benchmarks against hand-written loops and other libraries; `python -m benchmarks` prints one table."""
