"""Checks that values have an entry for each sample, which does not depend on the other samples of its batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from runner.errors import ConfigError, Problem, UsageError, listing
from runner.language.pooling.pooling import Mixed, Pooling, Rows, State, twins
from runner.record.apply.model import Model

Warn = Callable[[Problem], None]


def check_per_sample(model: Model, names: Sequence[str], batch: Mapping[str, Tensor], warn: Warn) -> None:
    """Check the values of a first batch.

    Args:
        warn: receives a warning for each value that may depend on the other samples of its batch.
    Raises:
        UsageError: a value has no entry for each sample.
        ConfigError: the expression does not fit the batch.
    """
    wanted = tuple(names)
    length = len(next(iter(batch.values())))
    first = model.compiled(wanted, batch).computation
    longer = {name: torch.cat([column, column[:1]]) for name, column in batch.items()}
    try:
        other = model.compiled(wanted, longer).computation
    except ConfigError:  # the expression has the length of the batch written into it
        other = first
    for place, name in enumerate(wanted):
        shape = first.outputs[place].shape
        second = other.outputs[place].shape
        fits = shape is None or shape[:1] == (length,)
        if not fits or (other is not first and second is not None and second[:1] != (length + 1,)):
            shown = f"shape {list(shape)}" if shape else "one value"
            message = f"`{name}` has {shown} for a batch of {length}, not an entry for each sample"
            named = [each for each in model.values if each != name and _is_per_sample(model, each, batch)]
            hint = f"name another value: {listing(named)}" if named else "name another value in the expression"
            raise UsageError(Problem(message, hint))
    nodes, others = list(first.nodes), list(other.nodes)
    pooling = Pooling(nodes, batch, twins(nodes, others) if other is not first else None)
    states = {name: pooling.of(value) for name, value in zip(wanted, first.results, strict=True)}
    mixing = [name for name, state in states.items() if not isinstance(state, Rows) and not _is_drawn(state)]
    for name in mixing:
        message = f"`{name}` may depend on the other samples of its batch, and so on --batch-size"
        warn(Problem(message, "write it so that each sample stands alone"))
    for name in wanted if first.random else ():
        if model.compiled((name,), batch).computation.random:
            hint = "write `dropout(h, 0.1, training)`, which does nothing here"
            warn(Problem(f"`{name}` draws random numbers although `training` is false", hint))


def _is_per_sample(model: Model, name: str, batch: Mapping[str, Tensor]) -> bool:
    """Whether a value has an entry for each sample of a batch, as far as its shape says."""
    columns = {column: batch[column] for column in model.columns_of([name]) if column in batch}
    if not columns or len(columns) < len(model.columns_of([name])):
        return False
    try:
        shape = model.compiled((name,), columns).computation.outputs[0].shape
    except (ConfigError, UsageError):
        return False
    return shape is None or shape[:1] == (len(next(iter(batch.values()))),)


def _is_drawn(state: State) -> bool:
    """Whether a value cannot be computed from batches only because an operation draws random numbers."""
    return isinstance(state, Mixed) and bool(state.node.meta.get("random"))
