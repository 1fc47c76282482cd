"""The source of a declared tensor's values: a number, a list, an initialiser, an expression or a file."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import torch

from runner.catalogue import initialisers
from runner.config import Document, InitCall, InitExpression, TensorDeclaration
from runner.faults import PlacedFault
from runner.language.text.arithmetic import Names
from runner.language.text.faults import LanguageError, place_of
from runner.language.text.scalars import attributes_in, names_in
from runner.optim.arguments import Scope, argument_value, integer, scalar
from runner.optim.plans import Path
from runner.plan.data.dtypes import Number
from runner.plan.data.files import FileFault, describe, open_array, table_names
from runner.plan.data.reading.source_tables import check_keys, dialect_of
from runner.plan.data.tables.columns import expanded
from runner.plan.data.tables.conversions import Reading
from runner.plan.streams import stream_seed
from runner.plan.tensors.initial import Computed, Drawn, Fill, Initial, Listed, Loaded

_MOST_DIMENSIONS = 64  # torch's own bound


@dataclass(frozen=True, slots=True)
class DeclarationContext:
    """The context of tensor declarations."""

    document: Document
    scalars: Names
    default_dtype: torch.dtype
    seed: int
    allowed: tuple[FilePath, ...]
    limit: int  # maximum bytes of a tensor
    tensors: frozenset[str]  # every declared name
    numbers: frozenset[str] = frozenset()  # the names that hyperparameters and rules read
    columns: frozenset[str] = frozenset()  # "train.x": every column of a data source

    def floating(self, declared: TensorDeclaration, path: Path) -> bool:
        """Whether a tensor of a table is floating whatever the table holds."""
        if declared.dtype is None:
            return path[0] == "parameters" and self.default_dtype.is_floating_point
        return bool(getattr(torch, declared.dtype).is_floating_point)


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a tensor's values, with the shape and kind of number that it determines."""

    init: Initial
    shape: tuple[int, ...] | None  # None: any
    kind: torch.dtype


def declared_shape(lengths: Sequence[int | float | str], path: Path, scalars: Names) -> tuple[int, ...]:
    """The shape in a declaration.

    Raises:
        PlacedFault: a length is negative or not an integer, or there are too many.
    """
    if len(lengths) > _MOST_DIMENSIONS:
        raise PlacedFault(path, f"a shape of {len(lengths)} dimensions", f"tensors have at most {_MOST_DIMENSIONS}")
    shape = []
    for position, length in enumerate(lengths):
        count = integer(length, (*path, position), scalars)
        if count < 0:
            shown = f"`{length}` is {count}" if isinstance(length, str) else f"found {count}"
            raise PlacedFault((*path, position), f"a length cannot be negative, {shown}", "write 0 or more")
        shape.append(count)
    return tuple(shape)


def source_of(name: str, declared: TensorDeclaration, path: Path, context: DeclarationContext) -> Source:
    """The source of a declared tensor's values; for a file this reads the header.

    Raises:
        PlacedFault: an expression, an argument or a file is invalid.
    """
    at = init_path(path, context.document)
    if declared.file is not None:
        return _loaded(declared, declared.file, path, context)
    match declared.init:
        case None:
            return Source(Fill(0), None, context.default_dtype)
        case tuple() as nested:
            return _listed(nested, at, context.scalars)
        case InitExpression(expression=text):
            return _computed(text, (*at, "expression"), context)
        case InitCall() as call:
            return _drawn(name, call, declared.stacked, path, context)
        case bool() as value:
            return Source(Fill(value), None, torch.bool)
        case value:
            return Source(Fill(scalar(value, at, context.scalars)), None, context.default_dtype)


def init_path(path: Path, document: Document) -> Path:
    """The path of a tensor's values: its `init`, or the tensor itself in the short form."""
    written = (*path, "init")
    return path if document.node(written) is None else written


