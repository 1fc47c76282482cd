"""The initial values of all tensors of a config, computed in the order of their dependencies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, fx

from runner.faults import ConfigPath
from runner.language.inference.inference import Bounds, Inference, TooLarge
from runner.language.inference.stored import STORED, StoredColumn, hold
from runner.language.lowering.lower import lower_expression, uses_grad
from runner.language.lowering.scope import Environment
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.plan.streams import stream_seed
from runner.plan.tensors.initial import Computed, Drawn
from runner.plan.tensors.tensors import TensorPlan, initial_order, materialise

MAX_TABLE = 65_536
"""Maximum number of elements of a 1-d constant that can be indexed as a scalar."""


NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class InitialContext:
    """The context of initial expressions, in addition to the tensors."""

    seed: int
    environment: Environment
    bounds: Bounds
    warn: Callable[[ConfigPath, str, LanguageError], None] | None = None  # receives torch's warnings
    columns: Mapping[str, StoredColumn] = field(default_factory=dict)  # "train.x": whole columns of data sources
    fitted: Mapping[str, Tensor] = field(default_factory=dict)  # the values of tensors that were computed from data
    fitting: set[ConfigPath] = field(default_factory=set)  # the expressions evaluated so far that name such columns


class Drawings:
    """Random initial values drawn during planning, for the first run of the plan to reuse.

    Drawing them again would take longer than much of the rest of starting a run.
    """

    __slots__ = ("_drawn",)

    def __init__(self, tensors: Mapping[str, TensorPlan], values: Mapping[str, Tensor]) -> None:
        drawn = [name for name in values if isinstance(tensors[name].init, Drawn)]
        self._drawn = {name: (values[name].detach(), values[name]._version) for name in drawn}

    def take(self) -> dict[str, Tensor]:
        """Returns the values that were not modified since. A second call returns none: a second run draws its own."""
        drawn, self._drawn = self._drawn, {}
        return {name: value for name, (value, version) in drawn.items() if value._version == version}


def initial_values(
    tensors: Mapping[str, TensorPlan],
    context: InitialContext,
    names: Iterable[str] | None = None,
    given: Mapping[str, Tensor] = NOTHING,
    drawn: Mapping[str, Tensor] = NOTHING,
) -> dict[str, Tensor]:
    """The initial value of every tensor, or of `names` and their dependencies, on the CPU, without gradients.

    Args:
        given: values that replace the initial values of some tensors; initial expressions read them.
        drawn: values that were already drawn, and are reused.
    Raises:
        PlacedFault: a data file or an initial expression does not match the plan.
        LanguageError: an initial expression fails.
    """
    wanted = set(tensors) if names is None else _closure(names, tensors)
    values: dict[str, Tensor] = {}
    for name in initial_order(tensors):
        if name in given:
            values[name] = given[name].detach().to("cpu", tensors[name].dtype, copy=True)
        elif name in context.fitted:
            values[name] = context.fitted[name].clone()
        elif name in drawn:
            values[name] = drawn[name]
        elif name in wanted:
            values[name] = materialise(
                tensors[name], partial(computed_value, name=name, values=values, context=context)
            )
    return {name: values[name] for name in tensors if name in values}


def computed_value(computed: Computed, name: str, values: Mapping[str, Tensor], context: InitialContext) -> Tensor:
    """The value of an initial expression over the initial values computed so far, with the tensor's random stream."""
    environment = replace(context.environment, tables=tables(values), device="cpu", stored=context.columns)
    scope = environment.scope(values, writable=False)
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(stream_seed(context.seed, "init", name))
        warn = None if context.warn is None else partial(context.warn, computed.path)
        inference = Inference(context.bounds, uses_grad(computed.text, scope), warn=warn)
        lowered = lower_expression(computed.text, scope, inference)
    finally:
        torch.set_rng_state(state)
    if any(node.meta.get("input") in context.columns for node in lowered.graph.nodes):
        context.fitting.add(computed.path)
    value = lowered.values["value"]
    if isinstance(value, fx.Node) and STORED in value.meta:
        try:
            hold(value)
        except TooLarge as error:
            message, _, hint = str(error).partition("; ")
            raise LanguageError(message, hint) from None
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if isinstance(example, Tensor):
        return example.detach()
    if isinstance(example, (bool, int, float)):
        return torch.tensor(example, dtype=None if isinstance(example, bool) else environment.dtype)
    raise LanguageError("this initial expression is not a tensor", "write an expression with one value")


def tables(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Scalar, ...]]:
    """The elements of 1-d tensors as Python numbers."""
    return {
        name: tuple(tensor.tolist()) for name, tensor in tensors.items() if is_table(tuple(tensor.shape), tensor.dtype)
    }


def is_table(shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a constant of this shape and dtype can be indexed as a list of numbers."""
    return len(shape) == 1 and shape[0] <= MAX_TABLE and not dtype.is_complex


def _closure(names: Iterable[str], tensors: Mapping[str, TensorPlan]) -> set[str]:
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found and name in tensors:
            found.add(name)
            init = tensors[name].init
            if isinstance(init, Computed):
                pending.extend(init.reads)
    return found
