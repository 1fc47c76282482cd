"""Finds the sample of a data source whose label or index is out of bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.engine.data.batches import Batches
from runner.language.graph.codegen import Call


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Integer arguments of an operation, and their bounds: from `first` to `end - 1`."""

    values: Tensor
    end: int
    first: int = 0
    ignored: int | None = None
    word: str = "index"


def label_fault(call: Call, sources: Mapping[str, Batches]) -> tuple[str, str] | None:
    """What is wrong with the integers of a failed call, and a hint; None if no batch contains them.

    Args:
        sources: the data sources whose batches the failed step used.
    """
    if call.name not in _COUNTING:
        return None
    for numbers in _COUNTING[call.name](*call.args, **call.kwargs):
        bad = (numbers.values < numbers.first) | (numbers.values >= numbers.end)
        if numbers.ignored is not None:
            bad &= numbers.values != numbers.ignored
        if bool(bad.any()):
            return _told(numbers, bad, sources)
    return None


def _told(numbers: _Numbers, bad: Tensor, sources: Mapping[str, Batches]) -> tuple[str, str] | None:
    place = int(bad.flatten().nonzero()[0])
    message = f"the {numbers.word} {int(numbers.values.flatten()[place])} is out of bounds"
    hint = f"here it is {numbers.first} to {numbers.end - 1}: make room for more, or mend the data"
    for source, batches in sources.items():
        for name, column in batches.taken.items():
            if column.numel() == numbers.values.numel() and torch.equal(column.flatten(), numbers.values.flatten()):
                sample = batches.sample(place * len(column) // column.numel())
                return f"{message}: sample {sample} of `{name}` in `{source}` holds it", hint
    if len(sources) == 1 and numbers.values.ndim:
        ((source, batches),) = sources.items()
        row = place * len(numbers.values) // numbers.values.numel()
        if len(numbers.values) == batches.length_taken:
            return f"{message}: it is made from sample {batches.sample(row)} of `{source}`", hint
    return None


def _classes(input: Tensor, target: Tensor, *rest: Any, ignore_index: int = -100, **options: Any) -> Iterator[_Numbers]:
    if not target.is_floating_point():
        yield _Numbers(target, input.shape[1 if input.ndim > 1 else 0], ignored=ignore_index, word="label")


def _margin(input: Tensor, target: Tensor, *rest: Any, **options: Any) -> Iterator[_Numbers]:
    yield _Numbers(target, input.shape[-1], word="label")


def _one_hot(input: Tensor, num_classes: int = -1) -> Iterator[_Numbers]:
    yield _Numbers(input, num_classes if num_classes > 0 else 1 << 62, word="label")


def _embedding(input: Tensor, weight: Tensor, *rest: Any, **options: Any) -> Iterator[_Numbers]:
    yield _Numbers(input, len(weight))


def _along(input: Tensor, dim: int, index: Tensor, *rest: Any, **options: Any) -> Iterator[_Numbers]:
    yield _Numbers(index, input.shape[dim])


def _flat(input: Tensor, index: Tensor) -> Iterator[_Numbers]:
    yield _Numbers(index, input.numel(), first=-input.numel())


def _indexed(input: Tensor, index: Any) -> Iterator[_Numbers]:
    parts = index if isinstance(index, tuple) else (index,)
    dimension = 0
    for place, part in enumerate(parts):
        if part is Ellipsis:
            later = [item for item in parts[place + 1 :] if item is not None]
            dimension = input.ndim - sum(_width(item) for item in later)
            continue
        if isinstance(part, Tensor) and part.dtype not in (torch.bool, torch.uint8):
            size = input.shape[dimension]
            yield _Numbers(part, size, first=-size)
        dimension += 0 if part is None else _width(part)


def _width(part: Any) -> int:
    """How many dimensions one part of an index consumes."""
    return part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1


_COUNTING: Mapping[str, Callable[..., Iterator[_Numbers]]] = {
    "cross_entropy": _classes,
    "nll_loss": _classes,
    "multi_margin_loss": _margin,
    "one_hot": _one_hot,
    "embedding": _embedding,
    "gather": _along,
    "index_add": _along,
    "index_copy": _along,
    "index_fill": _along,
    "index_select": _along,
    "scatter": _along,
    "scatter_add": _along,
    "scatter_reduce": _along,
    "take": _flat,
    "getitem": _indexed,
}
"""The integer arguments of each operation, by its name in torch."""
