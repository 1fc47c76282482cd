"""Checks of arguments that torch's native code does not check: invalid ones crash it, or keep it busy forever.

Each check raises ValueError, or RuntimeError if it looks at elements. `guards` says which operations need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from math import prod
from typing import Any

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name

Arguments = Mapping[str, Any]
"""The arguments of a call by name."""

MAX_ORDER = 10_000
"""The largest order of a polynomial, and the largest distance below zero at which zeta functions start their sum."""

MAX_EMPTY = 2**26
"""The largest product of the nonzero sizes of a tensor without elements: native loops still run over them."""

MAX_EMPTY_MATRICES = 2**20
"""The largest number of matrices without elements for `lstsq`, which takes half a microsecond for each of them."""

_OF_ROWS = "a pivot is none of the rows, which count from 1 to {}"

_TRAPPING = frozenset({torch.int32, torch.int64})
"""Dtypes whose division instruction crashes the process if the quotient overflows."""


def _require(holds: Tensor, message: str) -> None:
    """Raises RuntimeError unless `holds`, also in compiled code; skips tensors without values."""
    torch._assert_async(holds, message)


# integer division


def divides_integers(given: Arguments) -> bool:
    left, right = given.get("input"), given.get("other")
    tensors = [value for value in (left, right) if isinstance(value, Tensor)]
    if not tensors or any(value.device.type != "cpu" for value in tensors):
        return False
    if left is None or right is None or (isinstance(right, int) and right != -1):
        return False
    return torch.result_type(left, right) in _TRAPPING


def rounds(given: Arguments) -> bool:
    return given.get("rounding_mode") is not None and divides_integers(given)


def check_division(given: Arguments) -> None:
    left, right = given["input"], given["other"]
    dtype = torch.result_type(left, right)
    info = torch.iinfo(dtype)
    overflows = _equals(left, info.min, dtype) & _equals(right, -1, dtype)
    name = dtype_name(dtype)
    _require(~overflows.any(), f"-2^{info.bits - 1} divided by -1 does not fit into {name}")


def _equals(value: Any, number: int, dtype: torch.dtype) -> Any:
    """Whether elements equal `number` after conversion to `dtype`, as torch does before a division."""
    if isinstance(value, Tensor):
        return value.to(dtype) == number
    return (value - number) % 2 ** torch.iinfo(dtype).bits == 0


def check_multiple(given: Arguments) -> None:
    left, right = given["input"], given["other"]
    dtype = torch.result_type(left, right)
    lowest = torch.iinfo(dtype).min
    message = f"-2^{torch.iinfo(dtype).bits - 1} has no absolute value in {str(dtype).removeprefix('torch.')}"
    _require(~(_equals(left, lowest, dtype) | _equals(right, lowest, dtype)).any(), message)


# counts and segments


def has_tensor(name: str) -> Callable[[Arguments], bool]:
    return lambda given: isinstance(given.get(name), Tensor)


def check_repeats(given: Arguments) -> None:
    repeats = given["repeats"]
    total = repeats.to(torch.float64).sum()
    _require((repeats >= 0).all(), "a count of repetitions is negative")
    _require(total < 2.0**62, "the counts of repetitions add up to more than 2^62")


def check_segments(given: Arguments) -> None:
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


def check_pivots(given: Arguments) -> None:
    factors = given.get("LU_data", given.get("LU"))
    pivots = given.get("LU_pivots", given.get("pivots"))
    if isinstance(factors, Tensor) and isinstance(pivots, Tensor) and factors.dim() >= 2:
        _compare_pivots(pivots, (*factors.shape[:-2], min(factors.shape[-2:])))
        _require(((pivots >= 1) & (pivots <= factors.shape[-2])).all(), _OF_ROWS.format(factors.shape[-2]))


def check_signed_pivots(given: Arguments) -> None:
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


def check_bags(given: Arguments) -> None:
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


def check_labels(given: Arguments) -> None:
    """Checks the labels of `ctc_loss`, which torch uses as indices unchecked. Labels past a length are padding."""
    targets, classes = given["targets"], given["log_probs"].shape[-1]
    lengths = torch.as_tensor(given["target_lengths"], device=targets.device)
    if targets.dim() == 2:
        places = torch.arange(targets.shape[1], device=targets.device)
        padding = places >= lengths.reshape(-1, 1)
    else:
        padding = torch.arange(targets.shape[-1], device=targets.device) >= lengths.sum()
    labels = (targets >= 0) & (targets < classes)
    _require((labels | padding).all(), f"a label is none of the {classes:,} classes, which count from 0")


def check_attention(given: Arguments) -> None:
    key, value = given["key"], given["value"]
    if key.shape[-2:-1] != value.shape[-2:-1]:
        raise ValueError(f"the key has shape {tuple(key.shape)}, the value {tuple(value.shape)}, of another length")


def check_groups(given: Arguments) -> None:
    x, sizes = given["input"], (given["N"], given["C"], given["HxW"])
    if min(sizes) < 0 or prod(sizes) != x.numel() or (x.numel() == 0 and tuple(x.shape[:2]) != sizes[:2]):
        raise ValueError(f"`N`, `C` and `HxW` are {sizes}, which are not the sizes of {tuple(x.shape)}")


def pads_by_elements(given: Arguments) -> bool:
    padding = given.get("padding_mode", "zeros")
    needs_none = isinstance(padding, (str, int)) and padding in ("zeros", 0)
    return not needs_none and given["grid"].device.type == "cpu"


def check_grid(given: Arguments) -> None:
    _require((given["grid"].abs() <= 1e9).all(), "the grid holds a NaN, an infinity or a huge number")


def check_least_squares(given: Arguments) -> None:
    """Rejects matrices without elements where LAPACK does, and where they are many: torch solves each of them."""
    driver, empty = given.get("driver"), [name for name in ("input", "b") if 0 in given[name].shape]
    if not empty:
        return
    if driver == "gelss" or (driver == "gelsd" and empty == ["b"]):
        raise ValueError(f"lstsq: a matrix of shape {tuple(given[empty[0]].shape)} has no elements")
    matrix, right = given["input"].shape, given["b"].shape
    rights = right[:-2] if right != matrix[:-1] else ()
    count = prod(max(sizes) if 0 not in sizes else 0 for sizes in _aligned(matrix[:-2], rights))
    if count > MAX_EMPTY_MATRICES:
        raise ValueError(f"lstsq: {count:,} matrices have no elements; the maximum is {MAX_EMPTY_MATRICES:,}")


def _aligned(first: Sequence[int], second: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Pairs the sizes of two shapes as they broadcast: from the last one, with 1 where a shape has ended."""
    return zip_longest(reversed(first), reversed(second), fillvalue=1)


