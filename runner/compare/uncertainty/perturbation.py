"""Monte Carlo arithmetic: perturbs every floating-point result at random by units in the last place.

Two machines that compute correctly round differently: another order of a sum, a fused multiply-add, another
polynomial for `exp`. A run with perturbed rounding differs from the plain run about as much as such a machine does.

Source: Parker 1997, "Monte Carlo Arithmetic: exploiting randomness in floating-point arithmetic".
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_POOL = 1 << 16


def _tables() -> Mapping[str, frozenset[str]]:
    """The operations of each section of `operations.txt`, which explains the sections."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in files(__package__).joinpath("operations.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            names = found.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            names += line.split()
    return {section: frozenset(each) for section, each in found.items()}


TABLES = _tables()

_RING = frozenset({"add", "mul", "rsub", "sub"})
"""Operations that return integers for integer operands."""
_SUMMED = frozenset({"sum", "nansum", "mean"})
_ACCUMULATORS, _MOST_UNITS = 16, 4
_WIDE = (torch.float32, torch.float64, torch.complex64, torch.complex128)
"""Dtypes whose partial sums are rounded to the dtype; narrower ones are summed in float32."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one ATen operation is perturbed."""

    ulps: int  # 0: not perturbed
    keeps_operands: bool = False
    keeps_whole: bool = False  # keeps integers computed from integers, which are exact
    first_term: int | None = None
    is_sum: bool = False
    reduces: bool = False  # sums all its elements, as losses do
    deviation: tuple[int, str] | None = None  # of a normal draw: the argument with its standard deviation
    written: tuple[int | str, ...] = ()  # arguments that it writes in place
    copies_unless: tuple[int, str] | None = None  # the argument without which it only copies


