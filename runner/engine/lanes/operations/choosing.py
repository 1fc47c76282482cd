"""Chooses how to compute each operation on tensors of lanes: for all lanes at once, or one lane after another.

An operation is computed at once only if that gives the bits of a run alone. For arithmetic that IEEE 754 rounds
correctly, it does. Any other operation is tried first, on its own operands and on random ones, both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.engine.lanes.operations.alone import each
from runner.engine.lanes.operations.same_bits import same_bits, trial_lanes
from runner.engine.lanes.operations.tensor import LaneNumber, LaneTensor, NotStackable, lane_count, stacked
from runner.engine.lanes.operations.together import VIEWS, Together, Unlike, pointwise, rule_for

aten = torch.ops.aten

_ROUNDED = (
    *("add", "sub", "rsub", "mul", "div", "neg", "abs", "sqrt", "reciprocal", "relu", "threshold_backward"),
    *("eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum", "clamp", "clamp_min", "clamp_max", "where", "sign"),
    *("logical_and", "logical_or", "logical_not", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_not"),
    *("isnan", "isinf", "isfinite", "floor", "ceil", "round", "trunc", "masked_fill"),
    *("clone", "_to_copy", "copy", "zeros_like", "ones_like", "full_like", "empty_like", "fill", "zero"),
)
"""Operations on each element whose result is rounded correctly, or a copy: it does not depend on the memory layout."""


_MOST_TRIED = 1000
"""The most signatures of a chunk; further ones are computed lane by lane."""


def _overloads(name: str) -> Iterator[Any]:
    packet = getattr(aten, name, None)
    for overload in () if packet is None else packet.overloads():
        operation = getattr(packet, overload)
        if not any(argument.is_out for argument in operation._schema.arguments):
            yield operation


EXACT = frozenset(operation for name in _ROUNDED for kind in (name, name + "_") for operation in _overloads(kind))
_SCALED = frozenset(operation for name in ("add", "add_", "sub", "sub_", "rsub") for operation in _overloads(name))
"""Operations that are exact only without a factor."""

_WITH_NUMBERS = frozenset({aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor})
"""Operations of a tensor and a number of each lane."""

_AS_ROUNDED = (torch.float32, torch.float64)
"""Dtypes in which these operations round the number first; those of 16 bits compute with 32."""

_REFUSED: Mapping[Any, str] = {
    aten._local_scalar_dense.default: "a number is read back from a tensor",
    aten.is_nonzero.default: "a number is read back from a tensor",
    aten.equal.default: "a number is read back from a tensor",
}


@dataclass(slots=True)
class Choosing:
    """Computes operations for lanes; remembers which can be computed at once.

    Args:
        exact: whether results must have the bits of a run alone; otherwise whatever can be computed at once is.
        draw: computes an operation that draws random numbers, each lane from its own stream.
    """

    exact: bool
    draw: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]
    chosen: dict[Any, Together | None] = field(default_factory=dict)  # None: one lane after another

    def run(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The handler of tensors of lanes.

        Raises:
            NotStackable: lanes cannot compute the operation.
        """
        if any(isinstance(value, LaneNumber) for value in args):
            return self._with_number(operation, args, kwargs)
        if operation in EXACT and not (operation in _SCALED and kwargs):
            return self._exact(operation, args, kwargs)
        view = VIEWS.get(operation)
        if view is not None:
            return LaneTensor(view(args[0].lanes, *args[1:], **kwargs))
        if operation in _REFUSED:
            raise NotStackable(_REFUSED[operation])
        if torch.Tag.nondeterministic_seeded in operation.tags:
            return self.draw(operation, args, kwargs)
        if operation._schema.is_mutable:
            return self._written(operation, args, kwargs)
        return self._tried(operation, args, kwargs)

    def _with_number(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """An operation of a tensor and a number, which torch rounds to the dtype of the tensor first."""
        if operation is aten.detach.default:
            return args[0]
        others = [value for value in args if not isinstance(value, LaneNumber)]
        if operation not in _WITH_NUMBERS or kwargs or len(others) != 1 or others[0].dtype not in _AS_ROUNDED:
            raise NotStackable(f"{operation} reads a number that differs between runs")
        dtype = others[0].dtype
        given = [LaneTensor(value.lanes.to(dtype)) if isinstance(value, LaneNumber) else value for value in args]
        return pointwise(operation, tuple(given), {})

    def _exact(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        writes = operation._schema.is_mutable
        if writes and not isinstance(args[0], LaneTensor):
            raise NotStackable(f"{operation} writes into a tensor that all runs share")
        try:
            found = pointwise(operation, args, kwargs)
        except (Unlike, RuntimeError):  # torch has other rules for a 0-d tensor, which has a dimension now
            return self._written(operation, args, kwargs) if writes else each(operation, args, kwargs)
        return args[0] if writes else found

    def _written(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """An operation that writes its first argument or `out`, computed without writing and then copied."""
        target = kwargs["out"] if "out" in kwargs else args[0]
        functional = _functional(operation, kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
        if functional is None or functional in VIEWS:  # the latter changes a shape
            raise NotStackable(f"{operation} writes in place")
        if not isinstance(target, LaneTensor):
            raise NotStackable(f"{operation} writes into a tensor that all runs share")
        result = self.run(functional, args, kwargs)
        target.lanes.copy_(result.lanes if isinstance(result, LaneTensor) else result)
        return target

    def _tried(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """An operation computed by its rule for all lanes, if that gives the bits of a run alone."""
        key = _signature(operation, args, kwargs)
        if key not in self.chosen:
            if len(self.chosen) >= _MOST_TRIED:
                return each(operation, args, kwargs)
            rule = rule_for(operation)
            self.chosen[key] = rule if self._fits(operation, rule, args, kwargs) else None
        known = self.chosen[key]
        return each(operation, args, kwargs) if known is None else known(operation, args, kwargs)

    def _fits(self, operation: Any, rule: Together, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        if lane_count(kwargs.values()):  # rules and trials read only positional operands
            return False
        try:
            found = rule(operation, args, kwargs)
        except (Unlike, RuntimeError):
            return False
        if not self.exact:
            return _alike(found, each(operation, args, kwargs), bits=False)
        if not _alike(found, each(operation, args, kwargs)):
            return False
        for given in _trials(args):
            try:
                if not _alike(rule(operation, given, kwargs), each(operation, given, kwargs)):
                    return False
            except (Unlike, RuntimeError):
                return False
        return True


def _functional(operation: Any, kwargs: Mapping[str, Any]) -> Any:
    """The operation that returns what another one writes; None if there is none."""
    name = operation._schema.name.removeprefix("aten::")
    if "out" in kwargs:
        return getattr(getattr(aten, name), "default", None)
    packet = getattr(aten, name[:-1], None) if name.endswith("_") else None
    return None if packet is None else getattr(packet, operation._overloadname, None)


def _signature(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    numbers = operation not in _SCALED and not _is_update(operation)
    parts = tuple(_described(value, numbers) for value in (*args, *kwargs.values()))
    return operation, parts


def _is_update(operation: Any) -> bool:
    """Whether numbers among the arguments are only factors, as in the updates of optimizers."""
    return operation in (aten.lerp.Scalar, aten.addcmul.default, aten.addcdiv.default)


def _described(value: Any, numbers: bool) -> Any:
    if isinstance(value, LaneTensor):
        return "lanes", value.dtype, value.lanes.shape, value.lanes.stride()
    if isinstance(value, Tensor):
        return "shared", value.dtype, value.shape, value.stride()
    if isinstance(value, list | tuple):
        return tuple(_described(each, numbers) for each in value)
    return value if numbers or not isinstance(value, float) else None


def _trials(args: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Random operands in the place of the given ones: of both signs, and positive; of more lanes than there are."""
    generator = torch.Generator().manual_seed(0)
    most = max([value.numel() for value in args if isinstance(value, LaneTensor)], default=1)
    lanes = max(2, trial_lanes(most))
    for positive in (False, True):
        yield tuple(_random(value, lanes, positive, generator) for value in args)


def _random(value: Any, lanes: int, positive: bool, generator: torch.Generator) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_random(each, lanes, positive, generator) for each in value)
    if not isinstance(value, LaneTensor):
        return value
    given = stacked([value.lanes[lane % len(value.lanes)] for lane in range(lanes)])
    if not (given.is_floating_point() or given.is_complex()):
        return LaneTensor(given)
    given.normal_(generator=generator)
    return LaneTensor(given.abs_() if positive and not given.is_complex() else given)


def _alike(found: Any, wanted: Any, bits: bool = True) -> bool:
    """Whether two results have the same bits in the same layout; with `bits` false, the same shapes and dtypes."""
    if isinstance(found, list | tuple):
        return len(found) == len(wanted) and all(map(_alike, found, wanted, [bits] * len(found)))
    if found is None or wanted is None:
        return found is wanted
    first, second = found.lanes, wanted.lanes
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    if not bits or first.is_meta:  # a meta tensor has no bits: derivatives of derivatives ask for shapes alone
        return True
    return _layout(first) == _layout(second) and same_bits(first, second)


def _layout(lanes: Tensor) -> list[int]:
    shape = lanes.shape[1:]
    return [stride for length, stride in zip(shape, lanes.stride()[1:], strict=True) if length > 1]
