"""The same bits twice on a device whose fastest implementations do not give them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WORKSPACE, CONFIGURED = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""The setting under which cuBLAS computes the same in every call, which it reads once.

Source: cuBLAS library documentation, "Results Reproducibility".
"""


def configure(device: str) -> None:
    """Set what a device's libraries read when they are first used; what a person has set stays."""
    if is_cuda(device):
        os.environ.setdefault(WORKSPACE, CONFIGURED)


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Let torch use deterministic implementations on CUDA, and refuse operations that have none.

    On the CPU torch's own choice is deterministic, and nothing is changed.
    """
    if not is_cuda(device):
        yield
        return
    _MODE.enter()
    try:
        yield
    finally:
        _MODE.leave()


class _Mode:
    """Torch's own switches, which are the process's: on from the first run that enters to the last that leaves."""

    def __init__(self) -> None:
        self.entered = 0
        self._before = (0, False, False)

    def enter(self) -> None:
        cudnn, memory = torch.backends.cudnn, _memory()
        if not self.entered:
            self._before = torch.get_deterministic_debug_mode(), cudnn.benchmark, memory.fill_uninitialized_memory
            torch.use_deterministic_algorithms(True)
            _choose_by_measuring(False)
            memory.fill_uninitialized_memory = False  # no operation of the language gives memory that is not written
        self.entered += 1

    def leave(self) -> None:
        self.entered -= 1
        if not self.entered:
            mode, benchmark, filled = self._before
            torch.set_deterministic_debug_mode(mode)
            _choose_by_measuring(benchmark)
            _memory().fill_uninitialized_memory = filled


def _choose_by_measuring(choose: bool) -> None:
    """Set how cuDNN chooses its algorithms, also where torch forbids to assign it (its test utilities do)."""
    torch.backends.cudnn.set_flags(_benchmark=choose, _fp32_precision=None)  # type: ignore[no-untyped-call]


def _memory() -> Any:
    """The module, whose one switch is a property that its type does not tell."""
    return torch.utils.deterministic


_MODE = _Mode()


def is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"
