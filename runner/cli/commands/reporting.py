"""`steprun report`: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.cli.input.options import Allow, FaultFormat, examples
from runner.cli.input.runs import run_path
from runner.cli.output.printing import say


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun report runs/linear/latest",
            "steprun report runs/digits/latest -o digits.html --open",
            "steprun report runs/digits/latest --follow",
        ),
        short_help="Write the report of a run as one HTML page.",
    )(report)


def report(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run directory, or a point of a sweep: SWEEP#17.", show_default=False)
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write.  [NAME-RUN.html]", show_default=False),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Write the page again as rows come, until the run ends.")
    ] = False,
    allow: Allow = None,
    report: FaultFormat = "text",
) -> None:
    """Write curves, gradients, weights and steps of a run as one HTML page, which opens without a network.

    The page needs the extra `report`: pip install 'steprun[report]'. An existing file is replaced only if it is a
    report.
    """
    from runner.config.run_paths import resolved_run
    from runner.record.reading import check_is_run
    from runner.report.library import library
    from runner.report.page import page
    from runner.report.run.sections import report_of_run
    from runner.report.writing import check_target, write
    from runner.report.writing import follow as follow_run

    library()
    directory = resolved_run(run_path(run))
    check_is_run(directory)
    path = Path(output or f"{directory.parent.name}-{directory.name}.html")
    check_target(path)
    folders = [Path(folder) for folder in allow or ()]

    def make() -> bytes:
        return page(report_of_run(directory, folders))

    write(path, make())
    say(str(path))
    if open_it:
        typer.launch(path.resolve().as_uri())
    if follow:
        follow_run(directory, make, path)
