"""Widens a sweep: more values of its axes, or more draws. The points that it has stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import runner
from runner.config import Config, overridden
from runner.config.keys import AUTO
from runner.errors import Problem, UsageError
from runner.plan.checks.engines.versions import engine_versions, jax_versions, other_versions
from runner.record.directory import locked, write_atomically
from runner.sweep.planning import SweepPlan
from runner.sweep.points.overlaps import full_path
from runner.sweep.record.config import SWEEP_FILE, written_text
from runner.sweep.record.manifest import digest, read_manifest, write_manifest
from runner.text import steprun_command

Axes = Mapping[str, Sequence[Any]]

_SHORT = 12
"""The most values of an axis that a hint repeats."""


def widened_axes(before: Axes, given: Axes) -> dict[str, list[Any]]:
    """The axes of a command line with further ones; an axis of the same path is replaced."""
    names = {full_path(path) for path in given}
    kept = {path: list(values) for path, values in before.items() if full_path(path) not in names}
    return kept | {path: list(values) for path, values in given.items()}


def widened(config: Config, overrides: Sequence[str], axes: Axes) -> Config:
    """A config with overrides of its sweep.

    Args:
        axes: those of the command line that began the sweep.
    Raises:
        UsageError: an override changes something else, so that every point would be another one.
        ConfigError: the config is not valid.
    """
    for text in overrides:
        path = text.removeprefix("~")
        if not path.startswith("sweep.") or path.startswith(("sweep.halving", "sweep.objective")):
            message = f"`{text}` would change the points that the sweep has"
            hint = _with_more(text, axes) or "widen an axis, as in `seed=0..9`, or write `sweep.random.samples=128`"
            raise UsageError(Problem(message, hint))
    return overridden(config, overrides) if overrides else config


def _with_more(text: str, axes: Axes) -> str | None:
    """The argument that adds the value of an override to a short axis; None if there is no such axis."""
    path, _, value = text.partition("=")
    values = next((found for name, found in axes.items() if full_path(name) == full_path(path)), ())
    if not 0 < len(values) <= _SHORT or not all(isinstance(each, (int, float, str)) for each in values):
        return None
    return f"write all values of the axis: `{path}={','.join(map(str, values))},{value}`"


def save(directory: Path, manifest: Mapping[str, Any], config: Config, axes: Axes, points: int) -> None:
    """Write the widened sweep to its directory.

    Raises:
        UsageError: another process runs the sweep.
        OSError: a file cannot be written; the sweep is as it was.
    """
    text = written_text(config)
    own = {"config": digest(text), "axes": {path: list(values) for path, values in axes.items()}, "points": points}
    with locked(directory):
        check_not_widened(directory, manifest["points"])
        write_manifest(directory, {**manifest, "widening": own["config"]})
        write_atomically(directory / SWEEP_FILE, text.encode())
        write_manifest(directory, {**manifest, **own})


def check_not_widened(directory: Path, points: int) -> None:
    """Check that no other process has widened a sweep since it was planned; it must be locked.

    Args:
        points: the number of points then.
    Raises:
        UsageError: the sweep has more points now.
    """
    now = read_manifest(directory)["points"]
    if now > points:
        message = f"{directory} has {now:,} points now: another process has widened it from {points:,}"
        raise UsageError(Problem(message, "resume it again"))


def check_versions(directory: Path, manifest: Mapping[str, Any], plan: SweepPlan, known: Mapping[str, int]) -> None:
    """Check that the points of a sweep that are known were computed by the versions of this process.

    Args:
        known: the index of each known point, by identity.
    Raises:
        UsageError: they were computed by another version, so that the other points would not go with them.
    """
    if not known:
        return
    engines = _engines(plan)
    then: Mapping[str, str] = manifest["versions"]
    now = {"steprun": runner.__version__, "torch": str(torch.__version__)}
    again = _again(directory)
    differing = other_versions(then, now)
    if differing is None and AUTO in engines and then.get("jax") != jax_versions().get("jax"):
        before, after = _with_jax(then.get("jax")), _with_jax(jax_versions().get("jax"))
        message = f"{directory} was run {before}, and `engine: auto` chooses otherwise {after}"
        raise UsageError(Problem(message, f"install what it was run with, or {again}"))
    if differing is None and not engines.isdisjoint({AUTO, "xla"}):
        differing = other_versions(then, engine_versions("xla"))
    if differing is not None:
        message = f"{directory} was run with {differing[0]}, and this is {differing[1]}"
        raise UsageError(Problem(message, f"install {differing[0]}, or {again}"))


def _engines(plan: SweepPlan) -> set[str]:
    """The engines of the configs of all points; `xla` too if a sampler draws engines."""
    own = plan.base.engine
    if plan.sampler is None:
        return {str(point.values.get("engine", own)) for point in plan.points}
    random = None if plan.declared is None else plan.declared.random
    return {own, "xla"} if random is not None and "engine" in random.draw else {own}


def check_kept(
    directory: Path, manifest: Mapping[str, Any], plan: SweepPlan, known: Mapping[str, int], given: bool
) -> None:
    """Check that a plan has the points that are known, so that none of them is lost.

    Args:
        known: the index of each known point, by identity.
        given: whether the caller gave values.
    Raises:
        UsageError: it does not have one of them.
    """
    lost = known.keys() - {task.identity for task in plan.tasks}
    if not lost:
        return
    count = f"{len(lost):,} of the {len(known):,} points of {directory}"
    if given:
        raise UsageError(Problem(f"these values leave out {count}", "write the values that it has too"))
    message = f"{count} are not those of its config any more: a data file has changed"
    raise UsageError(Problem(message, f"restore the file, or {_again(directory)}"))


def _again(directory: Path) -> str:
    return f"run `{steprun_command('sweep', directory / SWEEP_FILE)}`"


def _with_jax(version: str | None) -> str:
    return "without jax" if version is None else f"with jax {version}"
