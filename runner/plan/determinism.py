"""Bitwise reproducible results on devices whose fastest implementations are nondeterministic."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WORKSPACE, CONFIGURED = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""The environment variable and value that make cuBLAS deterministic; cuBLAS reads it once.

Source: cuBLAS library documentation, "Results Reproducibility".
"""


def configure(device: str) -> None:
    """Set the environment variables that a device's libraries read on first use; keep the user's values."""
    if is_cuda(device):
        os.environ.setdefault(WORKSPACE, CONFIGURED)


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Use deterministic implementations on CUDA, and raise an error for operations that have none.

    On the CPU, torch's defaults are deterministic, and nothing changes.
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
    """Torch's process-wide switches: on from the first run that enters until the last that leaves."""

    def __init__(self) -> None:
        self.entered = 0
        self._before = (0, False, False)

    def enter(self) -> None:
        cudnn, memory = torch.backends.cudnn, _memory()
        if not self.entered:
            self._before = torch.get_deterministic_debug_mode(), cudnn.benchmark, memory.fill_uninitialized_memory
            torch.use_deterministic_algorithms(True)
            _choose_by_measuring(False)
            memory.fill_uninitialized_memory = False  # no operation of the language returns uninitialized memory
        self.entered += 1

    def leave(self) -> None:
        self.entered -= 1
        if not self.entered:
            mode, benchmark, filled = self._before
            torch.set_deterministic_debug_mode(mode)
            _choose_by_measuring(benchmark)
            _memory().fill_uninitialized_memory = filled


def _choose_by_measuring(choose: bool) -> None:
    """Set `cudnn.benchmark`, even where torch forbids assigning it, as its test utilities do."""
    torch.backends.cudnn.set_flags(_benchmark=choose, _fp32_precision=None)  # type: ignore[no-untyped-call]


def _memory() -> Any:
    """The module `torch.utils.deterministic`, untyped: its type does not declare the property used here."""
    return torch.utils.deterministic


_MODE = _Mode()


def is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"
