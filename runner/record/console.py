"""Prints rows to a terminal: small tensors whole, large ones as shape and statistics, also of their slices."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

import torch._tensor_str
from torch import Tensor

from runner.engine.rows import Row, Rows
from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column
from runner.plan.rows.slices import slice_names
from runner.record.rows.summary import Summary, summarize, summarize_slices
from runner.text import counted

LARGEST_WHOLE = 64
"""The most elements of a tensor that is printed whole, if it takes at most `TALLEST_WHOLE` lines."""
TALLEST_WHOLE = 8
MOST_SLICES = 16
"""The most slices of a stacked tensor that are printed; of more, the first and the last of them."""
WIDEST_LABEL = 28

BOLD, DIM, RED = "1", "2", "31"
GRADIENT = ".grad"
_INDENT = "  "
_INLINE_GRADIENT = f"   {GRADIENT}  "


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
class _Entry:
    """A tensor, or a slice of it, as text."""

    label: str
    texts: list[str]
    gradient: list[str] | None = None


@dataclass(frozen=True, slots=True)
class _Printed:
    """A tensor as text; a step does not change most tensors."""

    value: Tensor | None
    texts: list[str]
    slices: list[list[str]]  # of all slices; empty if the tensor is printed whole


class RowPrinter:
    """Prints the first `first` and the last `last` rows, and the number of rows between them.

    Call it with each row and close it, or use it in a `with` statement.

    Args:
        columns: the columns of the rows.
        stream: the stream to print to.
        width: the width of the terminal in characters; the system's answer by default.
        color: whether to print ANSI styles; by default on a terminal, unless NO_COLOR is set.
        first, last: numbers of rows; `first` None prints every row.
        before: called before each printed text, to make room for it.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        stream: TextIO,
        *,
        width: int | None = None,
        color: bool | None = None,
        first: int | None = 12,
        last: int = 2,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._before = before
        self._width = width or shutil.get_terminal_size().columns
        self._color = wants_color(stream) if color is None else color
        self._first = first
        self._last_rows: deque[Row] = deque(maxlen=last)
        self._seen = 0
        self._lines = _lines_of(columns)
        self._leading = [len(column.leading) for column in columns]
        labels = [line.label for line in self._lines]
        large = [line for line in self._lines if (columns[line.position].elements or 0) > LARGEST_WHOLE]
        labels += [name for line in large for _, name in line.slices]
        labels += [GRADIENT] * any(line.gradient is not None for line in self._lines)
        self._label_width = min(max(map(len, labels), default=0), WIDEST_LABEL)
        self._printed: dict[int, _Printed] = {}  # by column

    def __call__(self, row: Row | Rows) -> None:
        """Print a row, or keep it as one of the last rows; of rows that were computed together, each that matters."""
        if isinstance(row, Rows):
            self._together(row)
        else:
            self._one(row)

    def _together(self, rows: Rows) -> None:
        first = len(rows) if self._first is None else min(len(rows), max(0, self._first - self._seen))
        last = max(first, len(rows) - (self._last_rows.maxlen or 0))
        for index in (*range(first), *range(last, len(rows))):
            self._one(rows.row(index))
        self._seen += last - first

    def _one(self, row: Row) -> None:
        self._seen += 1
        if self._first is None or self._seen <= self._first:
            self._print(self.text(row))
        else:
            self._last_rows.append(row)

    def close(self) -> None:
        """Print the last rows, after a line with the number of omitted rows."""
        left_out = self._seen - (self._first or 0) - len(self._last_rows)
        if self._last_rows and left_out:
            self._print(self._styled(f"… {left_out:,} {'row' if left_out == 1 else 'rows'} …", DIM))
        for row in self._last_rows:
            self._print(self.text(row))
        self._last_rows.clear()
        self._stream.flush()

    def _print(self, text: str) -> None:
        if self._before is not None:
            self._before()
        self._stream.write(text + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def text(self, row: Row) -> str:
        """A row as lines no wider than the terminal, without a final line break."""
        heading = row.path if row.step in row.path else f"{row.path}  {row.step}".strip()
        return "\n".join([f"{self._styled(f'row {row.number}', BOLD)}  {heading}", *self._body(row)])

    def _body(self, row: Row) -> Iterator[str]:
        inner = self._width - len(_INDENT) - self._label_width - 2
        shown = [line for line in self._lines if line.always or row.values[line.position] is not None]
        entries = [entry for line in shown for entry in self._entries(line, row, inner)]
        widest = max((_widest(entry.texts) for entry in entries if entry.gradient is not None), default=0)
        room = inner - widest - len(_INLINE_GRADIENT)
        for entry in entries:
            texts, gradient = entry.texts, entry.gradient
            if gradient is None:
                yield from self._block(entry.label, texts)
            elif len(texts) == len(gradient) == 1 and _widest(gradient) <= room:
                padding = " " * (inner - room - len(_INLINE_GRADIENT) - _width(texts[0]))
                inline = self._styled(GRADIENT, DIM) + "  " + gradient[0]
                yield from self._block(entry.label, [f"{texts[0]}{padding}   {inline}"])
            else:
                yield from self._block(entry.label, texts)
                yield from self._block(self._styled(GRADIENT, DIM), gradient)

    def _entries(self, line: _Line, row: Row, width: int) -> Iterator[_Entry]:
        """Yields a line as text, and then its slices if the tensor is not printed whole."""
        left = self._formatted(line.position, row, width)
        right = None if line.gradient is None else self._formatted(line.gradient, row, width)
        yield _Entry(line.label, left.texts, None if right is None else right.texts)
        if not left.slices:
            return
        for place, (number, name) in enumerate(line.slices):
            if line.omitted and place == MOST_SLICES // 2:
                yield _Entry("", [self._styled(f"… {counted(line.omitted, 'slice')} …", DIM)])
            yield _Entry(
                name, left.slices[number], right.slices[number] if right is not None and right.slices else None
            )

    def _block(self, label: str, texts: list[str]) -> Iterator[str]:
        if _width(label) > self._label_width:
            yield _INDENT + label
            label = ""
        for text in texts:
            yield f"{_INDENT}{label}{' ' * (self._label_width - _width(label))}  {text}"
            label = ""

    def _formatted(self, position: int, row: Row, width: int) -> _Printed:
        value = row.values[position]
        if value is None:
            return _Printed(None, [self._styled("None", DIM)], [])
        known = self._printed.get(position)
        if known is None or known.value is not value:
            known = self._printed[position] = self._print_tensor(value, self._leading[position], width)
        return known

    def _print_tensor(self, value: Tensor, leading: int, width: int) -> _Printed:
        detached = value.detach()
        whole = _whole(detached, width)
        if whole is not None:
            return _Printed(value, whole, [])
        slices = summarize_slices(detached, leading) if leading else []
        texts = self._folded(self._facts(summarize(detached)), width)
        return _Printed(value, texts, [self._folded(self._facts(summary)[1:], width) for summary in slices])

    def _facts(self, summary: Summary) -> list[str]:
        facts = [f"{tuple(summary.shape)} {dtype_name(summary.dtype)}"]
        for name in ("mean", "std", "min", "max", "norm"):
            number = getattr(summary, name)
            if number is not None:
                facts.append(f"{self._styled(name, DIM)} {number:.5g}")
        if summary.zeros:
            facts.append(f"{self._styled('zeros', DIM)} {summary.zeros:,}")
        facts.extend(
            self._styled(f"{name} {count:,}", RED)
            for name, count in (("nan", summary.nan), ("inf", summary.inf))
            if count
        )
        return facts

    def _folded(self, facts: list[str], width: int) -> list[str]:
        texts = [facts[0]]
        for fact in facts[1:]:
            if _width(texts[-1]) + 2 + _width(fact) <= width:
                texts[-1] += "  " + fact
            else:
                texts.append(fact)
        return texts

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._color else text


def _whole(value: Tensor, width: int) -> list[str] | None:
    """A tensor with all its elements, as lines; None if it is too large."""
    if value.numel() <= LARGEST_WHOLE:
        value = value.cpu()
        for asked in (width, width * 3 // 4):  # torch may print wider lines: it ignores the point of `0.`
            with torch._tensor_str.printoptions(linewidth=asked):
                texts = repr(value).splitlines()
            if _widest(texts) <= width and len(texts) <= TALLEST_WHOLE:
                return texts
    return None


def wants_color(stream: TextIO) -> bool:
    """Whether to print styles: `stream` is a terminal, TERM is not `dumb`, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _lines_of(columns: Sequence[Column]) -> list[_Line]:
    positions = {column.name: position for position, column in enumerate(columns)}
    weights = {column.name for column in columns if column.role == "weight"}
    lines = []
    for position, column in enumerate(columns):
        if column.role == "gradient" and column.name.removesuffix(".grad") in weights:
            continue  # printed with its weight
        gradient = positions.get(f"{column.name}.grad") if column.role == "weight" else None
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


def _widest(texts: Sequence[str]) -> int:
    return max(map(_width, texts))


def _width(text: str) -> int:
    """The number of visible characters of a text with ANSI styles."""
    width = len(text)
    start = text.find("\x1b[")
    while start >= 0:
        end = text.index("m", start) + 1
        width -= end - start
        start = text.find("\x1b[", end)
    return width
