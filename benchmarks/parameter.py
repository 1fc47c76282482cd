"""W2: the notebook's 512 x 512 parameter for 300 steps, with 2 MiB logged per step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch

import runner
from benchmarks.measure import Workload, scratch

STEPS = 300
SIDE = 512
MANY = 64
"""Buffers of a step that no cache has together: 128 MiB."""
WRITING = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_version": "2.0",
}
"""Good settings of pyarrow for such a table; by default a page has 1,024 values."""
A_TENSOR_A_PAGE = WRITING | {"write_batch_size": 1}
"""The fastest settings, those of steprun: with one tensor per page, a page fits into a cache."""
CONFIG = Path(__file__).parents[1] / "configs" / "parameter.yaml"


def steprun(*overrides: str) -> None:
    runner.run(CONFIG, overrides=[f"steps={STEPS}", *overrides], runs_dir=scratch())


@functools.cache
def recorded_table() -> pyarrow.Table:
    """Returns the table that one such run records, in memory, with one chunk per column."""
    run = runner.run(CONFIG, overrides=[f"steps={STEPS}"], runs_dir=scratch())
    parts = sorted((run.path / "rows").glob("*.parquet"))
    return pyarrow.concat_tables([pyarrow.parquet.read_table(part) for part in parts]).combine_chunks()


def pyarrow_alone(writing: dict[str, Any]) -> None:
    pyarrow.parquet.write_table(recorded_table(), scratch() / "rows.parquet", **writing)


def moved(buffers: int) -> None:
    """Writes the weight and the gradient of each step to one of some buffers, and reads each again 8 steps later."""
    pair = [torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)]
    kept = [[torch.empty_like(each) for each in pair] for _ in range(buffers)]
    for step in range(STEPS):
        for target, source in zip(kept[step % buffers], pair, strict=True):
            target.copy_(source)
        for tensor in kept[(step - 8) % buffers]:
            tensor.sum()


def without_tensors_but_their_memory() -> None:
    """The run without tensors, and what memory alone takes for those that a full log keeps."""
    steprun("log.tensors=none")
    moved(MANY)


def workloads() -> list[Workload]:
    what = f"configs/parameter.yaml, {STEPS} steps, full log"
    memory = f"{2 * SIDE * SIDE * 4 >> 20} MiB a step written to memory and read again"
    sides: list[tuple[str, Callable[[], object], float | None]] = [
        ("pyarrow alone writing that table", functools.partial(pyarrow_alone, WRITING), 1.25),
        ("pyarrow alone, a tensor a page", functools.partial(pyarrow_alone, A_TENSOR_A_PAGE), None),
        ("the same run, `tensors: none`", functools.partial(steprun, "log.tensors=none"), 1.6),
        ("`tensors: none`, and memory alone", without_tensors_but_their_memory, None),
    ]
    far, near = functools.partial(moved, MANY), functools.partial(moved, 1)
    return [
        *(Workload("W2", what, against, steprun, theirs, reach, steps=STEPS) for against, theirs, reach in sides),
        Workload("W2", memory, "the same within the cache", far, near, None, steps=STEPS),
    ]
