"""`steprun report`: a run, a sweep, or the difference of two runs as one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.input.declarations import argument, option
from runner.cli.input.options import Allow, FaultFormat, examples
from runner.cli.input.runs import check_options, run_path
from runner.cli.output.printing import say
from runner.errors import Problem, RunError, UsageError

if TYPE_CHECKING:
    from runner.report.section import Report


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun report runs/linear/latest",
            "steprun report runs/digits/latest -o digits.html --open",
            "steprun report runs/digits/latest --follow",
            "steprun report sweeps/digits/latest",
            "steprun report runs/linear/20261123-063012-7f3a runs/linear/20261124-101500-c81d",
        ),
        short_help="Write the report of a run, a sweep or a difference as one HTML page.",
    )(report)


def report(
    what: Annotated[
        list[str],
        argument(
            "RUN|SWEEP|RUN RUN",
            help="A run or a point of a sweep, SWEEP#17; a sweep; or two runs to compare, the expected one first.",
        ),
    ],
    output: Annotated[
        str | None, option("--output", "-o", metavar="FILE", help="The file to write.  [NAME.html]")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Write the page again as rows come, until the run ends.")
    ] = False,
    allow: Allow = None,
    report: FaultFormat = "text",
) -> None:
    """Write a run, a sweep, or the difference of two runs as one HTML page, which opens without a network.

    The page needs the extra `report`: pip install 'steprun[report]'. An existing file is replaced only if it is a
    report. The page of a damaged run or sweep says what is wrong, and shows what can be read; the exit code is 1.
    """
    from runner.report.library import library
    from runner.report.page import page
    from runner.report.writing import check_target, state_of, write
    from runner.report.writing import follow as follow_run

    library()
    subject = _subject(what, [Path(folder) for folder in allow or ()])
    if subject.run is None:
        check_options(" ".join(what), subject.noun, "a run", {"--follow": follow, "--allow": allow})
    path = Path(output or f"{subject.name}.html")
    check_target(path)

    seen = state_of(subject.run) if follow and subject.run is not None else None
    made = subject.make()
    write(path, page(made))
    say(str(path))
    if open_it:
        import webbrowser

        if not webbrowser.open(path.resolve().as_uri()):
            say(f"no browser was found here: open {path} in one", err=True)
    _check_whole(made)
    if follow and subject.run is not None:

        def write_again() -> None:
            made = subject.make()
            write(path, page(made))
            _check_whole(made)

        follow_run(subject.run, write_again, seen=seen)


def _check_whole(report: Report) -> None:
    """Raise RunError if the page is of something damaged; the page is there."""
    if report.problems:
        raise RunError(report.problems)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a page is about."""

    noun: str
    name: str  # of the file, without its ending
    make: Callable[[], Report]
    run: Path | None = None  # if it is one run


def _difference(expected: str, found: str) -> _Subject:
    """The difference of two runs."""
    from runner.cli.output.pages import page_of_runs, recorder_of_runs
    from runner.compare.runs.difference import compare_runs
    from runner.record import open_run

    before, after = open_run(run_path(expected)), open_run(run_path(found))
    recorder = recorder_of_runs(after, before)

    def make() -> Report:
        difference = compare_runs(after, before, observe=recorder)
        return page_of_runs(difference, after, before, recorder)

    return _Subject("a difference", f"{before.path.parent.name}-{before.path.name}-{after.path.name}", make)


def _subject(what: Sequence[str], allowed: Sequence[Path]) -> _Subject:
    """A run, a sweep, or two runs.

    Raises:
        UsageError: the paths are something else.
    """
    from runner.config.files.run_paths import SWEEP_MANIFEST, is_run, resolved_run, resolved_sweep
    from runner.record.reading import check_is_run

    if len(what) > 2:
        raise UsageError(Problem(f"a report is of one or two runs, not of {len(what)}", "name one or two"))
    if len(what) == 2:
        return _difference(*what)
    directory = resolved_run(run_path(what[0]))
    sweep = resolved_sweep(what[0])
    if not is_run(directory) and is_run(sweep, SWEEP_MANIFEST):
        from runner.report.sweep.sections import report_of_sweep

        return _Subject("a sweep", f"{sweep.parent.name}-{sweep.name}", lambda: report_of_sweep(sweep))
    check_is_run(directory)
    from runner.report.run.sections import report_of_run

    name = f"{directory.parent.name}-{directory.name}"
    return _Subject("a run", name, lambda: report_of_run(directory, allowed), directory)
