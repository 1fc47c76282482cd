"""Tensors whose initial expressions read data sources: their values are computed once, while planning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runner.plan.data.sources import SourcePlan
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.initial_values import InitialContext, initial_values
from runner.plan.tensors.tensors import TensorPlan

_COPIES = 4
"""How often an expression that holds a column may need its bytes: the column, and results of its size."""


def fitted_values(tensors: Mapping[str, TensorPlan], context: InitialContext) -> InitialContext:
    """The context with the value of each tensor whose expression reads a data source.

    Raises:
        PlacedFault: a value cannot be computed.
    """
    paths = {name: tensor.init.path for name, tensor in tensors.items() if isinstance(tensor.init, Computed)}
    recorded = {name: value for name, value in context.fitted.items() if name in paths}
    names = [name for name, path in paths.items() if path in context.fitting and name not in recorded]
    values = initial_values(tensors, context, names) if names else {}
    return replace(context, fitted=recorded | {name: values[name] for name in names})


def room_for_columns(context: InitialContext) -> int:
    """Bytes to allocate beyond those of other expressions, for columns that an initial expression may hold."""
    sizes = [column.bytes for column in context.columns.values() if column.bytes <= column.limit]
    return _COPIES * max(sizes, default=0)


def sizes_of(sources: Mapping[str, SourcePlan]) -> dict[str, tuple[int, ...]]:
    """The shape of each column by name, for scalar expressions: `train.x.shape`."""
    return {
        f"{name}.{column.name}.shape": (source.samples, *column.shape)
        for name, source in sources.items()
        for column in source.columns
    }
