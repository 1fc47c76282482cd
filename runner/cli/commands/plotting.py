"""`steprun plot`: curves of a recorded run in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.cli.input.declarations import argument
from runner.cli.input.options import FaultFormat, examples, names_in
from runner.cli.input.runs import run_path


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun plot runs/digits/latest",
            "steprun plot runs/digits/latest 'test.*' --log",
            "steprun plot sweeps/linear/latest#17 loss,'*.grad'",
        ),
        short_help="Draw curves of a run in the terminal.",
    )(plot)


def plot(
    run: Annotated[str, argument("RUN", help="A run, as runs/NAME/latest, or a point of a sweep, as SWEEP#17.")],
    columns: Annotated[
        list[str] | None,
        argument("NAMES", help="Names or globs of columns, with commas or spaces between them.  [all single values]"),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Use a logarithmic scale for the values.")] = False,
    report: FaultFormat = "text",
) -> None:
    """Draw columns of a run over its rows; a tensor is drawn as its Euclidean norm.

    Values that are nan or infinite are gaps. With --log, values that are not above 0 are gaps too.
    """
    from runner.cli.output.plots import plot_curves
    from runner.record import open_run
    from runner.record.display.curves import curves_of

    opened = open_run(run_path(run))
    curves = curves_of(opened.columns, opened.parts, names_in(columns) or [])
    plot_curves(curves, log=log, title=str(opened.path))
