"""What rows record: the columns that a row can have, and those that the log keeps."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from runner.config.models import Log
from runner.errors import did_you_mean
from runner.faults import Faults
from runner.language.text.arithmetic import Scalar
from runner.optim import OptimizerPlan
from runner.plan.rows.columns import TOLD, Column, recorded
from runner.plan.scalars import integer
from runner.plan.tensors.tensors import TensorPlan


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What the rows record."""

    every: int
    columns: tuple[Column, ...]
    budget: int


def columns_of(
    values: Iterable[Column],
    tensors: Mapping[str, TensorPlan],
    optimizers: Mapping[str, OptimizerPlan],
    *,
    state: bool,
) -> list[Column]:
    """Every column that a row can have, in order: values, then weights, each with its gradient and, of the optimizer,
    its `state`."""
    columns = list(values)
    for name, tensor in tensors.items():
        if tensor.role != "parameter":
            continue
        columns.append(Column(name, "weight", tensor.dtype, tensor.shape))
        if tensor.requires_grad:
            columns.append(Column(f"{name}.grad", "gradient", tensor.dtype, tensor.shape))
        if state:
            for optimizer in optimizers.values():
                for entry in optimizer.state.get(name, ()):
                    columns.append(Column(f"{name}.{entry.name}", "state", entry.dtype, entry.shape))
    return columns


def kept_columns(log: Log, columns: Sequence[Column], faults: Faults) -> list[Column]:
    """The columns that the log keeps, each with what it keeps of its tensors."""
    kept = [_recorded_as(log, column) for column in columns if _is_kept(log, column)]
    _check_recorded(kept, faults)
    for number, pattern in enumerate(log.include or ()):
        if not any(fnmatch.fnmatchcase(column.name, pattern) for column in columns):
            names = [column.name for column in columns]
            hint = did_you_mean(pattern, names, f"columns are {', '.join(names)}")
            faults.add(("log", "include", number), f"`{pattern}` matches no column", hint)
    return kept


def plan_log(log: Log, columns: Iterable[Column], scalars: Mapping[str, Scalar], faults: Faults) -> LogPlan:
    """The log of these columns; its numbers may be expressions of scalar constants."""
    every = integer(log.every, ("log", "every"), scalars, faults, 1)
    budget = integer(log.budget, ("log", "budget"), scalars, faults, 0)
    return LogPlan(every or 1, tuple(columns), budget or 0)


def _is_kept(log: Log, column: Column) -> bool:
    if log.include is not None and not any(fnmatch.fnmatchcase(column.name, pattern) for pattern in log.include):
        return False
    return log.tensors != "none" or column.role == "norm" or (column.role == "value" and column.elements == 1)


def _recorded_as(log: Log, column: Column) -> Column:
    """The column with what the log keeps of its tensors; one element is kept in any case."""
    told = next((kept for kept in TOLD if kept == log.tensors), None)
    return column if told is None or column.elements == 1 else replace(column, kept=told)


def _check_recorded(columns: Iterable[Column], faults: Faults) -> None:
    """Report what the log would call by the name of another column."""
    known: dict[str, Column] = {}
    for told in itertools.chain.from_iterable(map(recorded, columns)):
        other = known.setdefault(told.name, told)
        of = other.of or told.of
        if other is not told and of is not None:
            faults.add(
                ("log", "tensors"),
                f"`{told.name}`, which would tell of `{of.name}` in the log, is the name of another column",
                "rename one of the two, or write `log: {tensors: full}`",
            )
