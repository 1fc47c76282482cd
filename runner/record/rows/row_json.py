"""Formats a row as one JSON object, for `--json`."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from runner.engine.rows import Row
from runner.language.dtypes import dtype_name
from runner.record.rows.storage import LARGEST_LISTED
from runner.record.rows.summary import summarize
from runner.text import finite_json, json_text


def row_json(row: Row, largest: int = LARGEST_LISTED) -> str:
    """A row as valid JSON on one line: `row`, `step`, `path`, `iteration`, then every column by name.

    A tensor is a number or nested lists, and a complex number is `[real, imaginary]`. A tensor of more than `largest`
    elements is an object with its shape and statistics. Numbers missing in JSON are "nan", "inf" and "-inf".
    """
    content: dict[str, Any] = {
        "row": row.number,
        "step": row.step,
        "path": row.path,
        "iteration": row.iteration,
    }
    for column, value in zip(row.columns, row.values, strict=True):
        content[column.name] = None if value is None else _plain(value, largest)
    return json_text(content)


def _plain(tensor: Tensor, largest: int) -> Any:
    if tensor.numel() > largest:
        summary = dataclasses.asdict(summarize(tensor))
        summary["dtype"] = dtype_name(tensor.dtype)
        return finite_json(summary)
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.complex32:
        tensor = tensor.to(torch.complex64)
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4:
        tensor = tensor.float()
    return finite_json(tensor.tolist())
