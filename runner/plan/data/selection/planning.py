"""Plans `select:`: evaluates the condition, and cuts a share, a fold or a range."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy

from runner.config import SelectDeclaration
from runner.errors import did_you_mean, listing
from runner.faults import ConfigPath, Faults, PlacedFault
from runner.language.inference.inference import readable_bytes
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.plan.data.sandbox import FileFault
from runner.plan.data.selection.cells import Kind, Table
from runner.plan.data.selection.condition import Condition, Names, compile_condition, names_in_condition
from runner.plan.data.selection.cuts import (
    LABEL_BYTES,
    Cut,
    Fold,
    Part,
    Share,
    blocks_of,
    cut_groups,
    cut_rows,
    cut_strata,
)
from runner.plan.data.selection.labels import Labels, labels_of
from runner.plan.data.selection.order import AT_ONCE, Order
from runner.plan.data.selection.selection import Mask, Selection, all_rows, packed, selected_range, selection_of
from runner.plan.scalars import integer, number


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many rows of one class a source has."""

    name: str
    selected: int
    total: int  # of the rows that meet the condition


@dataclass(frozen=True, slots=True)
class Selected:
    """The rows of a source, and how they are spread over the classes of `stratify`."""

    selection: Selection
    spread: tuple[ClassCount, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a source says of its rows, and the context."""

    declared: SelectDeclaration
    path: ConfigPath  # of `select`
    rows: int  # of the file
    table: Callable[[], Table]
    bound: Mapping[str, str]  # batch column → column of the table
    scalars: Mapping[str, Scalar]
    faults: Faults
    memory: int  # bytes

    def at(self, key: str) -> ConfigPath:
        """The path of a key; of the whole `select` if that is text."""
        inner = (*self.path, key)
        return inner if self.faults.document.node(inner) is not None else self.path


def columns_named(declared: SelectDeclaration | None) -> frozenset[str]:
    """The columns that a `select` names. None of them is in doubt: a name that is no column is reported later."""
    if declared is None:
        return frozenset()
    named = {declared.stratify, declared.group} - {None}
    return frozenset(map(str, named)) | (frozenset() if declared.where is None else names_in_condition(declared.where))


def select_rows(request: Request) -> Selected | None:
    """The rows of a source; None after a problem of a number was reported.

    Raises:
        PlacedFault: a key has a value that is not allowed, names no column, or selects no row.
    """
    declared = request.declared
    before = len(request.faults.problems)
    cut, bounds = _cut(request), _range(request)
    seed = integer(declared.seed, request.at("seed"), request.scalars, request.faults, 0)
    if len(request.faults.problems) > before or seed is None:
        return None
    kept = all_rows(request.rows) if declared.where is None else _where(declared.where, request)
    if cut is None:
        return Selected(_within(kept, *_checked_range(bounds, kept.samples, request)))
    classes, groups = _labels(request, "stratify", kept), _labels(request, "group", kept)
    _check_folds(cut, kept, groups, request)
    part = _part(cut, seed, kept.samples, classes, groups)
    selected = _assembled(part, kept)
    if selected.samples == 0:
        key = "share" if isinstance(cut, Share) else "fold"
        of = f"the {kept.samples} rows" if kept.samples > 1 else "one row"
        message = f"this {key} selects none of {of}" + (f" in {len(groups.names)} groups" if groups else "")
        raise PlacedFault(request.at(key), message, "write a larger share" if key == "share" else "write fewer folds")
    if classes is None:
        return Selected(selected)
    _check_single_rows(classes, groups, request)
    return Selected(selected, _spread(classes, part))


def _check_folds(cut: Cut, kept: Selection, groups: Labels | None, request: Request) -> None:
    """Check that every fold can have a row, or a group."""
    most, things = (kept.samples, "rows") if groups is None else (len(groups.names), "groups")
    if isinstance(cut, Fold) and cut.of > most:
        message = f"{cut.of} folds need as many {things}, and there {'is' if most == 1 else 'are'} {most}"
        raise PlacedFault(request.at("of"), message, f"write at most {most}" if most > 1 else "use more rows")


def _cut(request: Request) -> Cut | None:
    declared, faults = request.declared, request.faults
    if declared.share is not None:
        first, last = (
            _fraction(value, (*request.path, "share", place), request) for place, value in enumerate(declared.share)
        )
        if first is None or last is None:
            return None
        if last < first:
            message = f"this share ends before it begins: {first} to {last}"
            raise PlacedFault((*request.path, "share"), message, f"write `[{last}, {first}]`")
        return Share(first, last)
    if declared.fold is None or declared.of is None:
        return None
    of = integer(declared.of, request.at("of"), request.scalars, faults, 2)
    fold = integer(declared.fold, request.at("fold"), request.scalars, faults, 0)
    if of is None or fold is None:
        return None
    if fold >= of:
        message = f"there is no fold {fold} of {of}"
        raise PlacedFault(request.at("fold"), message, f"folds count from 0: write 0 to {of - 1}")
    return Fold(fold, of, declared.held_out)


def _fraction(value: object, path: ConfigPath, request: Request) -> Decimal | None:
    found = number(value, path, request.scalars, request.faults)
    if found is None:
        return None
    if isinstance(found, bool) or not 0 <= found <= 1:
        raise PlacedFault(path, f"expected a fraction from 0 to 1, found {found!r}", "write 0.8 for 80 percent")
    return Decimal(repr(found))


def _range(request: Request) -> tuple[int | None, int | None]:
    declared = request.declared
    start, end = (
        None if value is None else integer(value, request.at(key), request.scalars, request.faults, 0)
        for key, value in (("from", declared.start), ("to", declared.end))
    )
    return start, end


def _checked_range(bounds: tuple[int | None, int | None], rows: int, request: Request) -> tuple[int, int]:
    start, end = bounds[0] or 0, rows if bounds[1] is None else bounds[1]
    where = "" if request.declared.where is None else " that meet the condition"
    there = f"there are {rows} rows{where}" if rows != 1 else f"there is one row{where}"
    if end > rows:
        raise PlacedFault(request.at("to"), f"`to` is {end}, and {there}", f"write at most {rows}")
    if start >= rows:
        raise PlacedFault(request.at("from"), f"`from` is {start}, and {there}", f"write at most {rows - 1}")
    if end <= start:
        message = f"this range selects no row: it goes from {start} to {end}, without {end}"
        raise PlacedFault(request.at("to"), message, f"write more than {start}")
    return start, end


def _where(text: str, request: Request) -> Selection:
    path = request.at("where")
    try:
        table = request.table()

        def column(name: str) -> tuple[str, Kind] | None:
            found = _column(name, table, request)
            return None if found is None else (found, table.kind(found))

        condition = compile_condition(text, Names(table.file, table.names, column, request.scalars))
        bits = _bits(condition, table, request)
    except LanguageError as error:
        raise PlacedFault.within(path, error) from error
    except FileFault as fault:
        raise PlacedFault(path, fault.message, fault.hint) from fault
    found = selection_of(bits, request.rows)
    if found.samples == 0:
        message = f"none of the {request.rows} rows meets this condition"
        raise PlacedFault(path, message, _held(condition.columns, table))
    return found


def _held(columns: Sequence[str], table: Table) -> str:
    """What a column of a condition holds that no row meets: of the first text column, else of the first."""
    texts = [name for name in columns if table.kind(name) == "text"]
    name = (texts or list(columns))[0]
    cells = next(table.blocks([name]))[name]
    values = sorted(set(cells.values[~cells.missing].tolist()))
    if texts:
        return f"`{name}` holds {listing(map(repr, values), 5)}"
    return f"`{name}` holds {values[0]} to {values[-1]}" if values else f"`{name}` has no values"


def _bits(condition: Condition, table: Table, request: Request) -> numpy.ndarray[tuple[int], numpy.dtype[numpy.uint8]]:
    """A bit for each row of the file in which the condition holds."""
    bits = numpy.zeros(-(-request.rows // 8), dtype=numpy.uint8)
    rest: Mask = numpy.empty(0, dtype=bool)
    start = rows = 0
    for block in table.blocks(condition.columns):
        held = condition.holds(block)
        rows += len(held)
        if rows > request.rows:
            break
        joined = numpy.concatenate([rest, held])
        whole = len(joined) // 8 * 8
        bits[start // 8 : (start + whole) // 8] = packed(joined[:whole])
        start, rest = start + whole, joined[whole:]
    if rows != request.rows:
        message = f"{table.file} has {rows:,} rows or more, and its header says {request.rows:,}"
        raise FileFault(message, "write the file again")
    if len(rest):
        bits[start // 8] = packed(rest)[0]
    return bits


def _column(name: str, table: Table, request: Request) -> str | None:
    """The column of the table that a name means: its own, or that of a batch column."""
    if name in table.names:
        return name
    return request.bound.get(name)


def _labels(request: Request, key: str, kept: Selection) -> Labels | None:
    name = getattr(request.declared, key)
    if name is None:
        return None
    path = request.at(key)
    try:
        table = request.table()
        column = _column(name, table, request)
        if column is None:
            hint = did_you_mean(name, [*table.names, *request.bound], f"it has {listing(table.names)}")
            raise FileFault(f"{table.file} has no column `{name}`", hint)
        kind = table.kind(column)
        needed = kept.samples * LABEL_BYTES * (4 if kind == "text" else 1)
        if needed > request.memory:
            size, available = readable_bytes(needed), readable_bytes(request.memory)
            message = f"`{key}` of {kept.samples:,} rows needs {size}, but only {available} are available"
            raise FileFault(message, "raise the limit with --max-memory, or split the file once")
        return labels_of(table, column, kind, kept)
    except FileFault as fault:
        raise PlacedFault(path, fault.message, fault.hint) from fault


def _part(cut: Cut, seed: int, rows: int, classes: Labels | None, groups: Labels | None) -> Part:
    if groups is not None:
        return cut_groups(cut, seed, groups.numbers, None if classes is None else classes.numbers)
    order = Order(seed, rows)
    return cut_rows(cut, order) if classes is None else cut_strata(cut, order, classes.numbers)


def _assembled(part: Part, kept: Selection) -> Selection:
    """The rows of a part of the kept rows."""
    bits = numpy.zeros(-(-kept.rows // 8), dtype=numpy.uint8)
    sample = 0
    for start, end in blocks_of(kept.rows):
        mask = kept.mask(start, end)
        count = int(mask.sum())
        mask[mask] = part(sample, sample + count)
        bits[start // 8 : -(-end // 8)] = packed(mask)
        sample += count
    return selection_of(bits, kept.rows)


assert AT_ONCE % 8 == 0, "blocks begin at whole bytes of bits"


def _within(kept: Selection, start: int, end: int) -> Selection:
    """The kept rows from number `start` to `end - 1`."""
    if kept.is_range:
        return selected_range(kept.rows, kept.start + start, kept.start + end)
    first, last = kept.row(start), kept.row(end - 1)
    bits = numpy.zeros(-(-kept.rows // 8), dtype=numpy.uint8)
    for low, high in blocks_of(kept.rows):
        rows = numpy.arange(low, high)
        bits[low // 8 : -(-high // 8)] = packed(kept.mask(low, high) & (rows >= first) & (rows <= last))
    return selection_of(bits, kept.rows)


def _check_single_rows(classes: Labels, groups: Labels | None, request: Request) -> None:
    """Warn of classes that cannot be in two parts."""
    sizes = numpy.bincount(classes.numbers)
    single = numpy.flatnonzero(sizes == 1).tolist()
    if single and groups is None:
        shown = listing([f"`{classes.names[number]}`" for number in single], 3)
        noun = f"the class {shown} has" if len(single) == 1 else f"the classes {shown} have"
        message = f"class-of-one-row: {noun} one row, which only one part can have"
        request.faults.warn(request.at("stratify"), message, "add rows, or leave the class out with `where`")


def _spread(classes: Labels, part: Part) -> tuple[ClassCount, ...]:
    inside = part(0, len(classes.numbers))
    totals = numpy.bincount(classes.numbers, minlength=len(classes.names))
    selected = numpy.bincount(classes.numbers[inside], minlength=len(classes.names))
    return tuple(map(ClassCount, classes.names, selected.tolist(), totals.tolist()))
