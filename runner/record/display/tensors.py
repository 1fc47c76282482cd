"""Tensors as text: small ones whole, large ones as shape and statistics, also of their slices."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch._tensor_str
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column
from runner.record.display.styles import DIM, RED, Styled, widest, width_of
from runner.record.rows.summary import Summary, summarize, summarize_slices

LARGEST_WHOLE = 64
"""The most elements of a tensor that is printed whole, if it takes at most `TALLEST_WHOLE` lines."""
TALLEST_WHOLE = 8
_NUMBER = re.compile(r"tensor\((\[*[^],]*\]*)(?:, .*)?\)")
_ELEMENT, _ACROSS = 11, 44
"""About the characters of an element, and of a line without its label on a narrow terminal."""
MOST_SLICES = 16
"""The most slices of a stacked tensor that are printed; of more, the first and the last of them."""


@dataclass(frozen=True, slots=True)
class Printed:
    """A tensor as text; a step does not change most tensors."""

    value: Tensor | None
    texts: list[str]
    slices: list[list[str]]  # of all slices; empty if the tensor is printed whole


class TensorText:
    """Prints tensors in at most `width` characters.

    Args:
        styled: how to style the names of statistics.
    """

    def __init__(self, width: int, styled: Styled) -> None:
        self._width = width
        self._styled = styled

    def text(self, value: Tensor, leading: int) -> Printed:
        """A tensor as lines, with its slices along its first `leading` dimensions."""
        detached = value.detach()
        whole = _whole(detached, self._width)
        if whole is not None:
            return Printed(value, whole, [])
        slices = summarize_slices(detached, leading) if leading else []
        texts = self._folded(self._facts(summarize(detached)))
        return Printed(value, texts, [self._folded(self._facts(summary)[1:]) for summary in slices])

    def missing(self) -> Printed:
        """The text of a missing value."""
        return Printed(None, [self._styled("None", DIM)], [])

    def _facts(self, summary: Summary) -> list[str]:
        facts = [f"{tuple(summary.shape)} {dtype_name(summary.dtype)}"]
        for name in ("mean", "std", "min", "max", "norm"):
            number = getattr(summary, name)
            if number is not None:
                facts.append(f"{self._styled(name, DIM)} {number:.5g}")
        if summary.zeros:
            facts.append(f"{self._styled('zeros', DIM)} {summary.zeros:,}")
        facts.extend(
            self._styled(f"{name} {count:,}", RED)
            for name, count in (("nan", summary.nan), ("inf", summary.inf))
            if count
        )
        return facts

    def _folded(self, facts: list[str]) -> list[str]:
        texts = [facts[0]]
        for fact in facts[1:]:
            if width_of(texts[-1]) + 2 + width_of(fact) <= self._width:
                texts[-1] += "  " + fact
            else:
                texts.append(fact)
        return texts


def _whole(value: Tensor, width: int) -> list[str] | None:
    """A tensor with all its elements, as lines; None if it is too large."""
    if value.numel() <= LARGEST_WHOLE:
        value = value.cpu()
        for asked in (width, width * 3 // 4):  # torch may print wider lines: it ignores the point of `0.`
            with torch._tensor_str.printoptions(linewidth=asked):
                texts = repr(value).splitlines()
            if widest(texts) <= width and len(texts) <= TALLEST_WHOLE:
                return texts
        if value.numel() == 1:  # on a narrow terminal; statistics of one number take more room
            return [_NUMBER.sub(r"\1", " ".join(map(str.strip, texts)))]
    return None


def expected_lines(column: Column) -> int:
    """About how many lines a tensor of a column takes."""
    if column.shape is None:
        return 2
    if (column.elements or 0) > LARGEST_WHOLE:
        return 2 + min(math.prod(column.leading), MOST_SLICES) * bool(column.leading)
    across = math.ceil(_ELEMENT * (column.shape[-1] if column.shape else 1) / _ACROSS)
    return min(math.prod(column.shape[:-1]) * across, TALLEST_WHOLE)
