"""The selected rows of a table before its columns are described: classes and fills are fitted on them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

from runner.config import Config
from runner.faults import Faults
from runner.language.text.arithmetic import Scalar
from runner.plan.data.files import groups_of, table_names
from runner.plan.data.raw_columns import raw_blocks
from runner.plan.data.readings import SourceTable
from runner.plan.data.selection.columns import open_table
from runner.plan.data.selection.planning import Request, select_rows
from runner.plan.data.selection.selection import Mask


def rows_to_fit(table: SourceTable, config: Config, scalars: Mapping[str, Scalar], memory: int) -> Mask | None:
    """Which rows a source selects, or None for all.

    Raises:
        PlacedFault: as `select_rows`.
        FileFault: the file cannot be read.
    """
    declared = config.data[table.name].select
    if declared is None:
        return None
    first = table_names(table.array, memory)[0]
    rows = sum(groups_of(table.array)) or sum(len(block[first]) for block in raw_blocks(table.array, [first], memory))
    bound = {name: columns for name, columns in table.columns.items() if isinstance(columns, str)}
    request = Request(
        declared,
        ("data", table.name, "select"),
        rows,
        cache(partial(open_table, {"": table.array}, True, rows, memory)),
        bound,
        scalars,
        Faults(config.document),  # of numbers and warnings, which planning reports again
        memory,
    )
    found = select_rows(request)
    return None if found is None else found.selection.mask(0, rows)
