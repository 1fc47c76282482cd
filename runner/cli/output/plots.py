"""Draws curves in the terminal."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.cli.output.printing import say
from runner.errors import Problem, UsageError
from runner.record.display.styles import wants_color
from runner.text import counted, printable_line, shortened

if TYPE_CHECKING:
    from runner.record.display.curves import Curve

MOST_CURVES = 8
"""The most curves of one plot; readers cannot distinguish more."""

NARROWEST, TALLEST = 30, 24
_WIDEST_NAME = 24
_COLORS = ("blue+", "orange+", "green+", "magenta+", "cyan+", "red+", "yellow", "white")
_LETTERS = "abcdefgh"
_DOTS = "braille"


def plot_curves(curves: Sequence[Curve], *, log: bool, title: str) -> None:
    """Print curves as wide as the terminal.

    In colour all curves are fine lines. Without it, several curves are drawn with a letter each.

    Raises:
        UsageError: plotext is not installed, or no curve has a point to draw.
    """
    plotext = _plotext()
    from runner.record.display.curves import decimated, drawable

    drawn, others = drawable(curves, log=log)
    left_out = drawn[MOST_CURVES:]
    drawn = drawn[:MOST_CURVES]
    size = shutil.get_terminal_size()
    width, height = max(size.columns, NARROWEST), min(max(size.lines - 3, 10), TALLEST)
    color = wants_color(sys.stdout)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, height)
    plotext.limit_size(False, False)
    plotext.title(shortened(printable_line(title), width))
    plotext.xlabel("row")
    if log:
        plotext.yscale("log")
    for number, curve in enumerate(drawn):
        style: dict[str, Any] = {"marker": _DOTS if color or len(drawn) == 1 else _LETTERS[number]}
        if color:
            style["color"] = _COLORS[number]
        _draw(plotext, decimated(curve, width * 2), log, style)
    _mark_rows(plotext, drawn)
    text = plotext.build()
    text = text if color else plotext.uncolorize(text)
    say_plot(text)
    for reason in others:
        say(reason, err=True)
    if left_out:
        say(f"{counted(len(left_out), 'more curve')} not drawn: name fewer columns", err=True)


def say_plot(text: str) -> None:
    """Print a plot; its names are safe for a terminal, and its styles are meant."""
    sys.stdout.write("\n".join(line.rstrip() for line in text.rstrip("\n").split("\n")) + "\n")


def _draw(plotext: Any, curve: Curve, log: bool, style: dict[str, Any]) -> None:
    from runner.record.display.curves import pieces

    labels = itertools.chain([shortened(curve.name, _WIDEST_NAME)], itertools.repeat(None))
    for (rows, values), label in zip(pieces(curve, log=log), labels, strict=False):
        draw = plotext.plot if len(rows) > 1 else plotext.scatter
        draw(rows, values, label=label, **style)


def _mark_rows(plotext: Any, curves: Sequence[Curve]) -> None:
    """Whole numbers of rows on the axis below."""
    first = min(curve.rows[0] for curve in curves)
    last = max(curve.rows[-1] for curve in curves)
    ticks = sorted({round(first + (last - first) * part / 4) for part in range(5)})
    plotext.xticks(ticks, [f"{tick:,}" for tick in ticks])


def _plotext() -> Any:
    try:
        import plotext
    except ImportError as error:
        hint = "install it: `pip install 'steprun[plot]'`"
        raise UsageError(Problem("`steprun plot` needs plotext, which is not installed", hint)) from error
    return plotext
