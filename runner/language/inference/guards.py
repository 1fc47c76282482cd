"""What is checked before operations whose native code trusts its arguments and would end the process on others.

Each entry of the table says which operations it is for, for which calls it is needed (decided while planning, so that
others pay nothing), and what it checks when such a call is made, while planning and in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from runner.catalogue import Operation
from runner.language.dtypes import dtype_name
from runner.language.inference.recurrent import check_cell, check_network

Arguments = Mapping[str, Any]
"""The arguments of a call by their names."""

MAX_ORDER = 10_000
"""The largest order of a polynomial, and how far left of zero zeta functions are summed from, one term at a time."""

MAX_EMPTY = 2**26
"""The product of the sizes besides zero of a tensor without elements: native loops run over them all the same."""

_ALONE = "__check"

_OF_KINDS = (AttributeError, TypeError, KeyError)

_OF_ROWS = "a pivot is none of the rows, which count from 1 to {}"

_TRAPPING = frozenset({torch.int32, torch.int64})
"""Dtypes in which a processor divides by an instruction that ends the process where the quotient does not fit."""


def _always(given: Arguments) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Guard:
    """What is checked before some operations."""

    names: tuple[str, ...]  # without prefixes; functions and methods alike
    check: Callable[[Arguments], None]  # raises ValueError, or RuntimeError where it looks at elements
    needed: Callable[[Arguments], bool] = _always  # for a call with these arguments, of examples


def guarded(operation: Operation, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`call` behind the guard of `operation`; None where none is needed.

    Args:
        call: what the operation computes with, a method as a function of its tensor.
        args, kwargs: the arguments of one call as they are while planning; others have the same types and dtypes.
    """
    return _behind(operation.bare_name, call, parameters_of(operation, args, kwargs), args, kwargs)


def guarded_operator(name: str, call: Callable[..., Any], left: Any, right: Any) -> Any:
    """`call` of two operands behind the guard of the operation `name`; None where none is needed."""
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
    """Check the arguments of a function that `guarded` gave, without computing it; of any other, nothing."""
    check = getattr(function, _ALONE, None)
    if check is not None:
        check(args, kwargs)


def is_guarded_division(function: Any) -> bool:
    """Whether a function that `guarded` gave divides, and so means the same of a number and of a tensor of it."""
    return hasattr(function, _ALONE) and GUARDS[function.__name__].check is _check_division


