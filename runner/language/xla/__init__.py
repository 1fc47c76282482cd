"""Translates computations of torch to JAX: traces them into graphs of ATen operations, and those into JAX functions.

In: functions over tensors, and example tensors. Out: functions over JAX arrays, or what keeps them from translation.
Importing this package imports nothing heavy; `tracing` and `operators` import torch's tracer and JAX.
"""
