"""The weights of a recorded run: those at its end, its best ones, or those of a tagged checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from runner.config.record_models import FromRun
from runner.errors import Problem, UsageError
from runner.plan.data.arrays import safetensors_contents
from runner.plan.data.files import ArrayFile, read
from runner.plan.data.sandbox import FileFault, open_ordinary
from runner.plan.tensors.run_files import find_weights


def weights_of(directory: Path, at: str = "last") -> dict[str, Tensor]:
    """The weights of a run by the names of its parameters, on the CPU.

    Args:
        at: `last`, `best`, or the tag of a checkpoint.
    Raises:
        UsageError: the run has no such weights, or their file is damaged.
    """
    try:
        # not validated: a text that cannot be a tag is one that no checkpoint has
        declared = FromRun.model_construct(run=str(directory.resolve()), at=at)
        found = find_weights(declared, directory, [directory.resolve()], own=True)
        with open_ordinary(found.path) as file:
            _, entries, _ = safetensors_contents(file, os.fstat(file.fileno()).st_size, found.name)
        # the other tensors of a checkpoint have dots in their names
        names = [name for name in entries if found.checkpoint is None or "." not in name]
        return {name: read(ArrayFile(found.path, name, None)) for name in names}
    except FileFault as fault:
        raise UsageError(Problem(fault.message, fault.hint)) from fault
