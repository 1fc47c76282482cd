"""Arrow arrays as cells: numbers with a mask of the missing ones, or text."""

from __future__ import annotations

from typing import Any

import numpy

from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.cells import BLANK, Numbers, Words
from runner.plan.data.tables.conversions import Conversion


def is_plain_text(kind: Any) -> bool:
    """Whether an Arrow type is text, or a dictionary of text."""
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind)
    )


def has_cells(kind: Any) -> bool:
    """Whether the values of an Arrow type are numbers, booleans, text, times or nulls."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        is_plain_text,
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_decimal,
        types.is_temporal,
        types.is_null,
    )
    return any(test(kind) for test in tests)


def cells_of(array: Any, conversion: Conversion, file: str, column: str, start: int) -> Numbers | Words:
    """The cells of some rows of a column, for a conversion.

    Raises:
        FileFault: the column cannot have this conversion.
    """
    if conversion.of_text:
        return words_in(array, file, column)
    return numbers_in(array, file, column, start)


def words_in(array: Any, file: str, column: str) -> Words:
    """Text, integers, booleans and dates as text; nulls as blank cells.

    Raises:
        FileFault: the column has another type.
    """
    import pyarrow
    import pyarrow.compute

    if pyarrow.types.is_null(array.type):
        array = array.cast(pyarrow.string())
    kind = array.type.value_type if pyarrow.types.is_dictionary(array.type) else array.type
    types = pyarrow.types
    if not (is_plain_text(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_temporal(kind)):
        message = f"the column `{column}` of {file} holds {array.type}, which has no classes"
        raise FileFault(message, "leave it out of `classes`, `one_hot` and `dates`")
    coded = array if types.is_dictionary(array.type) else pyarrow.compute.dictionary_encode(array)
    words = [_word(value) for value in coded.dictionary.to_pylist()]
    codes = coded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False).astype(numpy.int32)
    return Words(codes, (*words, BLANK))


def _word(value: Any) -> str:
    if value is None:
        return BLANK
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value).strip()


def numbers_in(array: Any, file: str, column: str, start: int) -> Numbers:
    """Numbers and booleans, with a mask of the nulls.

    Raises:
        FileFault: the column has another type, or an unsigned integer of 2^63 or more.
    """
    import pyarrow

    types = pyarrow.types
    if types.is_decimal(array.type) or types.is_null(array.type):
        array = array.cast(pyarrow.float64())
    kind = array.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise FileFault(
            f"the column `{column}` of {file} holds {kind}, which cannot be filled", "leave it out of `fill`"
        )
    missing = None
    if array.null_count:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        empty = numpy.nan if types.is_floating(kind) else False if types.is_boolean(kind) else 0
        array = array.fill_null(pyarrow.scalar(empty).cast(kind))
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == numpy.uint64 and (beyond := values > 2**63 - 1).any():
        message = f"{file} holds an unsigned integer beyond 2^63 in row {start + int(beyond.argmax())}"
        raise FileFault(f"{message} of the column `{column}`", "save it as float64")
    if values.dtype.kind in "iu":
        values = values.astype(numpy.int64)
    elif values.dtype.kind == "f":
        values = values.astype(numpy.float64)
    return Numbers(values, missing, None if missing is None else int(missing.argmax()))