class Perturbation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Perturbs the results of floating-point operations on the CPU, forward and backward, while it is active.

    `y` becomes `y * (1 + j * eps)`, where j is -1, 0 or 1 with probability 1/4, 1/2 or 1/4. For transcendental
    functions j is the sum of two such numbers. Zeros, infinities and NaN do not change, nor do elements that an
    in-place operation did not change. The perturbation has its own generator, so the run draws the same numbers.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._offsets = random.Random(seed)
        generator = torch.Generator().manual_seed(seed & (1 << 63) - 1)
        draws = torch.randint(0, 4, (2, 2 * _POOL), generator=generator)
        self._steps = (draws == 3).to(torch.float64) - (draws == 0).to(torch.float64)
        self._pools: dict[tuple[torch.dtype, int, int], Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = _rule(func)
        if not rule.ulps or (rule.copies_unless is not None and not _argument(rule.copies_unless, args, kwargs)):
            return func(*args, **kwargs)
        if rule.deviation is not None:
            result = func(*args, **kwargs)
            deviation = _argument(rule.deviation, args, kwargs)
            for tensor in _tensors(result):
                self._redraw(tensor, 1.0 if deviation is None else deviation)
            return result
        if rule.first_term is not None:
            args = self._with_moved_terms(rule, rule.first_term, args)
        written = [kwargs.get(place) if isinstance(place, str) else args[place] for place in rule.written]
        targets = [tensor for each in written for tensor in _tensors(each)]
        before = [tensor.clone() for tensor in targets]
        result = func(*args, **kwargs)
        if rule.written:
            for place, (tensor, old) in enumerate(zip(targets, before, strict=True)):
                others = [_operand(each, place) for each in args[1:]] if rule.keeps_whole else []
                keeps_whole = rule.keeps_whole and _has_memory(tensor)
                whole = _whole(tensor, [old, *others, *kwargs.values()]) if keeps_whole else None
                self._move(tensor, rule.ulps, [old], whole)
            return result
        operands = [list(_tensors(each)) for each in args] if rule.keeps_operands else []
        for place, tensor in enumerate(_tensors(result)):
            if not _has_memory(tensor):
                continue
            given = [*(_operand(each, place) for each in args), *kwargs.values()] if rule.keeps_whole else []
            whole = _whole(tensor, given) if rule.keeps_whole else None
            times = _rounded_units(args[0], tensor) if rule.reduces else 1
            self._move(tensor, rule.ulps, [each[place] for each in operands if place < len(each)], whole, times)
        return result

    def _with_moved_terms(self, rule: _Rule, first: int, args: Sequence[Any]) -> list[Any]:
        moved = list(args)
        for place in range(first, len(args)):
            given = args[place]
            if not isinstance(given, Tensor) or given.dtype not in _WIDE or given.numel() < 2:
                continue
            if not (rule.is_sum and _is_copy(args)):
                moved[place] = given.clone(memory_format=torch.preserve_format)
                self._move(moved[place], 1, [])
        return moved

    def _move(
        self, tensor: Tensor, ulps: int, kept: Sequence[Tensor], whole: Tensor | None = None, times: int = 1
    ) -> None:
        """Perturb a tensor in place, except elements equal to those of a tensor in `kept`, or true in `whole`.

        Args:
            times: multiplies the usual perturbation.
        """
        if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
            return
        if not _has_memory(tensor):
            return
        stays = [(tensor == other) for other in kept if _is_comparable(other, tensor)]
        stays += [] if whole is None else [whole]
        part = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        factors = self._factors(part.numel(), part.dtype, ulps, times).view(part.shape)
        if stays:
            mask = stays[0]
            for other in stays[1:]:
                mask = mask | other
            factors = factors.masked_fill(mask.unsqueeze(-1) if tensor.is_complex() else mask, 1)
        part.mul_(factors)

    def _redraw(self, tensor: Tensor, deviation: Any) -> None:
        """Perturb normal draws in place, in units of their standard deviation: each one, and all by one offset."""
        if not tensor.is_floating_point() or tensor.numel() == 0:
            return
        own = self._factors(tensor.numel(), tensor.dtype, 2).view(tensor.shape) - 1
        common = self._offsets.choice((-0.5, 0.0, 0.5)) * torch.finfo(tensor.dtype).eps
        tensor.add_((own + common) * deviation)

    def _factors(self, count: int, dtype: torch.dtype, ulps: int, times: int = 1) -> Tensor:
        pool = self._pools.get((dtype, ulps, times))
        if pool is None:
            steps = self._steps[0] if ulps == 1 else self._steps[0] + self._steps[1].roll(1)
            pool = self._pools[dtype, ulps, times] = (1 + times * steps * torch.finfo(dtype).eps).to(dtype)
        if count <= _POOL:
            offset = self._offsets.randrange(_POOL)
            return pool[offset : offset + count]
        sizes = [min(_POOL, count - done) for done in range(0, count, _POOL)]
        return torch.cat([self._factors(size, dtype, ulps, times) for size in sizes])


def _has_memory(tensor: Tensor) -> bool:
    """Whether a tensor has elements: torch keeps some derivatives that are zero, and their shapes, without memory."""
    return not (tensor.is_meta or tensor._is_zerotensor())


def _rounded_units(given: Any, result: Tensor) -> int:
    """By how many units the sums of different libraries differ: more than one if an accumulator adds many terms.

    The errors of n / 16 sequential additions in each of 16 accumulators are `sqrt(n / 16) / 6` units of a sum of
    terms of one sign: each error is uniform within half a unit of its partial sum, which grows in proportion. Every
    library sums longer inputs in blocks, so the result is at most 4.
    Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, section 4.2.
    """
    if not isinstance(given, Tensor) or given.dtype not in _WIDE or not result.numel():
        return 1
    terms = given.numel() / result.numel()
    return max(1, min(_MOST_UNITS, round(math.sqrt(terms / _ACCUMULATORS) / 6)))


def _argument(name: tuple[int, str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    place, keyword = name
    return args[place] if place < len(args) else kwargs.get(keyword)


def _is_copy(args: Sequence[Any]) -> bool:
    """Whether a reduction is over dimensions of size 1 only, which makes it a copy."""
    given = args[0]
    dims = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else range(given.dim())
    return all(given.shape[dim] == 1 for dim in dims) if len(dims) else given.numel() == 1


def _operand(given: Any, place: int) -> Any:
    """The operand at a place of a list; the operand itself if it is not a list, or a shorter one."""
    return given[place] if isinstance(given, (list, tuple)) and place < len(given) else given


def _whole(result: Tensor, operands: Sequence[Any]) -> Tensor | None:
    """A mask of the integers computed from integers, such as a step count: these are exact.

    Args:
        result: `(*s)` of a real dtype, from a sum, a difference or a product.
        operands: tensors that broadcast to it, and numbers.
    Returns:
        bool `(*s)`; None if there are none.
    """
    if not result.is_floating_point():
        return None
    if any(isinstance(each, (int, float)) and each != int(each) for each in operands if _is_finite_number(each)):
        return None
    found = (result == result.trunc()) & (result.abs() < 1 / torch.finfo(result.dtype).eps)
    for each in operands:
        if isinstance(each, Tensor) and each.is_floating_point():
            if not found.any():
                return None
            found = found & (each == each.trunc())
    return found


def _is_finite_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and math.isfinite(given)


def _is_comparable(other: Tensor, tensor: Tensor) -> bool:
    return other.dtype == tensor.dtype and (other.shape == tensor.shape or other.dim() == 0)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (each for each in value if isinstance(each, Tensor))


@cache
def _rule(func: Any) -> _Rule:
    schema = func._schema
    name = schema.name.partition("::")[2].removeprefix("_foreach_").rstrip("_")
    if name.startswith("special_"):
        name, ulps = name.removeprefix("special_"), 2
    else:
        ulps = 2 if name in TABLES["doubled"] else 1
    is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in schema.returns)
    if is_view or name in TABLES["exact"]:
        return _Rule(0)
    written = tuple(
        argument.name if argument.kwarg_only else place
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    first_term = 0 if name in TABLES["terms"] else 1 if name in TABLES["terms after the first"] else None
    accumulates = any(argument.name == "accumulate" for argument in schema.arguments)
    copies_unless = (_place(schema, "accumulate"), "accumulate") if accumulates else None
    deviation = (_place(schema, "std"), "std") if name in TABLES["drawn"] else None
    return _Rule(
        ulps,
        name in TABLES["arithmetic"],
        name in _RING,
        first_term,
        name in _SUMMED,
        name in _SUMMED or any(argument.name == "reduction" for argument in schema.arguments),
        deviation,
        written,
        copies_unless,
    )


def _place(schema: Any, name: str) -> int:
    """The position of an argument; the number of arguments if none has that name."""
    names = [argument.name for argument in schema.arguments]
    return names.index(name) if name in names else len(names)
