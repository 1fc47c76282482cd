"""Plans a sweep: which points run, each with its identity, and what the sweep looks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from runner.config import Config, overridden
from runner.config.sweep_models import SweepDeclaration
from runner.errors import ConfigError, Problem, UsageError, did_you_mean, listing
from runner.faults import ConfigPath, Faults
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.language.text.scalars import evaluate
from runner.plan import Plan, PlanLimits, compile
from runner.plan.checks.measured import never_measured
from runner.plan.program.last_loop import last_loop
from runner.plan.scalars import integer, number, scalar_constants
from runner.record.rows.storage import stored_column
from runner.sweep.choosing.objective import Objective, objective_of
from runner.sweep.lanes.varying import varying
from runner.sweep.points.identity import Identities
from runner.sweep.points.placing import placed
from runner.sweep.points.space import Point, Space, space_of, taken_hint, taken_message, taken_names, without_sweep
from runner.sweep.points.task import Task

MANY_POINTS = 100_000
"""A sweep with more points runs only if the caller agrees."""


MOST_PLANNED = 200
"""The most values of an axis that are planned before a sweep; of a longer axis, that many evenly spaced ones."""

MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A sweep before its first point runs."""

    base: Config  # the config of a run, without `sweep`
    points: tuple[Point, ...]
    tasks: tuple[Task, ...]  # one for each point
    first: Plan  # the plan of the first point
    objective: Objective | None
    declared: SweepDeclaration | None = None
    sampler: str | None = None  # then `points` and `tasks` are empty: they depend on results
    batch: int = 0
    halving: tuple[Objective, tuple[int, ...], Fraction] | None = None
    repeated: int = 0  # points left out because another one has the same numbers
    excluded: int = 0  # points left out by `where`

    @property
    def total(self) -> int:
        """The number of points that will run."""
        if self.sampler is None:
            return len(self.points)
        samples = 0 if self.declared is None or self.declared.random is None else self.declared.random.samples
        return int(evaluate(samples, self.first.scalars) if isinstance(samples, str) else samples)


def plan_sweep(
    config: Config,
    axes: Mapping[str, Sequence[Any]],
    *,
    allowed: Sequence[Path] = (),
    limits: PlanLimits | None = None,
    many: bool = False,
) -> SweepPlan:
    """Plan the points of a sweep.

    Args:
        axes: more axes, as a command line gives them; they replace those of the config.
        many: whether more than `MANY_POINTS` points are meant.
    Raises:
        ConfigError: an axis or the config of a point is not valid; nothing has run.
        UsageError: there are no points, or too many.
    """
    _check_names(config, axes)
    space = space_of(config).replaced({path: list(values) for path, values in axes.items()})
    if not space.paths:
        hint = "write `sweep: {grid: {learning_rate: [0.1, 0.01]}}`, or `learning_rate=0.1,0.01` on the command line"
        raise UsageError(Problem("the config has no sweep, and the command line no axis", hint))
    if len(space) > MANY_POINTS and not many:
        hint = "run that many with --yes, or draw some with `random: {samples: 100, draw: {…}}`"
        raise UsageError(Problem(f"the sweep has {len(space):,} points", hint))
    base = without_sweep(config)
    plan = _planning(base, allowed, limits)
    _check_axes(base, space, plan)
    where = None if config.sweep is None else config.sweep.where
    start = next(space.points())
    first = plan(start.overrides)
    points, tasks, repeated, excluded = _points(base, first, space, where, config)
    if not points:
        hint = "write a condition that some points fulfil"
        raise ConfigError(config.document.problem(("sweep", "where"), "no point fulfils this condition", hint))
    if points[0].values != start.values:
        first = plan(points[0].overrides)
    objective = _objective(config, first, points)
    halving = _halving(config, first, objective)
    return SweepPlan(
        base, points, tasks, first, objective, config.sweep, halving=halving, repeated=repeated, excluded=excluded
    )


def plan_sampled(
    config: Config,
    sampler: str,
    batch: int,
    *,
    allowed: Sequence[Path] = (),
    limits: PlanLimits | None = None,
) -> SweepPlan:
    """Plan a sweep whose points a sampler chooses.

    Raises:
        ConfigError: the config is not valid, or an axis of its sweep.
    """
    base, space = without_sweep(config), space_of(config)
    _check_axes(base, space.first_choices(), _planning(base, allowed, limits))
    objective = None if config.sweep is None else config.sweep.objective
    if objective is not None and objective.mean_over:
        path = ("sweep", "objective", "mean_over")
        message, hint = "a sampler compares single points, not means", "remove it, or leave --sampler out"
        raise ConfigError(config.document.problem(path, message, hint))
    first = compile(base, allowed=allowed, limits=limits)
    return SweepPlan(base, (), (), first, _objective(config, first, ()), config.sweep, sampler, batch)


