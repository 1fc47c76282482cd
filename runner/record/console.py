"""Prints rows to a terminal: small tensors whole, large ones as shape and statistics."""

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

from runner.engine.rows import Row
from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column
from runner.record.rows.summary import Summary, summarize

LARGEST_WHOLE = 64
"""The most elements of a tensor that is printed whole, if it takes at most `TALLEST_WHOLE` lines."""
TALLEST_WHOLE = 8
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
        labels = [line.label for line in self._lines]
        labels += [GRADIENT] * any(line.gradient is not None for line in self._lines)
        self._label_width = min(max(map(len, labels), default=0), WIDEST_LABEL)
        self._texts: dict[int, tuple[Tensor, list[str]]] = {}  # by column: a step does not change most tensors

    def __call__(self, row: Row) -> None:
        """Print a row, or keep it as one of the last rows."""
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
        left = {line.position: self._formatted(line.position, row, inner) for line in shown}
        paired = [line for line in shown if line.gradient is not None]
        room = inner - max((_widest(left[line.position]) for line in paired), default=0) - len(_INLINE_GRADIENT)
        for line in shown:
            texts = left[line.position]
            if line.gradient is None:
                yield from self._block(line.label, texts)
                continue
            gradient = self._formatted(line.gradient, row, inner)
            if len(texts) == len(gradient) == 1 and _widest(gradient) <= room:
                padding = " " * (inner - room - len(_INLINE_GRADIENT) - _width(texts[0]))
                inline = self._styled(GRADIENT, DIM) + "  " + gradient[0]
                yield from self._block(line.label, [f"{texts[0]}{padding}   {inline}"])
            else:
                yield from self._block(line.label, texts)
                yield from self._block(self._styled(GRADIENT, DIM), gradient)

    def _block(self, label: str, texts: list[str]) -> Iterator[str]:
        if _width(label) > self._label_width:
            yield _INDENT + label
            label = ""
        for text in texts:
            yield f"{_INDENT}{label}{' ' * (self._label_width - _width(label))}  {text}"
            label = ""

    def _formatted(self, position: int, row: Row, width: int) -> list[str]:
        value = row.values[position]
        if value is None:
            return [self._styled("None", DIM)]
        known = self._texts.get(position)
        if known is None or known[0] is not value:
            known = self._texts[position] = (value, self._whole_or_summary(value.detach(), width))
        return known[1]

    def _whole_or_summary(self, value: Tensor, width: int) -> list[str]:
        if value.numel() <= LARGEST_WHOLE:
            value = value.cpu()
            for asked in (width, width * 3 // 4):  # torch may print wider lines: it ignores the point of `0.`
                with torch._tensor_str.printoptions(linewidth=asked):
                    texts = repr(value).splitlines()
                if _widest(texts) <= width and len(texts) <= TALLEST_WHOLE:
                    return texts
        return self._folded(self._facts(summarize(value)), width)

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
        lines.append(_Line(column.name, position, gradient, always=column.role in ("weight", "gradient")))
    return lines


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
