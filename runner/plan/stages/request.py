"""What is to be planned: a config, its limits, and the problems found so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from runner.config import Config
from runner.faults import ConfigPath, Faults, KeyPath, place
from runner.language.inference.inference import MAX_NODES
from runner.language.inference.torch_warnings import hide_from_now_on
from runner.language.text.faults import LanguageError
from runner.plan.tensors.source_columns import Readings

ANY_SIZE = 1 << 60
"""Bytes; larger than the memory of any machine."""


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """Limits on the size of a config; most have a command-line flag."""

    nodes: int = MAX_NODES  # --max-nodes
    memory: int | None = None  # --max-memory, bytes; None: the memory of the machine
    seconds: float = 20  # --max-seconds, for planning
    spent: float = 0  # seconds of those already spent on reading the config
    runs: bool = True  # whether the plan runs on this machine; if not, it may exceed `memory`


@dataclass(frozen=True, slots=True)
class Request:
    """The config to plan, and its limits."""

    config: Config
    allowed: tuple[Path, ...]
    limits: PlanLimits
    faults: Faults  # the problems that the stages find
    memory: int  # bytes that the run may allocate
    fitted: Mapping[str, Tensor]  # recorded values of tensors that are computed from data
    readings: Readings  # of data sources by initial expressions

    @property
    def most(self) -> int:
        """Maximum bytes of one value."""
        return self.memory if self.limits.runs else ANY_SIZE


def warn(faults: Faults, path: ConfigPath, text: str, error: LanguageError) -> None:
    """Report a warning of torch at its place, and hide it from now on."""
    hide_from_now_on(text)
    problem = place(faults.document, path, error, key=isinstance(path, KeyPath))
    if problem not in faults.warnings:
        faults.warnings.append(problem)