def _check_names(config: Config, axes: Mapping[str, Sequence[Any]]) -> None:
    """Check that no axis of a command line is called as another column of the points.

    Raises:
        UsageError: one is.
    """
    taken = next((path for path in axes if path in taken_names(config)), None)
    if taken is not None:
        raise UsageError(Problem(taken_message(taken), taken_hint(taken)))


Plans = Callable[[Sequence[str]], Plan]
"""Plans a point; raises ConfigError."""


def _planning(base: Config, allowed: Sequence[Path], limits: PlanLimits | None) -> Plans:
    """A function that plans points, and remembers the first one."""
    known: dict[tuple[str, ...], Plan] = {}

    def plan(overrides: Sequence[str]) -> Plan:
        key = tuple(overrides)
        if key in known:
            return known[key]
        found = compile(overridden(base, overrides), allowed=allowed, limits=limits)
        if not known:
            known[key] = found
        return found

    return plan


def _check_axes(base: Config, space: Space, plan: Plans) -> None:
    """Plan each value of each axis beside the first values of the other axes, so that a fault is found before a run.

    Raises:
        ConfigError: an axis names nothing, or a value is not valid.
    """
    problems: dict[Problem, None] = {}
    for axes in space.products:
        first = {path: value for axis in axes for path, value in axis.choices[0].items()}
        plain = _plain_numbers(base, first, plan)
        for axis in axes:
            step = -(-len(axis.choices) // MOST_PLANNED)
            for place, choice in enumerate(axis.choices):
                if place and plain(choice):
                    continue
                point = Point(place, {**first, **choice})
                try:
                    if place % step == 0:
                        plan(point.overrides)
                    else:
                        overridden(base, point.overrides)
                except ConfigError as error:
                    problems |= dict.fromkeys(_in_values(problem, choice) for problem in error.problems)
    if problems:
        raise ConfigError(placed(space, problems)[:MOST_PROBLEMS])


def _plain_numbers(base: Config, first: Mapping[str, Any], plan: Plans) -> Callable[[Mapping[str, Any]], bool]:
    """Whether values of an axis are numbers that change nothing of a plan but themselves, and are valid."""
    try:
        planned = plan(Point(0, first).overrides)
    except ConfigError:
        return lambda choice: False
    may_vary = varying(base, planned)

    def plain(choice: Mapping[str, Any]) -> bool:
        own, shared = may_vary.split(Point(0, choice).overrides)
        return not shared and not may_vary.in_expression(own) and may_vary.lane(planned, own) is not None

    return plain


def _in_values(problem: Problem, choice: Mapping[str, Any]) -> Problem:
    if (problem.source or "").startswith("override "):
        return problem
    return replace(problem, message=f"{problem.message}, with {' '.join(Point(0, choice).overrides)}")


def renumbered(plan: SweepPlan, known: Mapping[str, int]) -> SweepPlan:
    """The plan with the indices that its points have already; other points are numbered after those.

    Args:
        known: indices by identity.
    """
    fresh = itertools.count(max(known.values(), default=-1) + 1)
    pairs = [
        (replace(point, index=index), replace(task, index=index))
        for point, task in zip(plan.points, plan.tasks, strict=True)
        for index in [known[task.identity] if task.identity in known else next(fresh)]
    ]
    pairs.sort(key=lambda pair: pair[0].index)
    return replace(plan, points=tuple(point for point, _ in pairs), tasks=tuple(task for _, task in pairs))


def _points(
    base: Config, first: Plan, space: Space, where: str | None, config: Config
) -> tuple[tuple[Point, ...], tuple[Task, ...], int, int]:
    """The points of a space without those that `where` excludes and those with equal numbers."""
    identities = Identities()
    may_vary = varying(base, first)
    alike: dict[Hashable, Callable[[Mapping[str, float | int]], str]] = {}
    found: dict[str, tuple[Point, Task]] = {}
    excluded = repeated = 0
    for point in space.points():
        own, shared = may_vary.split(point.overrides)
        key = (tuple(own), shared)
        if where is not None or key not in alike:
            try:
                each = overridden(base, point.overrides)
            except ConfigError as error:
                raise ConfigError([_in_point(problem, point) for problem in error.problems]) from error
            if where is not None and not _fulfils(where, each, point, config):
                excluded += 1
                continue
            alike[key] = identities.varied(each)
        identity = alike[key]({may_vary.place(path): value for path, value in own.items()})
        if identity in found:
            repeated += 1
            continue
        numbered = replace(point, index=len(found))
        found[identity] = numbered, Task(numbered.index, numbered.overrides, identity)
    return tuple(point for point, _ in found.values()), tuple(task for _, task in found.values()), repeated, excluded


def _in_point(problem: Problem, point: Point) -> Problem:
    return replace(problem, message=f"{problem.message}, in {point.label}")


def _fulfils(where: str, each: Config, point: Point, config: Config) -> bool:
    faults = Faults(each.document)
    scalars: dict[str, Scalar] = dict(scalar_constants(each, faults))
    faults.stop()
    for path, value in point.values.items():
        if isinstance(value, bool | int | float):
            scalars.setdefault(path.rpartition(".")[2], value)
    try:
        return bool(evaluate(where, scalars))
    except LanguageError as error:
        problems = Faults(config.document)
        problems.language(("sweep", "where"), error)
        problems.stop()
        raise AssertionError from error


def _objective(config: Config, plan: Plan, points: Sequence[Point]) -> Objective | None:
    """The objective of a sweep, if its column and its axes exist."""
    objective = objective_of(None if config.sweep is None else config.sweep.objective)
    if objective is None:
        return None
    assert config.sweep is not None
    assert config.sweep.objective is not None
    key = "minimize" if objective.minimize else "maximize"
    columns = [column.name for column in plan.columns if stored_column(column).is_number]
    document = config.document
    if objective.column not in columns:
        hint = did_you_mean(objective.column, columns, f"columns of one number are {listing(columns) or 'none'}")
        message = f"no row has a number `{objective.column}`"
        raise ConfigError(document.problem(("sweep", "objective", key), message, hint))
    paths = dict.fromkeys(path for point in points for path in point.values)
    never = never_measured(plan.program).get(objective.column)
    may_vary = varying(config, plan)
    if never is not None and all(map(may_vary.has, paths)):  # no axis changes the steps
        if never.condition is not None:
            when, hint = "the condition of its step is never true", "correct the condition"
        else:
            when = f"its step runs every {never.every:,} iterations, and its loop has {never.times:,}"
            hint = f"write `every: {never.times}` or less in `evaluate: {objective.column.partition('.')[0]}`"
        message = f"no point measures `{objective.column}`: {when}"
        raise ConfigError(document.problem(("sweep", "objective", key), message, hint))
    names = {name for path in paths for name in (path, path.rpartition(".")[2])}
    for name in objective.mean_over:
        if name not in names:
            hint = did_you_mean(name, names, f"axes are {', '.join(paths)}")
            path = ("sweep", "objective", "mean_over")
            raise ConfigError(document.problem(path, f"the sweep has no axis `{name}`", hint))
    return objective


def _halving(
    config: Config, plan: Plan, objective: Objective | None
) -> tuple[Objective, tuple[int, ...], Fraction] | None:
    """When points are compared, and the fraction that goes on.

    Raises:
        ConfigError: no point is compared at one of the iterations, or the fraction is not between 0 and 1.
    """
    declared = None if config.sweep is None else config.sweep.halving
    if declared is None or objective is None:
        return None
    faults = Faults(config.document)
    path = ("sweep", "halving")
    loop = last_loop(plan.program)
    times = 0 if loop is None else loop.times
    at: list[int] = []
    for place, written in enumerate(declared.at):
        found = integer(written, (*path, "at", place), plan.scalars, faults, 1)
        if found is None:
            continue
        if found >= times:
            message = f"no point is compared after iteration {found:,}: its last loop has {times:,}"
            faults.add((*path, "at", place), message, f"write a number below {times:,}" if times else "write a loop")
        elif at and found <= at[-1]:
            faults.add((*path, "at", place), f"{found:,} does not come after {at[-1]:,}", "write them in order")
        else:
            at.append(found)
    keep = _fraction(declared.keep, (*path, "keep"), plan.scalars, faults)
    faults.stop()
    assert keep is not None
    return objective, tuple(at), keep


def _fraction(written: object, path: ConfigPath, scalars: Mapping[str, Scalar], faults: Faults) -> Fraction | None:
    """A fraction of the points; `1/3` is exact."""
    try:
        found = Fraction(str(written).replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        value = number(written, path, scalars, faults)
        if value is None:
            return None
        found = Fraction(value) if math.isfinite(value) else Fraction(0)
    if not 0 < found < 1:
        faults.add(path, f"a fraction of the points lies between 0 and 1, and this is {written}", "write `1/3`")
        return None
    return found
