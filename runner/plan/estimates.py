"""Estimates the memory and log size of a run before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from runner.faults import Faults
from runner.language.inference.inference import readable_bytes
from runner.optim import OptimizerPlan
from runner.plan.data.sources import SourcePlan
from runner.plan.program.instructions import Action, Evaluate, Instruction, LoopEnd, LoopStart
from runner.plan.rows.columns import recorded
from runner.plan.rows.log import LogPlan

PROCESS_BYTES = 290 << 20
"""Memory of a process that runs and records almost nothing: Python, torch's CPU build and pyarrow, on Linux."""

QUEUE_BYTES = 64 << 20
"""Maximum bytes of rows that wait for the writer thread."""

PART_BYTES = 32 << 20
"""Bytes of rows in one file of the log, before compression."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """The estimated sizes of a run, in bytes."""

    tensors: int  # parameters and constants
    gradients: int
    state: int  # optimizer state
    values: int  # all results of the expression together, an upper bound on its peak
    row: int  # one row as it is logged, before compression
    rows: int  # at most
    data: int = 0  # sources in memory, buffers of streamed ones, reading, shuffling, and what `evaluate` gathers

    @property
    def memory(self) -> int:
        return self.tensors + self.gradients + self.state + self.values + self.data

    @property
    def waiting(self) -> int:
        """Bytes of rows not yet on disk, counted both as logged and as written."""
        return min(2 * self.log, QUEUE_BYTES + PART_BYTES)

    @property
    def peak(self) -> int:
        """Peak memory of the process of a recorded run on the CPU."""
        return PROCESS_BYTES + self.memory + self.waiting

    @property
    def log(self) -> int:
        return self.row * self.rows


def state_bytes(optimizers: Iterable[OptimizerPlan]) -> int:
    """Bytes of the state that optimizers keep for their parameters."""
    entries = [entry for optimizer in optimizers for found in optimizer.state.values() for entry in found]
    return sum(torch.Size(entry.shape).numel() * entry.dtype.itemsize for entry in entries)


def data_bytes(sources: Iterable[SourcePlan]) -> int:
    """Bytes of the sources of a run, their shuffled orders, and the buffers for reading the largest."""
    all_sources = list(sources)
    stored = sum(source.bytes + source.order_bytes for source in all_sources)
    return stored + max((source.reading_bytes for source in all_sources), default=0)


def gathered_bytes(program: Iterable[Instruction]) -> int:
    """Bytes of the values that `evaluate` gathers over all samples; one step at a time has them."""
    arguments = [item.argument for item in program if isinstance(item, Action)]
    return max((argument.bytes for argument in arguments if isinstance(argument, Evaluate)), default=0)


def row_bytes(log: LogPlan) -> int:
    """Bytes of one row as logged, before compression; columns of varying shape count as 0."""
    return sum((stored.elements or 0) * stored.dtype.itemsize for column in log.columns for stored in recorded(column))


def check_size(estimates: Estimates, memory: int, budget: int, faults: Faults, *, runs: bool = True) -> None:
    """Report a run that needs more than `memory` bytes, or a log larger than `budget` bytes.

    Args:
        runs: whether the plan is run; if not, both problems are only warnings.
    """
    report = faults.add if runs else faults.warn
    if estimates.memory > memory:
        report(
            ("expression",),
            f"this run needs about {readable_bytes(estimates.memory)}, but only {readable_bytes(memory)} are available",
            "make its tensors smaller, or raise the limit with --max-memory",
        )
    if estimates.log > budget:
        size = f"{estimates.rows:,} rows of {readable_bytes(estimates.row)} take {readable_bytes(estimates.log)}"
        report(
            ("log",),
            f"the log would exceed its budget of {readable_bytes(budget)}: {size}",
            "write `log: {tensors: none}`, `log: {every: 100}` or a larger `log: {budget: …}`",
            key=True,
        )


def count_rows(program: tuple[Instruction, ...], every: int = 1) -> int:
    """The maximum number of rows that a program logs, including the starting row."""
    rows, scale = 1, [1]
    counts: list[int] = []
    for instruction in program:
        if isinstance(instruction, LoopStart):
            counts.append(instruction.times)
            scale.append(scale[-1] * instruction.times)
        elif isinstance(instruction, LoopEnd):
            scale.pop()
            counts.pop()
        elif isinstance(instruction, Action) and instruction.rows:
            step = every if counts else 1
            step = max(step, instruction.every or 1) if counts else 1
            if counts and counts[-1]:
                rows += scale[-2] * (counts[-1] // step + (counts[-1] % step > 0))
            elif not counts:
                rows += 1
    return rows
