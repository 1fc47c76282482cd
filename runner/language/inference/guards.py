"""Checks arguments before operations whose native code does not check them and would crash the process.

Each entry of the table names its operations, the calls that need it, and its check. Planning decides which calls need
it, so that others cost nothing. The check runs at each such call, while planning and in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runner.catalogue import Operation
from runner.language.inference.native_checks import (
    Arguments,
    check_affine,
    check_attention,
    check_bags,
    check_division,
    check_finite,
    check_grid,
    check_groups,
    check_labels,
    check_least_squares,
    check_multiple,
    check_order,
    check_pivots,
    check_repeats,
    check_resized,
    check_rows,
    check_segments,
    check_signed_pivots,
    check_windows,
    check_zeta,
    dilates_padding,
    divides_integers,
    has_tensor,
    has_zero,
    pads_by_elements,
    rounds,
)
from runner.language.inference.recurrent import check_cell, check_network

_ALONE = "__check"

_OF_KINDS = (AttributeError, TypeError, KeyError)


def _always(given: Arguments) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Guard:
    """A check before some operations."""

    names: tuple[str, ...]  # without prefixes; functions and methods alike
    check: Callable[[Arguments], None]  # raises ValueError, or RuntimeError where it looks at elements
    needed: Callable[[Arguments], bool] = _always  # whether a call with these example arguments needs it


def guarded(operation: Operation, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Wraps `call` in the guard of `operation`; returns None if it needs none.

    Args:
        call: the function of the operation; a method as a function of its tensor.
        args, kwargs: the arguments of one call while planning; others have the same types and dtypes.
    """
    return _behind(operation.bare_name, call, parameters_of(operation, args, kwargs), args, kwargs)


def guarded_operator(name: str, call: Callable[..., Any], left: Any, right: Any) -> Any:
    """Wraps the binary operator `call` in the guard of the operation `name`; returns None if it needs none."""
    return _behind(name, call, ("input", "other"), (left, right), {})


def _behind(
    name: str, call: Callable[..., Any], names: tuple[str, ...], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    guard = GUARDS.get(name)
    if guard is None or not _is_needed(guard, {**dict(zip(names, args, strict=False)), **kwargs}):
        return None

    def check(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        try:  # noqa: SIM105 — plain, for torch's compiler
            guard.check({**dict(zip(names, args, strict=False)), **kwargs})
        except _OF_KINDS:
            pass  # an argument is missing or of another kind, which torch itself refuses

    def checked(*args: Any, **kwargs: Any) -> Any:
        check(args, kwargs)
        return call(*args, **kwargs)

    checked.__name__ = name
    checked.__module__ = __name__
    checked.__dict__[_ALONE] = check
    return checked


def _is_needed(guard: Guard, given: Arguments) -> bool:
    try:
        return guard.needed(given)
    except _OF_KINDS:
        return False


def check_alone(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Checks the arguments of a function that `guarded` returned, without computing it; checks nothing for others."""
    check = getattr(function, _ALONE, None)
    if check is not None:
        check(args, kwargs)


def is_guarded_division(function: Any) -> bool:
    """Whether `guarded` returned this function for a division, which treats a number and a 0-d tensor alike."""
    return hasattr(function, _ALONE) and GUARDS[function.__name__].check is check_division


def parameters_of(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the positional arguments, with the tensor of a method, by the overload that matches."""
    before = ("input",) if operation.name.startswith(".") else ()
    given = args[len(before) :]
    for overload in operation.overloads:
        takes = [argument for argument in overload if not argument.keyword_only]
        names = {argument.name for argument in overload}
        fits = len(given) <= len(takes) and names.issuperset(kwargs)
        if fits and all(_is_of(value, argument.type) for value, argument in zip(given, takes, strict=False)):
            return (*before, *(argument.name for argument in takes))
    return (*before, *operation.argument_names)


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, Tensor):
        return "Tensor" in kind.split("|") or not kind
    if isinstance(value, (tuple, list)):
        return kind.endswith("[]") or not kind
    return not kind.startswith("Tensor") or value is None or "|" in kind


_POLYNOMIALS = (
    *(f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
)

_TABLE: tuple[Guard, ...] = (
    Guard(("floor_divide", "remainder", "fmod"), check_division, divides_integers),
    Guard(("div", "divide"), check_division, rounds),
    Guard(("gcd", "lcm"), check_multiple, divides_integers),
    Guard(("embedding_bag",), check_bags),
    Guard(("ctc_loss",), check_labels),
    Guard(("native_group_norm",), check_groups),
    Guard(("scaled_dot_product_attention",), check_attention),
    Guard(("grid_sample", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), check_grid, pads_by_elements),
    Guard(("lstsq",), check_least_squares),
    Guard(("lu_unpack", "lu_solve"), check_pivots),
    Guard(("ldl_solve",), check_signed_pivots),
    Guard(("repeat_interleave",), check_repeats, has_tensor("repeats")),
    Guard(("segment_reduce",), check_segments),
    Guard(("lstm",), check_network(4)),
    Guard(("gru",), check_network(3)),
    Guard(("rnn_tanh", "rnn_relu"), check_network(1)),
    Guard(("lstm_cell",), check_cell(4)),
    Guard(("gru_cell",), check_cell(3)),
    Guard(("rnn_tanh_cell", "rnn_relu_cell"), check_cell(1)),
    *(Guard((f"max_pool{n}d", f"max_pool{n}d_with_indices"), check_windows(n), dilates_padding) for n in (1, 2, 3)),
    *(
        Guard((f"adaptive_max_pool{n}d", f"adaptive_max_pool{n}d_with_indices"), check_resized(n), has_zero)
        for n in (1, 2, 3)
    ),
    Guard(("interpolate", "upsample", "upsample_nearest", "upsample_bilinear"), check_resized(None), has_zero),
    Guard(("affine_grid", "affine_grid_generator"), check_affine),
    Guard(_POLYNOMIALS, check_order("n")),
    Guard(("zeta",), check_zeta("other")),
    Guard(("polygamma",), check_zeta("input")),
    Guard(("eigvals",), check_finite),
    Guard(("pdist",), check_rows),
)

GUARDS: Mapping[str, Guard] = {name: guard for guard in _TABLE for name in guard.names}
"""The guard of each operation that has one, by its bare name."""
