"""The columns that a row can have, and the columns that the log keeps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from runner.config.record_models import Log
from runner.config.text.units import UNITS_OF_BYTES, bytes_of
from runner.faults import Faults
from runner.language.text.arithmetic import Scalar
from runner.optim import OptimizerPlan
from runner.plan.rows.columns import REDUCED, Column, column_hint, recorded
from runner.plan.rows.matching import Named
from runner.plan.rows.slices import leading
from runner.plan.scalars import integer
from runner.plan.tensors.tensors import TensorPlan

_NUMBER_AND_WORD = re.compile(r"[-+]?\s*[0-9][0-9_.,]*(?:[eE][-+]?[0-9]+)?\s*[A-Za-z]+")
_UNITS = frozenset(map(str.lower, UNITS_OF_BYTES))


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
    chosen = _Chosen(log.include, columns)
    places = [place for place, column in enumerate(columns) if chosen.has(place) and _is_stored(log, column)]
    kept = [_recorded_as(log, columns[place], chosen.only(place)) for place in places]
    _check_recorded(kept, faults)
    for number, pattern in enumerate(log.include or ()):
        if not chosen.found[number]:
            faults.add(("log", "include", number), f"`{pattern}` matches no column", column_hint(pattern, columns))
    return kept


class _Chosen:
    """What the patterns of `include` match."""

    def __init__(self, include: Sequence[str] | None, columns: Sequence[Column]) -> None:
        self._all = include is None
        self._whole: set[int] = set()
        self._slices: dict[int, set[str]] = {}
        self.found: list[bool] = []  # for each pattern, whether it matches anything
        named = Named(columns if include else ())
        for pattern in include or ():
            whole, slices = named.whole(pattern), named.slices(pattern)
            self.found.append(bool(whole or slices))
            self._whole |= whole
            for name, place in slices:
                self._slices.setdefault(place, set()).add(name)

    def has(self, place: int) -> bool:
        return self._all or place in self._whole or place in self._slices

    def only(self, place: int) -> frozenset[str] | None:
        """The slices that are named without the whole tensor; None: the whole and all its slices."""
        return None if self._all or place in self._whole else frozenset(self._slices[place])


def plan_log(log: Log, columns: Iterable[Column], scalars: Mapping[str, Scalar], faults: Faults) -> LogPlan:
    """The plan of a log with these columns; its numbers may be expressions over scalar constants."""
    every = integer(log.every, ("log", "every"), scalars, faults, 1)
    return LogPlan(every or 1, tuple(columns), _budget(log.budget, scalars, faults))


def _budget(written: int | float | str, scalars: Mapping[str, Scalar], faults: Faults) -> int:
    """The bytes that a log may take: a number, an expression, or a size such as `2 GiB`."""
    path = ("log", "budget")
    value: int | float | str | None = written
    if isinstance(written, str) and _looks_like_a_size(written, scalars):
        value = bytes_of(written)
    if value is None:
        faults.add(path, f"`{written}` is not a size", "write a number of bytes, or a size such as 512MiB or 2GiB")
        return 0
    return integer(value, path, scalars, faults, 0) or 0


def _looks_like_a_size(text: str, scalars: Mapping[str, Scalar]) -> bool:
    """Whether a text is a number and a word, which is no expression, or a unit that no constant is named after."""
    return bool(_NUMBER_AND_WORD.fullmatch(text)) or (text not in scalars and text.lower() in _UNITS)


def _is_stored(log: Log, column: Column) -> bool:
    return log.tensors != "none" or column.role == "norm" or (column.role == "value" and column.elements == 1)


def _recorded_as(log: Log, column: Column, only: frozenset[str] | None) -> Column:
    """The column with how the log stores its tensors; a single element is always stored."""
    stored = next((kept for kept in REDUCED if kept == log.tensors), None)
    return column if stored is None or column.elements == 1 else replace(column, kept=stored, only=only)


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
