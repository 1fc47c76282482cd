"""What a run will take, in bytes, before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from runner.faults import Faults
from runner.language.inference.inference import readable_bytes
from runner.optim import OptimizerPlan
from runner.plan.data.sources import SourcePlan
from runner.plan.program.instructions import Action, Instruction, LoopEnd, LoopStart
from runner.plan.rows.columns import recorded
from runner.plan.rows.log import LogPlan

PROCESS_BYTES = 290 << 20
"""What a process takes that runs and records next to nothing: Python, torch's CPU build and pyarrow, on Linux."""

QUEUE_BYTES = 64 << 20
"""Rows that may wait for the thread that writes them."""

PART_BYTES = 32 << 20
"""Rows that a file of the log holds, before compression."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a run will take, in bytes, before it starts."""

    tensors: int  # parameters and constants
    gradients: int
    state: int  # of the optimizers
    values: int  # all results of the expression together, an upper bound of its peak
    row: int  # one row as it is logged, before compression
    rows: int  # at most
    data: int = 0  # of the sources held in memory, what streamed ones take, and what reading and shuffling them does

    @property
    def memory(self) -> int:
        return self.tensors + self.gradients + self.state + self.values + self.data

    @property
    def waiting(self) -> int:
        """Rows on the way to the disk, each as it was logged and as it is written."""
        return min(2 * self.log, QUEUE_BYTES + PART_BYTES)

    @property
    def peak(self) -> int:
        """The most memory that the process of a recorded run on the CPU takes."""
        return PROCESS_BYTES + self.memory + self.waiting

    @property
    def log(self) -> int:
        return self.row * self.rows


def state_bytes(optimizers: Iterable[OptimizerPlan]) -> int:
    """Bytes that optimizers keep for their parameters."""
    entries = [entry for optimizer in optimizers for found in optimizer.state.values() for entry in found]
    return sum(torch.Size(entry.shape).numel() * entry.dtype.itemsize for entry in entries)


def data_bytes(sources: Iterable[SourcePlan]) -> int:
    """Bytes of the sources of a run, the orders in which they are shuffled, and what reading one of them takes."""
    found = list(sources)
    held = sum(source.bytes + source.order_bytes for source in found)
    return held + max((source.reading_bytes for source in found), default=0)


def row_bytes(log: LogPlan) -> int:
    """Bytes of one row as it is logged, before compression; what varies in shape counts as nothing."""
    return sum((told.elements or 0) * told.dtype.itemsize for column in log.columns for told in recorded(column))


def check_size(estimates: Estimates, memory: int, budget: int, faults: Faults, *, runs: bool = True) -> None:
    """Collect a fault where a run takes more than `memory` bytes, or its log more than `budget`.

    Args:
        runs: whether the plan is run; both are warnings otherwise.
    """
    tell = faults.add if runs else faults.warn
    if estimates.memory > memory:
        tell(
            ("expression",),
            f"this run takes about {readable_bytes(estimates.memory)}, and there are {readable_bytes(memory)}",
            "make its tensors smaller, or raise the limit with --max-memory",
        )
    if estimates.log > budget:
        size = f"{estimates.rows:,} rows of {readable_bytes(estimates.row)} take {readable_bytes(estimates.log)}"
        tell(
            ("log",),
            f"the log would pass its budget of {readable_bytes(budget)}: {size}",
            "write `log: {tensors: none}`, `log: {every: 100}` or a larger `log: {budget: …}`",
            key=True,
        )


def count_rows(program: tuple[Instruction, ...], every: int = 1) -> int:
    """How many rows a program logs at most, the starting row included."""
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
