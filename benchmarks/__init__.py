"""Workloads against what a person would otherwise write or use; `python -m benchmarks` prints one table."""
