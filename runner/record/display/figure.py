"""Draws curves as one static SVG, without scripts, fonts or other files."""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.record.display.curves import Curve, decimated, pieces

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 16, 44
_LEGEND_LINE = 18
_STRETCHES = 600
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The colours of Okabe and Ito, which colour-blind readers can distinguish."""
_DASHES = ("", "6 3", "2 3")


@dataclass(frozen=True, slots=True)
class Axis:
    """How numbers become places on one axis."""

    low: float  # of the numbers, or of their logarithms
    high: float
    start: float  # where `low` is, in pixels
    end: float
    log: bool = False

    def place(self, number: float) -> float:
        """Where a number is, in pixels."""
        value = math.log10(number) if self.log else number
        share = (value / 2 - self.low / 2) / self.half
        return self.start + share * (self.end - self.start)

    @property
    def half(self) -> float:
        """Half of the distance between the ends, which is finite where the distance is not."""
        return self.high / 2 - self.low / 2

    def ticks(self) -> list[float]:
        """Round numbers between the ends."""
        if self.log:
            decades = range(math.ceil(self.low), math.floor(self.high) + 1, max(1, round(self.half / 3)))
            if len(decades) > 1:
                return [10.0**decade for decade in decades]
            return [10**self.low, 10**self.high]
        step = _round_step(self.half / 2.5)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


class Figure:
    """Curves over the rows of a run; a notebook shows it, and `svg` is its text."""

    def __init__(self, curves: Sequence[Curve], *, log: bool = False) -> None:
        self.svg = _svg([decimated(curve, _STRETCHES) for curve in curves], log)
        self._names = [curve.name for curve in curves]

    def save(self, path: str | Path) -> None:
        """Write the figure to an SVG file."""
        Path(path).write_text(self.svg + "\n", encoding="utf-8")

    def _repr_html_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Figure of {', '.join(self._names)}>"


def _svg(curves: Sequence[Curve], log: bool) -> str:
    drawn = [pieces(curve, log=log) for curve in curves]
    rows = [row for curve in drawn for piece in curve for row in piece[0]]
    values = [value for curve in drawn for piece in curve for value in piece[1]]
    height = HEIGHT + _LEGEND_LINE * len(curves)
    across = _axis(rows, _LEFT, WIDTH - _RIGHT, log=False)
    up = _axis(values, HEIGHT - _BOTTOM, _TOP, log=log)
    title = html.escape(", ".join(curve.name for curve in curves))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{title}" font-family="sans-serif" font-size="12" fill="currentColor">',
        f"<title>{title}</title>",
        *_grid(across, up),
    ]
    for number, (curve, found) in enumerate(zip(curves, drawn, strict=True)):
        color, dash = _COLORS[number % len(_COLORS)], _DASHES[number // len(_COLORS) % len(_DASHES)]
        stroke = f'stroke="{color}" stroke-width="1.5" fill="none"' + (f' stroke-dasharray="{dash}"' if dash else "")
        parts += [_piece(piece, across, up, stroke, color) for piece in found]
        at = HEIGHT + _LEGEND_LINE * number + 4
        parts.append(f'<line x1="{_LEFT}" y1="{at}" x2="{_LEFT + 24}" y2="{at}" {stroke}/>')
        parts.append(f'<text x="{_LEFT + 32}" y="{at + 4}">{html.escape(curve.name)}</text>')
    return "".join([*parts, "</svg>"])


def _piece(piece: tuple[list[float], list[float]], across: Axis, up: Axis, stroke: str, color: str) -> str:
    points = [(across.place(row), up.place(value)) for row, value in zip(*piece, strict=True)]
    if len(points) == 1:
        return f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5" fill="{color}"/>'
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" {stroke}/>'


def _grid(across: Axis, up: Axis) -> list[str]:
    line = 'stroke="currentColor" stroke-opacity="0.15"'
    parts = []
    for number in up.ticks():
        y = up.place(number)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}" {line}/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number:.4g}</text>')
    for number in across.ticks():
        x = across.place(number)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{number:,.6g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - _BOTTOM + 34}" text-anchor="middle">row</text>')
    return parts


def _axis(numbers: Sequence[float], start: float, end: float, *, log: bool) -> Axis:
    low, high = min(numbers), max(numbers)
    if log:
        low, high = math.log10(low), math.log10(high)
    tiny, largest = sys.float_info.min, sys.float_info.max
    if high / 2 - low / 2 <= max(abs(high) * 1e-12, tiny):  # one number: make room on both sides
        room = abs(high) * 0.1 if abs(high) > tiny else 1.0
        low, high = max(low - room, -largest), min(high + room, largest)
    return Axis(low, high, start, end, log)


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next((power * factor for factor in (1, 2, 5) if power * factor >= step), power * 10)
