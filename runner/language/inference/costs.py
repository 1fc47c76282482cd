"""Estimates the cost of an operation from its operands' shapes. Costly operations are inferred without computing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import Tensor

from runner.language.inference.native_checks import MAX_EMPTY

MOST_WORK = 3e9
"""The maximum number of multiplications of an operation while planning: about half a second."""

_MEASURES = "runner.language.measures."
"""The modules of the metrics that steprun ships, which check that their targets are classes."""

_OF_A_CALL = 2000
"""Multiplications that take as long as one call of LAPACK: each matrix of a batch is a call."""

Work = Callable[[list[Tensor]], float]


def is_measure(function: Callable[..., Any]) -> bool:
    """Whether a function is one of the metrics that steprun ships."""
    return getattr(function, "__module__", "").startswith(_MEASURES)


def is_costly(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether to infer a call from shapes alone.

    It may never end on a few elements, take seconds on many, or reject elements that are only examples.
    """
    if is_measure(function):
        return True
    name = getattr(function, "__name__", "").removeprefix("linalg_")
    if "_polynomial_" in name:  # their recurrence has as many steps as requested
        return True
    if name == "einsum":
        return _indices(args) > MOST_WORK
    work = _WORK.get(name)
    if work is None:
        return False
    tensors = [value for value in _flat((args, tuple(kwargs.values()))) if isinstance(value, Tensor)]
    return bool(tensors) and (work(tensors) > MOST_WORK or _is_wide(tensors))


def _is_wide(tensors: list[Tensor]) -> bool:
    """Whether a tensor has no elements, and the sizes of all may broadcast to more matrices than `MAX_EMPTY`.

    torch then runs over all matrices, although the result has no elements.
    """
    empty = any(x.numel() == 0 for x in tensors)
    return empty and prod(size for x in tensors for size in x.shape if size) > MAX_EMPTY


def has_longer_history(y: Tensor, most: int) -> bool:
    """Whether the autograd graph of `y` has more than `most` operations."""
    seen: set[Any] = set()
    pending = [y.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if len(seen) > most:
            return True
        pending += [other for other, _ in node.next_functions]
    return False


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [item for inner in value for item in _flat(inner)]
    return [value]


def _cubic(factor: float) -> Work:
    """Work of a decomposition: `factor` * m * n * min(m, n) for each matrix of shape (m, n), and that of its call."""

    def work(tensors: list[Tensor]) -> float:
        matrices = [x for x in tensors if x.dim() >= 2]
        elements = max((factor * x.numel() * min(x.shape[-2:]) for x in matrices), default=0)
        return elements + _OF_A_CALL * max((prod(x.shape[:-2]) for x in matrices), default=0)

    return work


def _product(tensors: list[Tensor]) -> float:
    """Work of a product of two or more matrices: each row of one times each column of the other."""
    matrices = [tensor for tensor in tensors if tensor.dim() >= 2]
    if len(matrices) < 2:
        return 0
    first, last = matrices[-2], matrices[-1]
    batch = max(prod(first.shape[:-2]), prod(last.shape[:-2]))
    return float(batch) * prod(first.shape[-2:]) * max(last.shape[-2:])


def _pairs(tensors: list[Tensor]) -> float:
    """Work of pairwise distances: each row of one with each row of the other."""
    first, last = tensors[0], tensors[-1]
    return 10.0 * first.numel() * (last.shape[-2] if last.dim() >= 2 else 1)


def _windows(tensors: list[Tensor]) -> float:
    """Work of a convolution: at most each weight with each element."""
    if len(tensors) < 2 or tensors[1].dim() < 2:
        return 0
    x, weight = tensors[:2]
    return float(x.numel()) * weight.numel() / max(1, weight.shape[1])


def _indices(args: tuple[Any, ...]) -> float:
    """Work of `einsum`: one product for each combination of its indices; 0 if the equation cannot be parsed."""
    equation, *operands = _flat(args)
    if not isinstance(equation, str):
        return 0
    sizes: dict[str, int] = {}
    for labels, operand in zip(equation.replace(" ", "").partition("->")[0].split(","), operands, strict=False):
        if isinstance(operand, Tensor) and "." not in labels:
            sizes.update(zip(labels, operand.shape, strict=False))
    return float(prod(sizes.values()))


_DECOMPOSITIONS: Mapping[str, float] = {
    **dict.fromkeys(("svd", "svdvals", "pinv", "pinverse", "lstsq", "matrix_rank", "nuclear_norm", "cond"), 20),
    **dict.fromkeys(("eig", "eigvals"), 60),
    **dict.fromkeys(("eigh", "eigvalsh", "matrix_exp"), 15),
    **dict.fromkeys(("qr", "geqrf", "ormqr", "orgqr", "householder_product", "ldl_factor", "ldl_factor_ex"), 4),
    **dict.fromkeys(
        ("inv", "inv_ex", "inverse", "det", "slogdet", "logdet", "solve", "solve_ex", "lu", "lu_factor"), 2
    ),
    **dict.fromkeys(("lu_factor_ex", "cholesky", "cholesky_ex", "cholesky_inverse", "cholesky_solve"), 1),
    **dict.fromkeys(("solve_triangular", "triangular_solve", "lu_solve", "ldl_solve"), 1),
    **dict.fromkeys(("matrix_power", "lobpcg"), 20),
}

_WORK: Mapping[str, Work] = {
    **{name: _cubic(factor) for name, factor in _DECOMPOSITIONS.items()},
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "linear", "chain_matmul"), _product),
    **dict.fromkeys(("multi_dot", "scaled_dot_product_attention", "bilinear", "inner"), _product),
    **dict.fromkeys(("cdist", "pdist", "cosine_similarity"), _pairs),
    **dict.fromkeys((f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)), _windows),
    **dict.fromkeys(("convolution", "conv_tbc"), _windows),
}
"""Upper bounds on the number of multiplications of an operation, by its bare name."""