def _loaded(declared: TensorDeclaration, text: str, path: Path, context: DeclarationContext) -> Source:
    at = (*path, "file")
    folders = (*map(FilePath, context.document.sandbox.folders), *context.allowed)
    try:
        check_keys(declared, text, path)
        reading = Reading(dialect_of(declared), floating=context.floating(declared, path))
        array = open_array(text, context.document.folder(at), folders, None, reading)
        if array.is_table:
            names = table_names(array, context.limit)
            array = replace(array, columns=expanded(declared.columns, names, (), array.path.name))
        elif declared.columns is not None:
            array = open_array(text, context.document.folder(at), folders, declared.columns)
        shape, kind = describe(array, context.limit)
    except FileFault as fault:
        raise PlacedFault((*path, "columns") if fault.about_columns else at, fault.message, fault.hint) from fault
    dtype_path = at if declared.dtype is None else (*path, "dtype")
    return Source(Loaded(array, at, dtype_path), shape, kind)


def _listed(nested: Sequence[Any], path: Path, scalars: Names) -> Source:
    shape: list[int] = []
    inner: Any = nested
    while isinstance(inner, tuple):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    numbers = tuple(_flatten(nested, path, scalars))
    if all(isinstance(number, bool) for number in numbers):
        kind = torch.bool if numbers else torch.float64
    else:
        kind = torch.float64 if any(isinstance(number, float) for number in numbers) else torch.int64
    return Source(Listed(numbers), tuple(shape), kind)


def _flatten(nested: Sequence[Any], path: Path, scalars: Names) -> Iterable[Number]:
    for position, element in enumerate(nested):
        if isinstance(element, tuple):
            yield from _flatten(element, (*path, position), scalars)
        else:
            yield scalar(element, (*path, position), scalars)


def _computed(text: str, path: Path, context: DeclarationContext) -> Source:
    try:
        reads = names_in(text)
    except LanguageError as error:
        raise PlacedFault.within(path, error) from None
    for node in attributes_in(text):
        if ast.unparse(node) in context.columns:
            _check_one_meaning(node, text, path, context)
    return Source(Computed(text, path, tuple(sorted(reads & context.tensors))), None, context.default_dtype)


def _check_one_meaning(node: ast.Attribute, text: str, path: Path, context: DeclarationContext) -> None:
    """Check that the name before `.COLUMN` is a data source and nothing else."""
    assert isinstance(node.value, ast.Name)
    name, document = node.value.id, context.document
    for section in ("parameters", "constants"):
        if document.node((section, name)) is not None:
            role, source = document.mark((section, name), key=True), document.mark(("data", name), key=True)
            message = f"`{name}` is a {section.removesuffix('s')} and a data source"
            hint = f"the {section.removesuffix('s')} is at {role}, the source at {source}; rename one of them"
            raise PlacedFault.within(path, LanguageError(message, hint, place_of(node.value, text)))


def _drawn(name: str, call: InitCall, stacked: int | float | str, path: Path, context: DeclarationContext) -> Source:
    entry = initialisers()[call.name]
    table = {argument.name: argument for argument in entry.arguments}
    place, scope = (*path, "init", call.name), Scope(context.scalars)
    arguments: dict[str, Number | str] = {}
    for key, written in call.arguments.items():
        value = argument_value(table[key], written, (*place, key), scope)
        if not isinstance(value, (int, float, str)):
            message = f"`{written}` changes during a run, and initial values are computed before it"
            raise PlacedFault((*place, key), message, "use numbers and scalar constants")
        arguments[key] = value
    leading = integer(stacked, (*path, "stacked"), context.scalars)
    if leading < 0:
        raise PlacedFault(
            (*path, "stacked"), f"`stacked` counts leading dimensions, found {leading}", "write 0 or more"
        )
    seed = stream_seed(context.seed, "init", name)
    return Source(Drawn(entry.name, entry.function, arguments, leading, seed), None, context.default_dtype)
