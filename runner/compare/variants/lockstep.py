"""Runs two variants of a config row by row, and compares them in dtypes that both can represent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.compare.rows.results import AnyRow
from runner.compare.rows.verdict import align
from runner.compare.variants.state_transfer import transfer
from runner.engine import Row, State, eager, execute, initial_state
from runner.engine.session import Session, open_session
from runner.engine.steps.step_code import Run
from runner.errors import ComparisonError
from runner.language.inference.generators import left_alone
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Expect, Instruction, LoopStart
from runner.plan.rows.columns import Column
from runner.plan.rows.health import HealthPlan
from runner.plan.rows.layout import Held
from runner.plan.tensors.initial import Drawn


@dataclass(frozen=True, slots=True)
class Side:
    """One variant: a plan, and its number of threads."""

    plan: Plan
    threads: int | None = None  # None: the number of the process


@dataclass(frozen=True, slots=True)
class RowPair:
    """One row of both sides; None if a side does not have it."""

    this: AnyRow | None
    other: AnyRow | None
    local: AnyRow | None = None  # the other side's row if it had started this step from this side's state


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A row on the CPU, in the dtypes that both sides can represent."""

    number: int
    step: str
    path: str
    values: Mapping[str, Tensor | None]

    def __getitem__(self, name: str) -> Tensor | None:
        return self.values[name]

    def __contains__(self, name: object) -> bool:
        return name in self.values


WHOLE_LOG = ("log.every=1", "log.tensors=full", f"log.budget={2**63 - 1}")
"""Overrides that log every step and every tensor; nothing is written to disk."""


def without_stops(plan: Plan) -> Plan:
    """The plan without `expect` steps, and without stopping at numbers that are not finite."""
    program = tuple(
        replace(item, argument=Expect(())) if isinstance(item, Action) and isinstance(item.argument, Expect) else item
        for item in plan.program
    )
    return replace(plan, program=program, on_nonfinite="ignore")


def lockstep(this: Side, other: Side, *, reinject: bool = False) -> Iterator[RowPair]:
    """Execute two variants row by row; yields rows in the dtypes of `common_columns`.

    Each side draws the random numbers that it draws when it runs alone, except for initial values. An initialiser
    draws other numbers in another dtype, so the other side starts from this side's values. With `reinject`, the other
    side also takes each step from this side's state, which separates the error of one step from the inherited error.

    Raises:
        ComparisonError: with `reinject`, the two do not have the same program, parameters and sources.
        RunError: a step of either side fails.
    """
    dtypes = {
        column.name: dtype
        for column, partner in _shared(this.plan, other.plan)
        if (dtype := common_dtype(column.dtype, partner.dtype)) is not None
    }
    state = initial_state(this.plan)
    start = _common_start(this.plan, other.plan, state)
    reinjected = _Reinjected(this, other, start) if reinject else None
    local: dict[int, Row | None] = {}
    with left_alone(this.plan.device), left_alone(other.plan.device):
        for found, expected in align(_rows(other, start), _rows_with_local(this, state, reinjected, local)):
            reinjected_row = None if expected is None else local.pop(expected.number, None)
            if reinjected_row is not None and expected is not None and reinjected_row.path != expected.path:
                reinjected_row = None  # its own condition chose another step
            yield RowPair(_narrowed(expected, dtypes), _narrowed(found, dtypes), _narrowed(reinjected_row, dtypes))


# --- common dtypes


def common_columns(this: Plan, other: Plan) -> tuple[list[Column], list[Column]]:
    """The columns of each side; shared columns have the dtype that they are compared in."""
    mine, theirs = list(this.columns), list(other.columns)
    for column, partner in _shared(this, other):
        dtype = common_dtype(column.dtype, partner.dtype)
        if dtype is not None:
            mine[mine.index(column)] = replace(column, dtype=dtype)
            theirs[theirs.index(partner)] = replace(partner, dtype=dtype)
    return mine, theirs


def common_dtype(one: torch.dtype, another: torch.dtype) -> torch.dtype | None:
    """The narrower of two dtypes, to which values of both are rounded; None if they are not of the same kind."""
    if one == another:
        return one
    kinds = [(dtype.is_floating_point, dtype.is_complex) for dtype in (one, another)]
    if kinds[0] != kinds[1] or kinds[0] == (False, False):
        return None
    return max(one, another, key=lambda dtype: torch.finfo(dtype).eps)


def _shared(this: Plan, other: Plan) -> Iterator[tuple[Column, Column]]:
    theirs = {column.name: column for column in other.columns}
    yield from ((column, theirs[column.name]) for column in this.columns if column.name in theirs)


def _narrowed(row: AnyRow | None, dtypes: Mapping[str, torch.dtype]) -> Narrowed | None:
    if row is None:
        return None
    values: dict[str, Tensor | None] = {}
    for name, dtype in dtypes.items():
        value = row[name]
        values[name] = value.detach().to("cpu", dtype) if isinstance(value, Tensor) else None
    return Narrowed(row.number, row.step, row.path, values)


# --- execution


