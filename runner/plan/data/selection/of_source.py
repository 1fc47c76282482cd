"""The rows of a source that are its samples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

from runner.config import DataDeclaration
from runner.faults import ConfigPath, Faults
from runner.language.text.arithmetic import Scalar
from runner.plan.data.files import ArrayFile
from runner.plan.data.selection.columns import column_bound_to, open_table
from runner.plan.data.selection.planning import Request, Selected, select_rows
from runner.plan.data.selection.selection import all_rows


def select_source(
    declared: DataDeclaration,
    path: ConfigPath,
    arrays: Mapping[str, ArrayFile],
    rows: int,
    scalars: Mapping[str, Scalar],
    faults: Faults,
    memory: int,
) -> Selected | None:
    """The rows of a source; None after a problem of a number was reported.

    Args:
        arrays: the array of each batch column.
        rows: the number of rows of the files.
        memory: maximum bytes of one column in memory.
    Raises:
        PlacedFault: as `select_rows`.
    """
    if declared.select is None:
        return Selected(all_rows(rows))
    shared = declared.file is not None
    bound = {name: column_bound_to(array, name, shared) for name, array in arrays.items()}
    return select_rows(
        Request(
            declared.select,
            (*path, "select"),
            rows,
            cache(partial(open_table, arrays, shared, rows, memory)),
            {name: found for name, found in bound.items() if found is not None},
            scalars,
            faults,
            memory,
        )
    )
