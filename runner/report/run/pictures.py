"""The section that shows any tensor as an image, for each chosen row."""

from __future__ import annotations

from typing import Any

import numpy
import numpy.typing
import torch

from runner.report.markup import paragraph
from runner.report.reading.tensors import SIDE, Measured
from runner.report.run.numbers import kind_text, number
from runner.report.run.subject import Subject
from runner.report.section import Section

MOST_BYTES = 900 << 10
"""The most cells of all pictures of a page, a byte each."""

BROKEN = 255
"""The byte of a cell that is not finite; 0 to 254 are from the least to the largest value of the picture."""

Cells = numpy.typing.NDArray[numpy.uint8]


def pictures(subject: Subject) -> Section | None:
    """Each tensor of each chosen row as cells of 8 bits, as many tensors as fit."""
    found, used, left = [], 0, []
    for tensor in subject.tensors:
        if not tensor.pictures or (
            tensor.of.shape is not None and tensor.of.column is not None and _elements(tensor) == 1
        ):
            continue
        size = sum(each.numel() for each in tensor.pictures.values())
        if used + size > MOST_BYTES:
            left.append(tensor.of.name)
            continue
        used += size
        found.append(_picture(subject, tensor))
    if not found:
        return None
    fewer = len(subject.steps) < len(subject.rows)
    said = (
        "The colours of a picture go from its least to its largest value, in 255 steps. "
        f"{f'Of {len(subject.rows):,} rows the page has {len(subject.steps)}. ' if fewer else ''}"
        f"A tensor of more than {SIDE} × {SIDE} elements is shown by means of blocks."
    )
    if left:
        said += (
            f" Without pictures, so that the page stays small: {', '.join(left[:10])}{', …' if len(left) > 10 else ''}."
        )
    return Section("tensors", "Tensors", paragraph(said, "note"), "pictures", {"tensors": found})


def _elements(tensor: Measured) -> int:
    return next(iter(tensor.pictures.values())).numel()


def _picture(subject: Subject, tensor: Measured) -> dict[str, Any]:
    height, width = next(iter(tensor.pictures.values())).shape
    shown: list[int | None] = []
    cells: list[Cells] = []
    ranges: list[list[str]] = []
    for position in subject.chosen.tolist():
        value = tensor.pictures.get(position)
        shown.append(None if value is None else len(cells))
        if value is not None:
            made, low, high = quantised(value)
            cells.append(made)
            ranges.append([low, high])
    return {
        "name": tensor.of.name,
        "kind": kind_text(tensor.of.shape, tensor.of.dtype),
        "height": height,
        "width": width,
        "whole": height * width == (tensor.of.column.elements if tensor.of.column is not None else 0),
        "at": shown,
        "ranges": ranges,
        "cells": numpy.concatenate([each.reshape(-1) for each in cells]),
    }


def quantised(value: torch.Tensor) -> tuple[Cells, str, str]:
    """A real tensor `(h, w)` as bytes, with its least and its largest finite value."""
    numbers = value.double().numpy()
    finite = numpy.isfinite(numbers)
    if not finite.any():
        return numpy.full(numbers.shape, BROKEN, numpy.uint8), "nan", "nan"
    low, high = float(numbers[finite].min()), float(numbers[finite].max())
    scaled = numpy.full(numbers.shape, 127.0) if low == high else (numbers - low) / (high - low) * 254
    cells = numpy.where(finite, numpy.nan_to_num(scaled, nan=0, posinf=0, neginf=0), BROKEN)
    return numpy.rint(cells).astype(numpy.uint8), number(low), number(high)
