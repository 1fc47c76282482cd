"""`steprun apply`: values of a trained run for each sample of a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from runner.cli.input.declarations import argument, option
from runner.cli.input.options import Allow, FaultFormat, amount, examples, names_in
from runner.cli.input.runs import run_path
from runner.cli.output.printing import say
from runner.cli.output.progress import INTERVAL, PATIENCE, can_draw
from runner.text import counted

if TYPE_CHECKING:
    from runner.cli.output.bar import Bar

Values = Annotated[list[str], option("--values", metavar="NAMES", help="Named values, with commas. May be repeated.")]
To = Annotated[
    str,
    option("--to", metavar="FILE", help="A .parquet, .csv or .tsv file to write, or `-` for CSV on standard output."),
]
Data = Annotated[
    list[str] | None,
    option(
        "--data",
        metavar="SOURCE[.KEY=VALUE]",
        help="The data source, with another file: `train.file=new.csv`. May be repeated. "
        "Without it, the first source of the config that has the columns.",
    ),
]
Columns = Annotated[
    list[str] | None,
    option("--columns", metavar="NAMES", help="Columns of the file to copy, with commas. May be repeated."),
]
Classes = Annotated[
    list[str] | None,
    option(
        "--classes",
        metavar="VALUE=COLUMN",
        help="Write a value of class indices as the names of the classes of a column. May be repeated.",
    ),
]
At = Annotated[
    str, typer.Option("--at", metavar="WHEN", help="Which weights: `last`, `best`, or the tag of a checkpoint.")
]
Device = Annotated[str | None, option("--device", metavar="DEVICE", help="Device to compute on.  [that of the run]")]
BatchSize = Annotated[
    int | None,
    option(
        "--batch-size", metavar="N", min=1, help="Samples in a batch.  [8192, fewer if a sample is larger than 2 KiB]"
    ),
]
MaxMemory = Annotated[str | None, option("--max-memory", metavar="N", help="Most memory of a source.  [the machine's]")]


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun apply runs/wine/latest --data train.file=new.csv --values label --to labels.csv",
            "steprun apply RUN --data valid --values probabilities,label --columns id --to predictions.parquet",
        ),
        short_help="Compute values of a trained run for each sample of a file.",
    )(apply)


def apply(
    run: Annotated[str, argument("RUN", help="A run directory.")],
    values: Values,
    to: To,
    data: Data = None,
    columns: Columns = None,
    classes: Classes = None,
    at: At = "last",
    device: Device = None,
    batch_size: BatchSize = None,
    max_memory: MaxMemory = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    allow: Allow = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary.")] = False,
    report: FaultFormat = "text",
) -> None:
    """Compute named values of a trained run for each sample of a data source, in the order of its file.

    Weights and fitted constants are those of the run, and `training` is false. Only columns that the values need are
    read, so the file may lack the target. `select`, `shuffle` and `drop_last` of the source do not apply.
    """
    from runner.cli.input.requests import print_warnings
    from runner.record.apply.applying import Request
    from runner.record.apply.applying import apply as apply_run

    request = Request(
        values=tuple(names_in(values) or ()),
        to=to,
        data=tuple(data or ()),
        columns=tuple(names_in(columns) or ()),
        classes=tuple(classes or ()),
        at=at,
        device=device,
        batch_size=batch_size,
        memory=None if max_memory is None else amount("memory", max_memory),
        force=force,
        allow=tuple(allow or ()),
    )
    bar = SampleBar(sys.stderr) if can_draw(sys.stderr) and not quiet else None
    try:
        samples = apply_run(run_path(run), request, warn=lambda problem: print_warnings([problem]), progress=bar)
    finally:
        if bar is not None:
            bar.clear()
    if not quiet:
        say(f"{counted(samples, 'sample')}: {'standard output' if to == '-' else to}", err=True)


class SampleBar:
    """A progress bar that appears after a while.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + PATIENCE
        self._bar: Bar | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show the number of finished samples."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + INTERVAL
        if self._bar is None:
            from runner.cli.output.bar import Bar

            self._bar = Bar(self._stream, total)
        self._bar.show(done, done / (now - self._begun), "")

    def clear(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.hide()
