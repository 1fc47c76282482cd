"""Warns of rows and groups that are in two sources of one file that steps use differently."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runner.config import DataDeclaration
from runner.errors import listing
from runner.faults import ConfigPath, Faults
from runner.plan.data.files import FileFault
from runner.plan.data.selection.columns import column_bound_to, open_table
from runner.plan.data.selection.cuts import blocks_of
from runner.plan.data.sources import SourcePlan
from runner.plan.program.instructions import Action, Backward, Evaluate, Instruction, Train


def check_overlaps(
    program: Iterable[Instruction],
    sources: Mapping[str, SourcePlan],
    declared: Mapping[str, DataDeclaration],
    faults: Faults,
    memory: int,
) -> None:
    """Warn of an evaluated source that shares rows or groups with a source that is trained on or evaluated.

    Only sources of the same files are compared, if at least one of the two says `select`.

    Args:
        memory: maximum bytes of a column in memory.
    """
    trained, evaluated = _uses(program)
    pairs = [(name, other, "trained on") for name in evaluated for other in trained if name != other]
    pairs += [(second, first, "evaluated too") for first, second in itertools.combinations(evaluated, 2)]
    seen: set[frozenset[str]] = set()
    for name, other, use in pairs:
        source, against = sources[name], sources[other]
        selects = declared[name].select is not None or declared[other].select is not None
        if frozenset((name, other)) in seen or not selects or _files(source) != _files(against):
            continue
        seen.add(frozenset((name, other)))
        path: ConfigPath = source.path if declared[name].select is None else (*source.path, "select")
        shared = _shared_rows(source, against)
        if shared:
            rows = f"{shared} of the {source.samples} rows of `{name}` {'is' if shared == 1 else 'are'}"
            message = f"rows-in-two-sources: {rows} in `{other}`, which is {use}"
            faults.warn(path, message, "select rows that are in one of them only", key=len(path) == 2)
            continue
        groups = _shared_groups(source, against, declared, memory)
        if groups:
            column = _group_of(declared[name], declared[other])
            shown = listing([f"`{group}`" for group in sorted(groups, key=str)], 3)
            noun = f"the group {shown} is" if len(groups) == 1 else f"{len(groups)} groups, {shown}, are"
            message = f"groups-in-two-sources: {noun} in `{name}` and in `{other}`, which is {use}"
            hint = f"write `group: {column}` in both, with one seed"
            faults.warn(path, message, hint, key=len(path) == 2)


def _uses(program: Iterable[Instruction]) -> tuple[list[str], list[str]]:
    """The sources that steps train on, and those that they evaluate."""
    trained: dict[str, None] = {}
    evaluated: dict[str, None] = {}
    for item in program:
        if not isinstance(item, Action):
            continue
        if isinstance(item.argument, Evaluate):
            evaluated[item.argument.source] = None
        elif isinstance(item.argument, (Backward, Train)):
            trained |= dict.fromkeys(item.argument.evaluation.sources)
    return list(trained), list(evaluated)


def _files(source: SourcePlan) -> tuple[frozenset[Any], int]:
    return frozenset(path for column in source.columns for path in column.array.paths), source.rows


def _shared_rows(first: SourcePlan, second: SourcePlan) -> int:
    one, other = first.selection, second.selection
    return sum(int((one.mask(*block) & other.mask(*block)).sum()) for block in blocks_of(first.rows))


def _group_of(*declared: DataDeclaration) -> str | None:
    return next((each.select.group for each in declared if each.select is not None and each.select.group), None)


def _shared_groups(
    first: SourcePlan, second: SourcePlan, declared: Mapping[str, DataDeclaration], memory: int
) -> set[Any]:
    """The groups that are in both sources; none if both are parts of one cut, which keeps groups whole."""
    one, other = declared[first.name], declared[second.name]
    group = _group_of(one, other)
    if group is None or _cut_alike(one, other):
        return set()
    found: list[set[Any]] = []
    for source, by in ((first, one), (second, other)):
        try:
            found.append(set(itertools.chain.from_iterable(_values(source, by, group, memory))))
        except FileFault:  # one of the two has no such column; planning has reported what it needs itself
            return set()
    return found[0] & found[1]


def _cut_alike(one: DataDeclaration, other: DataDeclaration) -> bool:
    if one.select is None or other.select is None:
        return False
    keys = ("where", "seed", "stratify", "group", "of")
    return all(getattr(one.select, key) == getattr(other.select, key) for key in keys)


def _values(source: SourcePlan, declared: DataDeclaration, name: str, memory: int) -> Iterator[Iterable[Any]]:
    """The values of a column in the rows of a source."""
    arrays, shared = {column.name: column.array for column in source.columns}, declared.file is not None
    table = open_table(arrays, shared, source.rows, memory)
    column = name if name in table.names else column_bound_to(arrays[name], name, shared) if name in arrays else None
    if column is None:
        return
    start = 0
    for block in table.blocks([column]):
        cells = block[column]
        mask = source.selection.mask(start, start + len(cells.missing)) & ~cells.missing
        yield cells.values[mask].tolist()
        start += len(mask)