def dilates_padding(given: Arguments) -> bool:
    return any(_whole(given.get("padding", 0))) and any(step != 1 for step in _whole(given.get("dilation", 1)))


def _whole(sizes: Any) -> tuple[int, ...]:
    if isinstance(sizes, int):
        return (sizes,)
    if isinstance(sizes, (tuple, list)) and all(isinstance(size, int) for size in sizes):
        return tuple(sizes)
    raise TypeError


def check_windows(dimensions: int) -> Callable[[Arguments], None]:
    """Returns a check that each window of max pooling has an element. For others torch gives an index past the input.

    The backward pass then writes there. Only a dilated window that starts in the padding can step over the input.
    """

    def check(given: Arguments) -> None:
        kernel = given["kernel_size"]
        sizes = given["input"].shape[-dimensions:]
        strides = _whole(given.get("stride")) if given.get("stride") is not None else ()
        axes = (_for_each(dimensions, value) for value in (strides or kernel, given["padding"], given["dilation"]))
        for size, stride, padding, dilation in zip(sizes, *axes, strict=True):
            if stride < 1 or dilation < 1 or not 0 <= padding < 2**31:
                return  # torch itself rejects these
            for before in range(padding, 0, -stride):
                if -before % dilation >= size:
                    raise ValueError(
                        f"a window starts {before:,} before the input and steps by {dilation:,} over all {size:,} of it"
                    )

    return check


def _for_each(dimensions: int, sizes: Any) -> tuple[int, ...]:
    whole = _whole(sizes)
    return whole * dimensions if len(whole) == 1 else whole


# sizes that keep a native loop busy, although the tensor has no elements


def has_zero(given: Arguments) -> bool:
    """Whether a size is zero, or is a tensor: then the number of elements does not bound the other sizes."""
    found = given.get("output_size", given.get("size"))
    sizes = found if isinstance(found, (tuple, list)) else [found]
    return given["input"].numel() == 0 or any(isinstance(size, Tensor) or size == 0 for size in sizes)


def check_resized(dimensions: int | None) -> Callable[[Arguments], None]:
    """Returns a check of the new sizes of the last `dimensions` dimensions; None: of all but the first two."""

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


def check_affine(given: Arguments) -> None:
    size = given["size"]
    _check_empty([*size[:1], *size[2:]])


def _check_empty(sizes: Sequence[float]) -> None:
    if any(isinstance(size, Tensor) for size in sizes):
        raise ValueError("a size is a tensor, and a number is needed")
    if 0 in sizes and prod(size for size in sizes if size > 0) > MAX_EMPTY:
        raise ValueError(f"the result would have no elements, and its other sizes make more than {MAX_EMPTY:,}")


# values that keep a native loop busy


def check_order(name: str) -> Callable[[Arguments], None]:
    def check(given: Arguments) -> None:
        order = given.get(name)
        if isinstance(order, Tensor):
            _require((order <= MAX_ORDER).all(), f"an order in `{name}` is larger than {MAX_ORDER:,}")
        elif isinstance(order, (int, float)) and order > MAX_ORDER:
            raise ValueError(f"`{name}` is {order:,}, and at most {MAX_ORDER:,}")

    return check


def check_zeta(name: str) -> Callable[[Arguments], None]:
    def check(given: Arguments) -> None:
        value = given.get(name)
        message = f"it sums one term for each unit below zero, and at most {MAX_ORDER:,}"
        if isinstance(value, Tensor):
            if value.is_floating_point():
                _require(~(value < -MAX_ORDER).any(), message)
        elif isinstance(value, (int, float)) and value < -MAX_ORDER:
            raise ValueError(message)

    return check


# values that crash a library


def check_finite(given: Arguments) -> None:
    matrix = given.get("input", given.get("A"))
    if isinstance(matrix, Tensor) and matrix.device.type == "cpu":
        _require(torch.isfinite(matrix).all(), "eigvals: the matrix holds an infinity or a NaN")


def check_rows(given: Arguments) -> None:
    x = given["input"]
    if x.dim() == 2 and x.shape[0] == 0:
        raise ValueError("pdist: there are no rows")