def parameters_of(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what a call gives by position, the tensor of a method included, by the overload that fits."""
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


def _require(holds: Tensor, message: str) -> None:
    """Raise RuntimeError unless `holds`, also from compiled code; what has no values is not looked at."""
    torch._assert_async(holds, message)


# integer division


def _divides_integers(given: Arguments) -> bool:
    left, right = given.get("input"), given.get("other")
    tensors = [value for value in (left, right) if isinstance(value, Tensor)]
    if not tensors or any(value.device.type != "cpu" for value in tensors):
        return False
    if left is None or right is None or (isinstance(right, int) and right != -1):
        return False
    return torch.result_type(left, right) in _TRAPPING


def _rounds(given: Arguments) -> bool:
    return given.get("rounding_mode") is not None and _divides_integers(given)


def _check_division(given: Arguments) -> None:
    left, right = given["input"], given["other"]
    dtype = torch.result_type(left, right)
    info = torch.iinfo(dtype)
    overflows = _equals(left, info.min, dtype) & _equals(right, -1, dtype)
    name = dtype_name(dtype)
    _require(~overflows.any(), f"-2^{info.bits - 1} divided by -1 does not fit into {name}")


def _equals(value: Any, number: int, dtype: torch.dtype) -> Any:
    """Whether elements, converted to `dtype` as torch does before it divides, are `number`."""
    if isinstance(value, Tensor):
        return value.to(dtype) == number
    return (value - number) % 2 ** torch.iinfo(dtype).bits == 0


def _check_multiple(given: Arguments) -> None:
    left, right = given["input"], given["other"]
    dtype = torch.result_type(left, right)
    lowest = torch.iinfo(dtype).min
    message = f"-2^{torch.iinfo(dtype).bits - 1} has no absolute value in {str(dtype).removeprefix('torch.')}"
    _require(~(_equals(left, lowest, dtype) | _equals(right, lowest, dtype)).any(), message)


# counts and segments


def _has_tensor(name: str) -> Callable[[Arguments], bool]:
    return lambda given: isinstance(given.get(name), Tensor)


def _check_repeats(given: Arguments) -> None:
    repeats = given["repeats"]
    total = repeats.to(torch.float64).sum()
    _require((repeats >= 0).all(), "a count of repetitions is negative")
    _require(total < 2.0**62, "the counts of repetitions add up to more than 2^62")


def _check_segments(given: Arguments) -> None:
    data, axis = given["data"], given.get("axis") or 0
    lengths, offsets = given.get("lengths"), given.get("offsets")
    parts = lengths if lengths is not None else offsets
    if not isinstance(parts, Tensor):
        raise ValueError("either `lengths` or `offsets` says where segments are")
    name = "lengths" if lengths is not None else "offsets"
    if not isinstance(axis, int) or not 0 <= axis < data.dim():
        raise ValueError(f"`axis` is {axis}, and the data has {data.dim()} dimensions")
    if parts.dim() != axis + 1 or parts.shape[:axis] != data.shape[:axis]:
        raise ValueError(f"`{name}` has shape {tuple(parts.shape)}, and one for each slice before `axis` is needed")
    if parts.dtype not in _TRAPPING:
        raise ValueError(f"`{name}` takes int32 or int64")
    size = data.shape[axis]
    if lengths is not None:
        _require((parts >= 0).all(), "a length is negative")
        _require((parts <= size).all(), f"a length is larger than {size}, the size of the data along `axis`")
        _require((parts.sum(-1) == size).all(), f"the lengths do not add up to {size}, the size along `axis`")
        return
    if parts.shape[-1] == 0:
        raise ValueError("`offsets` is empty: it starts with 0 and ends with the size along `axis`")
    _require((parts[..., 0] == 0).all(), "`offsets` does not start with 0")
    _require((parts[..., -1] == size).all(), f"`offsets` does not end with {size}, the size along `axis`")
    _require((parts.diff(dim=-1) >= 0).all(), "`offsets` decreases")


def _check_pivots(given: Arguments) -> None:
    factors = given.get("LU_data", given.get("LU"))
    pivots = given.get("LU_pivots", given.get("pivots"))
    if isinstance(factors, Tensor) and isinstance(pivots, Tensor) and factors.dim() >= 2:
        _compare_pivots(pivots, (*factors.shape[:-2], min(factors.shape[-2:])))
        _require(((pivots >= 1) & (pivots <= factors.shape[-2])).all(), _OF_ROWS.format(factors.shape[-2]))


def _check_signed_pivots(given: Arguments) -> None:
    factors, pivots = given["LD"], given["pivots"]
    if factors.dim() < 2:
        return
    _compare_pivots(pivots, tuple(factors.shape[:-1]))
    rows = factors.shape[-1]
    _require(((pivots.abs() >= 1) & (pivots.abs() <= rows)).all(), _OF_ROWS.format(rows))
    if rows == 0:
        return
    negative = pivots < 0
    places = torch.arange(rows, device=pivots.device)
    run = places - torch.where(negative, -1, places).cummax(-1).values  # negative pivots in a row up to here
    ends = negative & ~torch.nn.functional.pad(negative[..., 1:], (0, 1))
    _require(~(ends & (run % 2 == 1)).any(), "negative pivots come in pairs")


def _compare_pivots(pivots: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(pivots.shape) != wanted:
        raise ValueError(f"the pivots have shape {tuple(pivots.shape)}, and {wanted} is needed")


def _check_bags(given: Arguments) -> None:
    weight, offsets = given["weight"], given.get("offsets")
    indices = given["indices"] if "indices" in given else given["input"]
    if weight.dim() != 2:
        raise ValueError(f"the table has shape {tuple(weight.shape)}, and 2 sizes are needed")
    if indices.dim() not in (1, 2) or (indices.dim() == 2) != (offsets is None):
        raise ValueError("indices have 1 size beside `offsets`, and 2 without")
    for name, numbers in (("indices", indices), ("offsets", offsets)):
        if numbers is not None and numbers.dtype not in _TRAPPING:
            raise ValueError(f"`{name}` takes int32 or int64")
    rows = weight.shape[0]
    _require(((indices >= 0) & (indices < rows)).all(), f"an index is none of the {rows:,} rows of the table")
    if offsets is not None:
        if offsets.dim() != 1:
            raise ValueError(f"`offsets` has shape {tuple(offsets.shape)}, and 1 size is needed")
        if offsets.shape[0] == 0 and indices.shape[0] > 0:
            raise ValueError(f"`offsets` is empty, and there are {indices.shape[0]:,} indices")
        _require(((offsets >= 0) & (offsets <= indices.shape[0])).all(), "an offset is outside the indices")
        _require((offsets.diff() >= 0).all(), "`offsets` decreases")


def _check_labels(given: Arguments) -> None:
    """Of `ctc_loss`, which reads its probabilities at each label without a look; what is past a length is padding."""
    targets, classes = given["targets"], given["log_probs"].shape[-1]
    lengths = torch.as_tensor(given["target_lengths"], device=targets.device)
    if targets.dim() == 2:
        places = torch.arange(targets.shape[1], device=targets.device)
        padding = places >= lengths.reshape(-1, 1)
    else:
        padding = torch.arange(targets.shape[-1], device=targets.device) >= lengths.sum()
    labels = (targets >= 0) & (targets < classes)
    _require((labels | padding).all(), f"a label is none of the {classes:,} classes, which count from 0")


def _check_attention(given: Arguments) -> None:
    key, value = given["key"], given["value"]
    if key.shape[-2:-1] != value.shape[-2:-1]:
        raise ValueError(f"the key has shape {tuple(key.shape)}, the value {tuple(value.shape)}, of another length")


def _check_groups(given: Arguments) -> None:
    x, sizes = given["input"], (given["N"], given["C"], given["HxW"])
    if min(sizes) < 0 or prod(sizes) != x.numel() or (x.numel() == 0 and tuple(x.shape[:2]) != sizes[:2]):
        raise ValueError(f"`N`, `C` and `HxW` are {sizes}, which are not the sizes of {tuple(x.shape)}")


def _pads_by_elements(given: Arguments) -> bool:
    padding = given.get("padding_mode", "zeros")
    needs_none = isinstance(padding, (str, int)) and padding in ("zeros", 0)
    return not needs_none and given["grid"].device.type == "cpu"


def _check_grid(given: Arguments) -> None:
    _require((given["grid"].abs() <= 1e9).all(), "the grid holds a NaN, an infinity or a huge number")


def _check_columns(given: Arguments) -> None:
    for name in ("input", "b"):
        if 0 in given[name].shape:
            raise ValueError(f"lstsq: a matrix of shape {tuple(given[name].shape)} has no elements")


def _dilates_padding(given: Arguments) -> bool:
    return any(_whole(given.get("padding", 0))) and any(step != 1 for step in _whole(given.get("dilation", 1)))


def _whole(sizes: Any) -> tuple[int, ...]:
    if isinstance(sizes, int):
        return (sizes,)
    if isinstance(sizes, (tuple, list)) and all(isinstance(size, int) for size in sizes):
        return tuple(sizes)
    raise TypeError


def _check_windows(dimensions: int) -> Callable[[Arguments], None]:
    """Check that each window of a maximum has an element: for others torch gives an index past the input.

    The backward pass then writes there. Only a dilated window that starts in the padding can step over the input.
    """

    def check(given: Arguments) -> None:
        kernel = given["kernel_size"]
        sizes = given["input"].shape[-dimensions:]
        strides = _whole(given.get("stride")) if given.get("stride") is not None else ()
        axes = (_for_each(dimensions, value) for value in (strides or kernel, given["padding"], given["dilation"]))
        for size, stride, padding, dilation in zip(sizes, *axes, strict=True):
            if stride < 1 or dilation < 1 or not 0 <= padding < 2**31:
                return  # which torch itself refuses
            for before in range(padding, 0, -stride):
                if -before % dilation >= size:
                    raise ValueError(
                        f"a window starts {before:,} before the input and steps by {dilation:,} over all {size:,} of it"
                    )

    return check


def _for_each(dimensions: int, sizes: Any) -> tuple[int, ...]:
    whole = _whole(sizes)
    return whole * dimensions if len(whole) == 1 else whole


# sizes over which a loop does not end, though one beside them is zero


def _has_zero(given: Arguments) -> bool:
    """Whether nothing bounds the sizes of a call: one of them is zero, or in a tensor."""
    found = given.get("output_size", given.get("size"))
    sizes = found if isinstance(found, (tuple, list)) else [found]
    return given["input"].numel() == 0 or any(isinstance(size, Tensor) or size == 0 for size in sizes)


def _check_resized(dimensions: int | None) -> Callable[[Arguments], None]:
    """Check what the last dimensions become, by default all but two."""

    def check(given: Arguments) -> None:
        shape = given["input"].shape
        inner = shape[2:] if dimensions is None else shape[-dimensions:]
        asked = given.get("output_size", given.get("size"))
        if asked is None:
            factors = given["scale_factor"]
            factors = factors if isinstance(factors, (tuple, list)) else [factors] * len(inner)
            asked = [size * factor for size, factor in zip(inner, factors, strict=False)]
        elif isinstance(asked, int):
            asked = [asked] * len(inner)
        kept = [size if wanted is None else wanted for size, wanted in zip(inner, asked, strict=False)]
        _check_empty([*shape[: len(shape) - len(inner)], *kept])

    return check


def _check_affine(given: Arguments) -> None:
    size = given["size"]
    _check_empty([*size[:1], *size[2:]])


def _check_empty(sizes: Sequence[float]) -> None:
    if any(isinstance(size, Tensor) for size in sizes):
        raise ValueError("a size is a tensor, and a number is needed")
    if 0 in sizes and prod(size for size in sizes if size > 0) > MAX_EMPTY:
        raise ValueError(f"the result would have no elements, and its other sizes make more than {MAX_EMPTY:,}")


# values on which a loop does not end


def _check_order(name: str) -> Callable[[Arguments], None]:
    def check(given: Arguments) -> None:
        order = given.get(name)
        if isinstance(order, Tensor):
            _require((order <= MAX_ORDER).all(), f"an order in `{name}` is larger than {MAX_ORDER:,}")
        elif isinstance(order, (int, float)) and order > MAX_ORDER:
            raise ValueError(f"`{name}` is {order:,}, and at most {MAX_ORDER:,}")

    return check


def _check_zeta(name: str) -> Callable[[Arguments], None]:
    def check(given: Arguments) -> None:
        value = given.get(name)
        message = f"it sums one term for each unit below zero, and at most {MAX_ORDER:,}"
        if isinstance(value, Tensor):
            if value.is_floating_point():
                _require(~(value < -MAX_ORDER).any(), message)
        elif isinstance(value, (int, float)) and value < -MAX_ORDER:
            raise ValueError(message)

    return check


# values that a library does not survive


def _check_finite(given: Arguments) -> None:
    matrix = given.get("input", given.get("A"))
    if isinstance(matrix, Tensor) and matrix.device.type == "cpu":
        _require(torch.isfinite(matrix).all(), "eigvals: the matrix holds an infinity or a NaN")


def _check_rows(given: Arguments) -> None:
    x = given["input"]
    if x.dim() == 2 and x.shape[0] == 0:
        raise ValueError("pdist: there are no rows")


_POLYNOMIALS = (
    *(f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
)

_TABLE: tuple[Guard, ...] = (
    Guard(("floor_divide", "remainder", "fmod"), _check_division, _divides_integers),
    Guard(("div", "divide"), _check_division, _rounds),
    Guard(("gcd", "lcm"), _check_multiple, _divides_integers),
    Guard(("embedding_bag",), _check_bags),
    Guard(("ctc_loss",), _check_labels),
    Guard(("native_group_norm",), _check_groups),
    Guard(("scaled_dot_product_attention",), _check_attention),
    Guard(("grid_sample", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _check_grid, _pads_by_elements),
    Guard(("lstsq",), _check_columns, lambda given: given.get("driver") == "gelss"),
    Guard(("lu_unpack", "lu_solve"), _check_pivots),
    Guard(("ldl_solve",), _check_signed_pivots),
    Guard(("repeat_interleave",), _check_repeats, _has_tensor("repeats")),
    Guard(("segment_reduce",), _check_segments),
    Guard(("lstm",), check_network(4)),
    Guard(("gru",), check_network(3)),
    Guard(("rnn_tanh", "rnn_relu"), check_network(1)),
    Guard(("lstm_cell",), check_cell(4)),
    Guard(("gru_cell",), check_cell(3)),
    Guard(("rnn_tanh_cell", "rnn_relu_cell"), check_cell(1)),
    *(Guard((f"max_pool{n}d", f"max_pool{n}d_with_indices"), _check_windows(n), _dilates_padding) for n in (1, 2, 3)),
    *(
        Guard((f"adaptive_max_pool{n}d", f"adaptive_max_pool{n}d_with_indices"), _check_resized(n), _has_zero)
        for n in (1, 2, 3)
    ),
    Guard(("interpolate", "upsample", "upsample_nearest", "upsample_bilinear"), _check_resized(None), _has_zero),
    Guard(("affine_grid", "affine_grid_generator"), _check_affine),
    Guard(_POLYNOMIALS, _check_order("n")),
    Guard(("zeta",), _check_zeta("other")),
    Guard(("polygamma",), _check_zeta("input")),
    Guard(("eigvals",), _check_finite),
    Guard(("pdist",), _check_rows),
)

GUARDS: Mapping[str, Guard] = {name: guard for guard in _TABLE for name in guard.names}
"""The guard of each operation that has one, by its bare name."""
