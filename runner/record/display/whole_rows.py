"""Rows as text, whole: each tensor with its gradient, and a mark at what the step changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from runner.engine.rows import Row
from runner.plan.rows.columns import Column
from runner.plan.rows.slices import slice_names
from runner.record.display.changes import FIRST, Change, Changes
from runner.record.display.styles import BOLD, DIM, PLAIN, styler, wants_color, widest, width_of
from runner.record.display.tensors import LARGEST_WHOLE, MOST_SLICES, Printed, TensorText
from runner.text import counted

WIDEST_LABEL = 28
NARROWEST_LABEL = 12
"""The least room for labels; a longer label has a line of its own."""
GRADIENT = ".grad"
CHANGED = "*"
_STYLES = {None: PLAIN, True: BOLD, False: DIM}
_INDENT = "  "
_INLINE_GRADIENT = f"   {_INDENT}{GRADIENT}  "
_WIDEST_CHANGE = len("  -1.234e-05")


@dataclass(frozen=True, slots=True)
class _Line:
    """A column to print: a weight with its gradient, a value, a norm or state."""

    label: str
    position: int
    gradient: int | None
    always: bool  # whether to print a missing value, as None
    slices: tuple[tuple[int, str], ...]  # number and name of each slice to print, if the tensor is not printed whole
    omitted: int  # slices that are not printed, in the middle


@dataclass(frozen=True, slots=True)
class _Text:
    """A tensor, or a slice of it, as text."""

    texts: list[str]
    changed: bool | None = None  # None: unknown


@dataclass(frozen=True, slots=True)
class _Entry:
    """What stands at a label: a tensor or a slice, and its gradient."""

    label: str
    value: _Text
    gradient: _Text | None = None


class RowPrinter:
    """Prints every row. What a step changed has a `*`, and the change if it is a single number.

    Call it with each row and close it, or use it in a `with` statement.

    Args:
        columns: the columns of the rows.
        stream: the stream to print to.
        width: the width of the terminal in characters; the system's answer by default.
        color: whether to print ANSI styles; by default on a terminal, unless NO_COLOR is set.
        before: called before each printed text, to make room for it.
        shown: the positions of the columns to print; by default all.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        stream: TextIO,
        *,
        width: int | None = None,
        color: bool | None = None,
        before: Callable[[], None] | None = None,
        shown: Sequence[int] | None = None,
    ) -> None:
        self._stream = stream
        self._before = before
        color = wants_color(stream) if color is None else color
        self._text = RowText(columns, width or shutil.get_terminal_size().columns, color, shown)

    def __call__(self, row: Row) -> None:
        """Print a row."""
        if self._before is not None:
            self._before()
        self._stream.write(self._text.text(row) + "\n")

    def close(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class RowText:
    """Rows as text; each row is compared with the one before it.

    Args:
        columns: the columns of the rows.
        width: the width of the terminal in characters.
        color: whether to use ANSI styles.
        shown: the positions of the columns to print; by default all.
        most: the most labels of a row; the number of those left out follows.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        width: int,
        color: bool,
        shown: Sequence[int] | None = None,
        most: int | None = None,
    ) -> None:
        self._styled = styler(color)
        self._most = most
        self._lines = _lines_of(columns, range(len(columns)) if shown is None else sorted(shown))
        self._leading = [len(column.leading) for column in columns]
        labels = [line.label for line in self._lines]
        large = [line for line in self._lines if (columns[line.position].elements or 0) > LARGEST_WHOLE]
        labels += [name for line in large for _, name in line.slices]
        labels += [GRADIENT] * any(line.gradient is not None for line in self._lines)
        room = min(WIDEST_LABEL, max(NARROWEST_LABEL, width // 3))
        self._label_width = min(max(map(len, labels), default=0), room)
        self._inner = width - len(_INDENT) - self._label_width - 2
        self._tensors = TensorText(self._inner, self._styled)
        self._printed: dict[int, Printed] = {}  # by column
        self._changes = Changes([column.role in ("weight", "gradient") for column in columns])

    def text(self, row: Row) -> str:
        """A row as lines no wider than the terminal, without a final line break."""
        heading = row.path if row.step in row.path else f"{row.path}  {row.step}".strip()
        return "\n".join([f"{self._styled(f'row {row.number}', BOLD)}  {heading}", *self._body(row)])

    def _body(self, row: Row) -> Iterator[str]:
        changes = self._changes.of(row)
        shown = [line for line in self._lines if line.always or row.values[line.position] is not None]
        entries = [entry for line in shown[: self._most] for entry in self._entries(line, row, changes)]
        left = max((widest(entry.value.texts) for entry in entries if entry.gradient is not None), default=0)
        room = self._inner - left - len(_INLINE_GRADIENT)
        for entry in entries:
            value, gradient = entry.value, entry.gradient
            if gradient is None:
                yield from self._block(entry.label, value)
            elif len(value.texts) == len(gradient.texts) == 1 and widest(gradient.texts) <= room:
                yield from self._block(entry.label, value, left, gradient)
            else:
                yield from self._block(entry.label, value)
                yield from self._block(GRADIENT, gradient)
        if len(shown) > len(shown[: self._most]):
            yield self._styled(f"{_INDENT}… {len(shown) - len(shown[: self._most]):,} more …", DIM)

    def _entries(self, line: _Line, row: Row, changes: Sequence[Change]) -> Iterator[_Entry]:
        """Yields a line as text, and then its slices if the tensor is not printed whole."""
        left = self._formatted(line.position, row)
        right = None if line.gradient is None else self._formatted(line.gradient, row)
        change = changes[line.position]
        other = FIRST if line.gradient is None else changes[line.gradient]
        yield _Entry(
            line.label,
            self._with_change(left.texts, change),
            None if right is None else self._with_change(right.texts, other),
        )
        if not left.slices:
            return
        for place, (number, name) in enumerate(line.slices):
            if line.omitted and place == MOST_SLICES // 2:
                yield _Entry("", _Text([self._styled(f"… {counted(line.omitted, 'slice')} …", DIM)]))
            yield _Entry(
                name,
                _Text(left.slices[number], change.differs and None),  # of a tensor that differs, some slices may not
                _Text(right.slices[number], other.differs and None) if right is not None and right.slices else None,
            )

    def _with_change(self, texts: list[str], change: Change) -> _Text:
        if change.by and len(texts) == 1 and width_of(texts[0]) + _WIDEST_CHANGE <= self._inner:
            texts = [f"{texts[0]}  {change.by}"]
        return _Text(texts, change.differs)

    def _block(self, label: str, value: _Text, left: int = 0, gradient: _Text | None = None) -> Iterator[str]:
        """The lines of a tensor after its label, with its gradient in the same line if it is given."""
        styled, style = self._styled, _STYLES[value.changed]
        mark = f"{CHANGED} " if value.changed else _INDENT
        if len(label) > self._label_width:
            yield styled(mark + label, style)
            label, mark = "", _INDENT
        for text in value.texts:
            line = styled(f"{mark}{label:<{self._label_width}}  {text}", style)
            if gradient is not None:
                other = f"   {CHANGED if gradient.changed else ' '} {GRADIENT}  {gradient.texts[0]}"
                line += " " * (left - width_of(text)) + styled(other, _STYLES[gradient.changed])
            yield line
            label, mark = "", _INDENT

    def _formatted(self, position: int, row: Row) -> Printed:
        value = row.values[position]
        if value is None:
            return self._tensors.missing()
        known = self._printed.get(position)
        if known is None or known.value is not value:
            known = self._printed[position] = self._tensors.text(value, self._leading[position])
        return known


def _lines_of(columns: Sequence[Column], shown: Sequence[int]) -> list[_Line]:
    positions = {columns[position].name: position for position in shown}
    weights = {columns[position].name for position in shown if columns[position].role == "weight"}
    lines = []
    for position in shown:
        column = columns[position]
        if column.role == "gradient" and column.name.removesuffix(GRADIENT) in weights:
            continue  # printed with its weight
        gradient = positions.get(f"{column.name}{GRADIENT}") if column.role == "weight" else None
        slices = _slices_of(column)
        omitted = max(0, len(slices) - MOST_SLICES)
        if omitted:
            slices = slices[: MOST_SLICES // 2] + slices[-MOST_SLICES // 2 :]
        always = column.role in ("weight", "gradient")
        lines.append(_Line(column.name, position, gradient, always, tuple(slices), omitted))
    return lines


def _slices_of(column: Column) -> list[tuple[int, str]]:
    """The number and the name of each slice that the log records."""
    names = enumerate(slice_names(column.name, column.leading))
    return [(number, name) for number, name in names if column.only is None or name in column.only]
