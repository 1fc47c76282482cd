"""The columns that a row can have, and the columns that the log keeps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from runner.config.record_models import Log
from runner.faults import Faults
from runner.language.text.arithmetic import Scalar
from runner.optim import OptimizerPlan
from runner.plan.rows.columns import REDUCED, Column, column_hint, matched_slices, matches, recorded
from runner.plan.rows.slices import leading
from runner.plan.scalars import integer
from runner.plan.tensors.tensors import TensorPlan


@dataclass(frozen=True, slots=True)
class LogPlan:
    """The plan of the `log` section."""

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
    """Every column that a row can have, in order: values, then each weight with its gradient.

    With `state`, each weight also has its optimizer state.
    """
    columns = list(values)
    for name, tensor in tensors.items():
        if tensor.role != "parameter":
            continue
        lengths = leading(tensor.shape, tensor.stacked)
        columns.append(Column(name, "weight", tensor.dtype, tensor.shape, leading=lengths))
        if tensor.requires_grad:
            columns.append(Column(f"{name}.grad", "gradient", tensor.dtype, tensor.shape, leading=lengths))
        if state:
            for optimizer in optimizers.values():
                for entry in optimizer.state.get(name, ()):
                    sliced = lengths if entry.shape == tensor.shape else ()
                    columns.append(Column(f"{name}.{entry.name}", "state", entry.dtype, entry.shape, leading=sliced))
    return columns


def kept_columns(log: Log, columns: Sequence[Column], faults: Faults) -> list[Column]:
    """The columns that the log keeps, each with how it stores its tensors."""
    kept = [_recorded_as(log, column) for column in columns if _is_kept(log, column)]
    _check_recorded(kept, faults)
    for number, pattern in enumerate(log.include or ()):
        if not any(matches(column, pattern) for column in columns):
            faults.add(("log", "include", number), f"`{pattern}` matches no column", column_hint(pattern, columns))
    return kept


def plan_log(log: Log, columns: Iterable[Column], scalars: Mapping[str, Scalar], faults: Faults) -> LogPlan:
    """The plan of a log with these columns; its numbers may be expressions over scalar constants."""
    every = integer(log.every, ("log", "every"), scalars, faults, 1)
    budget = integer(log.budget, ("log", "budget"), scalars, faults, 0)
    return LogPlan(every or 1, tuple(columns), budget or 0)


def _is_kept(log: Log, column: Column) -> bool:
    if log.include is not None and not any(matches(column, pattern) for pattern in log.include):
        return False
    return log.tensors != "none" or column.role == "norm" or (column.role == "value" and column.elements == 1)


def _recorded_as(log: Log, column: Column) -> Column:
    """The column with how the log stores its tensors; a single element is always stored."""
    stored = next((kept for kept in REDUCED if kept == log.tensors), None)
    return column if stored is None or column.elements == 1 else replace(column, kept=stored, only=_only(log, column))


def _only(log: Log, column: Column) -> frozenset[str] | None:
    """The slices that `include` names without the whole tensor; None: the whole and all its slices."""
    whole = replace(column, leading=())
    if log.include is None or any(matches(whole, pattern) for pattern in log.include):
        return None
    return frozenset(name for pattern in log.include for name in matched_slices(column, pattern))


def _check_recorded(columns: Iterable[Column], faults: Faults) -> None:
    """Report columns of the log that would have the same name."""
    known: dict[str, Column] = {}
    for stored in itertools.chain.from_iterable(map(recorded, columns)):
        other = known.setdefault(stored.name, stored)
        of = other.of or stored.of
        if other is not stored and of is not None:
            faults.add(
                ("log", "tensors"),
                f"the log needs the name `{stored.name}` for `{of.name}`, and another column has it",
                "rename one of the two, or write `log: {tensors: full}`",
            )