@contextmanager
def _under(side: Side) -> Iterator[None]:
    if side.threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(side.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _common_start(this: Plan, other: Plan, state: State) -> dict[str, Tensor]:
    """This side's initial values of the tensors that both sides draw in the same way, apart from the dtype."""
    found: dict[str, Tensor] = {}
    for name, tensor in this.tensors.items():
        partner = other.tensors.get(name)
        if partner is None or not isinstance(tensor.init, Drawn):
            continue
        alike = (partner.init, partner.shape) == (tensor.init, tensor.shape)
        if alike and common_dtype(tensor.dtype, partner.dtype) is not None:
            found[name] = (state.parameters if name in state.parameters else state.constants)[name].detach().clone()
    return found


def _rows(side: Side, start: Mapping[str, Tensor]) -> Iterator[Row]:
    with _under(side):
        rows = execute(side.plan, initial_state(side.plan, start))
    while True:
        with _under(side):
            row = next(rows, None)
        if row is None:
            return
        yield row


def _rows_with_local(
    side: Side, state: State, reinjected: _Reinjected | None, local: dict[int, Row | None]
) -> Iterator[Row]:
    """Yields the rows of this side. Before each, puts the other side's row from the same state into `local`."""
    rows = execute(side.plan, state, by_row=True)
    while True:
        number = state.row
        if reinjected is not None:
            local[number] = reinjected.step(state)
        with _under(side):
            row = next(rows, None)
        if row is None:
            return
        yield row


class _Reinjected:
    """The other side, restarted at every row from this side's state."""

    def __init__(self, this: Side, other: Side, start: Mapping[str, Tensor]) -> None:
        _check_same_program(this.plan, other.plan)
        self.side = other
        self.state = initial_state(other.plan, start)
        self.optimizers = _compatible(this.plan, other.plan)
        self.dtypes = {one: another for one, another in _dtype_pairs(this.plan, other.plan) if one != another}
        self.session = open_session(replace(other.plan, health=HealthPlan()), self.state)
        self.bound: dict[int, Run] = {}  # by position in the program

    def step(self, state: State) -> Row | None:
        """Returns the other side's next row from `state`, which does not change; None at the end."""
        if state.row:
            transfer(state, self.state, self.optimizers, self.dtypes)
        with _under(self.side):
            rows = self._rows()
            row = next(rows, None)
            rows.close()  # type: ignore[attr-defined]  # it is a generator
        return row

    def _rows(self) -> Iterator[Row]:
        if self.side.plan.config.engine != "eager":
            return execute(self.side.plan, self.state, by_row=True)
        binding, parameters = self.session.binding, self.state.parameters
        binding.capture_weights(parameters)
        binding.capture_gradients(parameters)
        binding.capture_state()
        return eager.execute(self.side.plan, self.state, watch=self.session.watch, bind=self._bind)

    def _bind(self, session: Session, position: int, action: Action) -> Run:
        """Returns a function that binds the step at its first call only: all rows start from one state object."""

        def run() -> Held | None:
            if position not in self.bound:
                self.bound[position] = eager.bind_step(self.session, position, action)
            return self.bound[position]()

        return run


def _compatible(this: Plan, other: Plan) -> list[str]:
    """The optimizers whose state has the same meaning on both sides."""
    return [
        name
        for name, optimizer in this.optimizers.items()
        if optimizer.kind == other.optimizers[name].kind and _entries(this, name) == _entries(other, name)
    ]


def own_state(this: Plan, other: Plan) -> list[str]:
    """The optimizers that differ in kind or state between the sides: reinjection does not replace their state."""
    return [name for name in this.optimizers if name not in _compatible(this, other)]


def _entries(plan: Plan, optimizer: str) -> dict[str, list[str]]:
    return {name: [entry.name for entry in kept] for name, kept in plan.optimizers[optimizer].state.items()}


def _dtype_pairs(this: Plan, other: Plan) -> Iterator[tuple[torch.dtype, torch.dtype]]:
    yield this.dtype, other.dtype
    if this.dtype.is_floating_point and other.dtype.is_floating_point:
        yield this.dtype.to_complex(), other.dtype.to_complex()


def _check_same_program(this: Plan, other: Plan) -> None:
    """Check that a state of one side fits the other side.

    Raises:
        ComparisonError: it does not; the message names the difference.
    """
    for what, mine, theirs in (
        ("parameters", _shapes(this), _shapes(other)),
        ("data sources", tuple(this.sources), tuple(other.sources)),
        ("optimizers", tuple(this.optimizers), tuple(other.optimizers)),
        ("steps", _outline(this.program), _outline(other.program)),
    ):
        if mine != theirs:
            where = _first_difference(mine, theirs)
            raise ComparisonError(f"a step cannot start from the other side's state: the {what} differ, {where}")


def _shapes(plan: Plan) -> tuple[str, ...]:
    return tuple(f"{name} {list(plan.tensors[name].shape)}" for name in plan.parameters)


def _outline(program: Sequence[Instruction]) -> tuple[str, ...]:
    return tuple(
        item.path
        if isinstance(item, Action)
        else f"a loop of {item.times}"
        if isinstance(item, LoopStart)
        else "its end"
        for item in program
    )


def _first_difference(mine: Sequence[str], theirs: Sequence[str]) -> str:
    """The first difference of two lists, as text."""
    place = next(
        (place for place, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
    )
    shown = [f"`{names[place]}`" if place < len(names) else "nothing" for names in (mine, theirs)]
    return f"{shown[0]} here is {shown[1]} there"
