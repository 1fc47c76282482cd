"""`steprun sweep` and `steprun results`: many runs of one config."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.input.declarations import argument
from runner.cli.input.options import (
    Address,
    FaultFormat,
    Jobs,
    Json,
    On,
    Quiet,
    Request,
    SweepsDir,
    cores,
    examples,
    names_in,
    reads_config,
)
from runner.cli.input.runs import check_no_point
from runner.cli.output.printing import say, say_json
from runner.errors import Problem, UsageError
from runner.text import steprun_command

FAILED = 1

if TYPE_CHECKING:
    from runner.config import Config
    from runner.sweep.planning import SweepPlan
    from runner.sweep.running import How


Threads = Annotated[
    int, typer.Option("--threads", metavar="N", min=1, max=1024, help="Threads of torch in each process.")
]
TimeLimit = Annotated[
    str | None, typer.Option("--time-limit", metavar="TIME", help="Longest time of a point, such as 10m.")
]
Sampler = Annotated[
    str | None, typer.Option("--sampler", metavar="tpe|gp|random", help="Optuna's sampler chooses the points.")
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Points that a sampler chooses at once.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first point that fails.")]
Yes = Annotated[bool, typer.Option("--yes", help="Run more than 100,000 points.")]
Lanes = Annotated[
    str | None,
    typer.Option(
        "--lanes",
        metavar="exact|close|off",
        help="Whether points may run as lanes of one computation, bit for bit or nearly.  [exact, where possible]",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the points, and run none.")]


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun sweep config.yaml",
            "steprun sweep configs/linear.yaml learning_rate=0.1,0.01 seed=0..4",
            "steprun sweep configs/linear.yaml 'seed=range(100)' --dry-run",
        ),
        short_help="Run a config for many values.",
    )(sweep)
    application.command(
        epilog=examples("steprun results sweeps/linear/20261123-063012-7f3a --best 5"),
        short_help="Show the results of a sweep.",
    )(results)


@reads_config
def sweep(
    request: Request,
    sweeps_dir: SweepsDir = "sweeps",
    jobs: Jobs = None,
    threads: Threads = 1,
    time_limit: TimeLimit = None,
    sampler: Sampler = None,
    batch: Batch = 8,
    fail_fast: FailFast = False,
    yes: Yes = False,
    on: On = "processes",
    address: Address = None,
    lanes: Lanes = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """Run a config once for each combination of values, and collect the results in one table.

    The values come from `sweep:` in the config, or from the command line: `learning_rate=0.1,0.01 seed=0..4`.
    """
    from runner.cli.input.requests import plan_limits, print_warnings
    from runner.sweep.lanes.grouping import check_some
    from runner.sweep.running import How, grouping_of, start_sweep

    config, axes = _config_and_axes(request, sampler, dry_run)
    given: dict[str, Any] = {"allowed": tuple(map(Path, request.allow)), "limits": plan_limits(request)}
    plan = _planned(config, axes, sampler, batch, yes, given)
    _check_on(on, address)
    _check_lanes(lanes)
    given |= {"time_limit": _seconds(time_limit), "fail_fast": fail_fast, "on": on, "address": address}
    how = How(jobs or cores(), threads=threads, command=["steprun", *sys.argv[1:]], lanes=lanes or "exact", **given)
    if lanes == "exact":
        check_some(config, plan.first, grouping_of(plan, how).grouped(plan.tasks))
    if dry_run:
        _print_points(plan, how, as_json)
        return
    if report == "text":
        print_warnings(plan.first.warnings)
    directory = start_sweep(config, plan, axes, Path(sweeps_dir), how)
    run_and_report(directory, plan, how, quiet, as_json)


def _config_and_axes(request: Request, sampler: str | None, dry_run: bool) -> tuple[Config, dict[str, list[object]]]:
    """The config of a sweep, and the axes that the command line adds.

    Raises:
        UsageError: a sampler has axes on the command line, or an override is one value and there is nothing to sweep.
    """
    from runner.cli.input.axes import split_axes

    overrides, axes = split_axes(request.overrides)
    config = _config(replace(request, overrides=overrides))
    if sampler is not None:
        _check_no_axes(axes, dry_run)
    elif overrides and not axes and config.sweep is None:
        hint = "write values with commas, `learning_rate=0.1,0.01`, or a span, `seed=0..4`"
        raise UsageError(Problem(f"`{overrides[0]}` is one value, and the config has no sweep", hint))
    return config, axes


def _config(request: Request) -> Config:
    """The config of a request; lists among its overrides are applied last, once it is known that none is an axis.

    Raises:
        UsageError: a list stands where the config has one value.
    """
    from runner.cli.input.axes import check_no_lists, lists_in
    from runner.cli.input.requests import read_config
    from runner.config import overridden

    lists = lists_in(request.overrides)
    others = tuple(text for text in request.overrides if text not in lists)
    config = read_config(replace(request, overrides=others))
    check_no_lists(config, lists)
    return overridden(config, lists) if lists else config


def _planned(
    config: Config, axes: dict[str, list[object]], sampler: str | None, batch: int, yes: bool, given: dict[str, Any]
) -> SweepPlan:
    """The plan of a sweep: points that a sampler chooses, or the points of its axes."""
    from runner.sweep.planning import plan_sampled, plan_sweep

    if sampler is not None:
        return plan_sampled(config, sampler, batch, **given)
    return plan_sweep(config, axes, many=yes, **given)


def results(
    directory: Annotated[str, argument("SWEEP", help="A sweep directory.")],
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="COLUMN", help="Sort by a column; -COLUMN puts the largest first.  [the objective]"
        ),
    ] = None,
    best: Annotated[int | None, typer.Option("--best", metavar="N", min=1, help="Show only the N best points.")] = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            "--group-by", metavar="AXES", help="Show mean ± deviation for each value of these axes. May be repeated."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """Show the points of a sweep: the best first if it has an objective, otherwise in their order."""
    from runner.cli.output.tables.results import print_results

    check_no_point(directory, "steprun results")
    print_results(directory, by, best, names_in(group_by), as_csv, as_json)


def resume_points(
    directory: str,
    allow: list[str] | None,
    jobs: int | None,
    retry: str | None,
    on: str,
    address: str | None,
    quiet: bool,
    as_json: bool,
    values: Sequence[str] = (),
    yes: bool = False,
) -> None:
    """Run the points of a sweep that have not ended.

    Args:
        values: more values of its axes, and overrides of `sweep`.
    Raises:
        UsageError: another process runs the sweep, or the values leave out a point that it has.
    """
    from runner.cli.input.axes import split_axes
    from runner.sweep.running import How, resume_sweep

    if retry not in (None, "failed"):
        raise UsageError(f"--retry is `{retry}`: it takes `failed`")
    _check_on(on, address)
    how = How(
        jobs or cores(),
        on=on,
        address=address,
        allowed=tuple(map(Path, allow or ())),
        command=["steprun", *sys.argv[1:]],
    )
    overrides, axes = split_axes(values)
    plan, how = resume_sweep(Path(directory), how, yes or not values, axes, overrides)
    run_and_report(Path(directory), plan, how, quiet, as_json, retry is not None)


def run_and_report(directory: Path, plan: SweepPlan, how: How, quiet: bool, as_json: bool, retry: bool = False) -> None:
    """Run a sweep, show its progress, and print where it is recorded.

    Raises:
        Exit: with code 1 if a point has failed.
    """
    from runner.cli.output.sweep_progress import SweepProgress
    from runner.sweep.running import run_sweep

    progress = SweepProgress(plan.total, plan.objective, quiet or as_json, plan.points)
    try:
        outcomes = run_sweep(directory, plan, how, progress, retry)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted; `{steprun_command('resume', directory)}` goes on") from error
    finally:
        progress.clear()
    failed = sum(outcome.status == "failed" for outcome in outcomes.values())
    if as_json:
        say_json({"sweep": str(directory), "points": plan.total, "failed": failed})
    elif quiet:
        say(str(directory))
    else:
        say(progress.summary())
        lanes = progress.lanes()
        if lanes is not None:
            say(lanes)
        say(f"recorded in {directory}; `{steprun_command('results', directory)}` shows the points")
    if failed:
        raise typer.Exit(FAILED)


def _print_points(plan: SweepPlan, how: How, as_json: bool) -> None:
    from collections import Counter

    from runner.cli.output.sweep_progress import lanes_line
    from runner.language.inference.inference import readable_bytes
    from runner.sweep.lanes.grouping import lane_bytes
    from runner.sweep.running import grouping_of
    from runner.text import aligned, counted

    if as_json:
        say_json([dict(point.values) for point in plan.points])
        return
    say("\n".join(aligned([[str(point.index), " ".join(point.overrides)] for point in plan.points], [True], "")))
    left_out = [f"{plan.excluded:,} excluded by `where`"] if plan.excluded else []
    left_out += [f"{plan.repeated:,} equal to another"] if plan.repeated else []
    rows = plan.first.estimates.rows * len(plan.points)
    say(f"{counted(len(plan.points), 'point')}{''.join(f', {text}' for text in left_out)}; about {rows:,} rows")
    grouped = grouping_of(plan, how).grouped(plan.tasks)
    chunks = Counter(task.chunk for task in grouped if task.chunk)
    line = lanes_line([task.alone for task in grouped])
    if chunks:
        memory, most = readable_bytes(lane_bytes(plan.first)), max(chunks.values())
        line += f"; a lane takes about {memory}, and a chunk has at most {counted(most, 'lane')}"
    say(line)


def _check_lanes(lanes: str | None) -> None:
    if lanes not in (None, "exact", "close", "off"):
        raise UsageError(f"--lanes is `{lanes}`: it takes `exact`, `close` or `off`")


def _check_no_axes(axes: dict[str, list[object]], dry_run: bool) -> None:
    if axes:
        axis = next(iter(axes))
        message = f"`{axis}` has several values, and a sampler chooses the values of `random` alone"
        hint = f"write `sweep: {{random: {{samples: 8, draw: {{{axis}: {{uniform: [0, 1]}}}}}}}}` in the config"
        raise UsageError(Problem(message, hint))
    if dry_run:
        raise UsageError("the points of a sampler depend on results; leave --dry-run out")


def _check_on(on: str, address: str | None) -> None:
    if on not in ("processes", "ray"):
        raise UsageError(f"--on is `{on}`: it takes `processes` or `ray`")
    if address is not None and on != "ray":
        raise UsageError("--address goes with --on ray")


def _seconds(text: str | None) -> float | None:
    """The seconds of a time limit: `30`, `30s`, `10m` or `1.5h`."""
    from runner.config.text.units import seconds_of

    if text is None:
        return None
    seconds = seconds_of(f"{text}s" if text[-1:].isdecimal() else text)
    if seconds is None:
        raise UsageError(f"--time-limit is `{text}`: it takes a time such as 30s, 10m or 2h")
    return seconds
