"""Columns of a text table that are copied as they are: numbers where every cell reads back as written, else text."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pyarrow

from runner.plan.data.files import ArrayFile
from runner.plan.data.tables.cells import Words
from runner.plan.data.tables.text_cache import text_columns

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


def text_to_copy(array: ArrayFile, names: Sequence[str]) -> Any:
    """Columns of a text table as an Arrow record batch.

    A column whose cells are all integers without leading zeros is int64. Others are text, stripped of blanks.

    Raises:
        FileFault: the table cannot be read.
    """
    keys = [(name, True) for name in names]
    found = text_columns(array.paths, array.reading.dialect, keys, sys.maxsize)
    columns = []
    for key in keys:
        cells = found[key]
        assert isinstance(cells, Words)
        is_number = all(map(_INTEGER.fullmatch, cells.words))
        convert: Callable[[str], Any] = int if is_number else str
        words = pyarrow.array([convert(word) for word in cells.words])
        columns.append(words.take(pyarrow.array(cells.codes.astype(numpy.int64))))
    return pyarrow.RecordBatch.from_arrays(columns, list(names))
