"""Columns of data sources in initial expressions: reductions read them in blocks, other operations hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, fx

from runner.language.inference.inference import TooLarge, readable_bytes

STORED = "stored"
"""The key of a node's meta with the column that it stands for, as long as its values were not read."""

REDUCTIONS = frozenset({"amax", "amin", "max", "mean", "min", "nanmean", "nansum", "std", "sum", "var"})
"""The operations that read a column in blocks, if they reduce over its samples."""


class StoredColumn(Protocol):
    """The whole column of a data source, which may be larger than memory."""

    name: str  # `SOURCE.COLUMN`
    example: Tensor  # of the column's shape and dtype, on the meta device
    bytes: int  # of the column in memory, with those of reading it
    limit: int  # the most bytes that may be held

    def few(self) -> Tensor:
        """A tensor of two samples, whose reductions have the shape and dtype of those of the column."""
        ...

    def whole(self) -> Tensor:
        """Reads all values."""
        ...

    def reduced(self, operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], like: Any) -> Any:
        """Computes one of `REDUCTIONS` in blocks.

        Args:
            args, kwargs: the arguments besides the column.
            like: what the operation gives for `few`.
        Returns:
            the values in the shape and dtype of `like`; None if the operation needs the whole column.
        """
        ...


def stored_in(arguments: Any) -> list[fx.Node]:
    """The nodes of stored columns among the arguments of an operation."""
    found: dict[fx.Node, None] = {}
    fx.node.map_arg(arguments, lambda node: found.setdefault(node) if STORED in node.meta else None)
    return list(found)


def from_blocks(
    operands: Sequence[fx.Node],
    target: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    infer: Callable[[], Any],
) -> Any:
    """The result of an operation that reduces a stored column; else None, and its operands have their values.

    Args:
        operands: the stored columns among its arguments, at least one.
        target: the name of a method, or a function.
        infer: runs the operation on the examples of its operands.
    Raises:
        TooLarge: a column does not fit in memory.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if name in REDUCTIONS and args and list(operands) == [args[0]] and not _nodes((args[1:], kwargs)):
        operand = operands[0]
        column: StoredColumn = operand.meta[STORED]
        operand.meta["example"] = column.few()
        try:
            like = infer()
        except Exception:
            operand.meta["example"] = column.example
            infer()  # raises the same with the column's own shape in its message
            raise
        operand.meta["example"] = column.example
        reduced = column.reduced(name, args[1:], kwargs, like)
        if reduced is not None:
            return reduced
    for operand in operands:
        hold(operand)
    return None


def hold(operand: fx.Node) -> None:
    """Reads the values of a stored column into the example of its node.

    Raises:
        TooLarge: they do not fit in memory.
    """
    column: StoredColumn = operand.meta[STORED]
    if column.bytes > column.limit:
        size, available = readable_bytes(column.bytes), readable_bytes(column.limit)
        raise TooLarge(
            f"`{column.name}` is held in memory here and needs {size}, but only {available} are available; "
            f"`mean`, `std`, `var`, `sum`, `min` and `max` do not hold it: write for instance `{column.name}.mean(0)`"
        )
    operand.meta["example"] = column.whole()
    del operand.meta[STORED]


def _nodes(arguments: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(arguments, found.append)
    return found
