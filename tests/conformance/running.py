"""A job through steprun's public Python interface."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import runner

from .drafting import ARRAYS, Job


def run_job(job: Job, folder: Path) -> dict[str, Tensor]:
    """What the job's rows hold, by result key; `folder` takes the arrays that the config reads.

    Raises:
        runner.SteprunError: the config is refused or its run fails.
    """
    if job.arrays:
        save_file(dict(job.arrays), folder / ARRAYS)
    plan = runner.compile(runner.loads(job.text, base=str(folder)))
    found = dict(job.known)
    for row in runner.execute(plan):
        for reading in job.readings.get(row.number, ()):
            assert row.step == reading.step, f"row {row.number} is of {row.step}, not of {reading.step}"
            value = row[reading.column]
            if value is None and reading.zeros is not None:
                value = torch.zeros(reading.zeros, dtype=plan_dtype(row.columns, reading.column))
            if value is not None:
                found[reading.key] = reading.view.read(value.detach()) if reading.view else value.detach()
    return found


def plan_dtype(columns: tuple[runner.Column, ...], name: str) -> torch.dtype:
    return next(column.dtype for column in columns if column.name == name)
