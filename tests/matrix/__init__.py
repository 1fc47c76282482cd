"""Snapshots against what other machines compute, and against small faults."""
