"""Reads `sweep`: the axes of a sweep, its objective, and when points stop early."""

from __future__ import annotations

from typing import Any

from runner.config.sections.faults import Faults, keys_of
from runner.config.sweep_models import (
    HalvingDeclaration,
    RandomDeclaration,
    SpaceDeclaration,
    SweepDeclaration,
    SweepObjective,
)
from runner.config.text.nodes import Path, describe
from runner.errors import nearest

DISTRIBUTIONS = {
    "uniform": "Numbers from a to b, all equally likely: `[a, b]`.",
    "log_uniform": "Numbers from a to b whose logarithms are equally likely: `[a, b]`.",
    "normal": "Normal numbers: `[mean, standard deviation]`.",
    "randint": "Integers from a to before b, all equally likely: `[a, b]`.",
    "choice": "One of several values, all equally likely.",
}
"""The distributions of a random axis, each with its description."""

OVER = ("last", "best")
_SPACE_KEYS = ("grid", "zip", "random", "points")
MOST_RECENT = 10_000
"""The most last values of an objective whose mean counts."""

_DRAW = "write `draw: {learning_rate: {log_uniform: [1e-5, 1e-1]}}`"
_GRID = "write `grid: {learning_rate: [0.1, 0.01]}` below `sweep:`"


def read_sweep(written: Any, faults: Faults) -> SweepDeclaration | None:
    """Returns the sweep of a config, or None if it has none or it is not valid."""
    if written is None:
        return None
    path: Path = ("sweep",)
    if not isinstance(written, dict) or not written:
        faults.add(path, f"expected a mapping, found {describe(written) if written else 'nothing'}", _GRID)
        return None
    before = faults.count
    values = dict(written)
    _check_space(values, path, faults)
    if "union" in values:
        mixed = [key for key in _SPACE_KEYS if key in values]
        for key in mixed:
            faults.add((*path, key), f"`{key}` beside `union`", "move it into a space of `union`", key=True)
        values["union"] = _union(values["union"], (*path, "union"), faults)
    elif faults.count == before and not any(values.get(key) for key in _SPACE_KEYS) and not _misspelt(values):
        faults.add(path, "the sweep has no axes", _GRID, key=True)
    if values.get("objective") is not None:
        values["objective"] = _objective(values["objective"], (*path, "objective"), faults)
    if values.get("halving") is not None:
        values["halving"] = _halving(values["halving"], (*path, "halving"), faults)
        if values.get("objective") is None:
            faults.add((*path, "halving"), "`halving` needs an objective", _OBJECTIVE, key=True)
    built = faults.build(SweepDeclaration, values, path)
    return built if faults.count == before else None


def _misspelt(values: dict[str, Any]) -> bool:
    return any(nearest(key, _SPACE_KEYS) for key in values if key not in keys_of(SweepDeclaration))


_OBJECTIVE = "write `objective: {minimize: valid.loss}`"


def _union(written: Any, path: Path, faults: Faults) -> tuple[SpaceDeclaration, ...]:
    if not isinstance(written, list) or not written:
        found = describe(written) if written else "nothing"
        faults.add(path, f"expected a list of spaces, found {found}", "write `union: [{grid: {…}}, {grid: {…}}]`")
        return ()
    spaces = []
    for index, space in enumerate(written):
        place = (*path, index)
        if not isinstance(space, dict) or not space:
            faults.add(place, f"expected a space, found {describe(space) if space else 'nothing'}", _GRID)
            continue
        space = dict(space)
        _check_space(space, place, faults)
        built = faults.build(SpaceDeclaration, space, place)
        if built is not None:
            spaces.append(built)
    return tuple(spaces)


def _check_space(values: dict[str, Any], path: Path, faults: Faults) -> None:
    """Checks the axes of a space, and replaces mappings by models."""
    seen: dict[str, Path] = {}
    grid = values.get("grid")
    if grid is not None:
        _check_axes(grid, (*path, "grid"), seen, faults)
    together = values.get("zip")
    if together is not None:
        together = [together] if isinstance(together, dict) else together
        values["zip"] = together
        if not isinstance(together, list):
            hint = "write `zip: [{width: [64, 128], heads: [4, 8]}]`"
            faults.add((*path, "zip"), f"expected a list of mappings, found {describe(together)}", hint)
            del values["zip"]
        else:
            for index, each in enumerate(together):
                _check_axes(each, (*path, "zip", index), seen, faults)
    if values.get("random") is not None:
        values["random"] = _random(values["random"], (*path, "random"), seen, faults)
    points = values.get("points")
    if points is not None:
        _check_points(points, (*path, "points"), faults)


def _check_axes(written: Any, path: Path, seen: dict[str, Path], faults: Faults) -> None:
    if not isinstance(written, dict) or not written:
        faults.add(path, f"expected a mapping of axes, found {describe(written) if written else 'nothing'}", _GRID)
        return
    for name, values in written.items():
        place = (*path, name)
        _check_once(name, place, seen, faults)
        if isinstance(values, list):
            if not values:
                faults.add(place, f"the axis `{name}` has no values", "write at least one value")
        elif not isinstance(values, str):
            hint = f"write `{name}: [{values}]`" if not isinstance(values, dict) else f"write `{name}: [{{…}}, {{…}}]`"
            faults.add(place, f"expected a list of values, found {describe(values)}", hint, key=values is None)


def _check_once(name: str, place: Path, seen: dict[str, Path], faults: Faults) -> None:
    if name in seen:
        other = faults.document.mark(seen[name], key=True)
        message = f"two axes set `{name}`; the other is in line {other.line}"
        faults.add(place, message, "remove one of them", key=True)
    seen.setdefault(name, place)


def _halving(written: Any, path: Path, faults: Faults) -> HalvingDeclaration | None:
    if isinstance(written, dict) and written.get("at") == []:
        faults.add((*path, "at"), "`halving` compares points after no iteration", "write `at: [100, 300]`", key=True)
    built: HalvingDeclaration | None = _mapping(HalvingDeclaration, written, path, faults)
    return built


def _random(written: Any, path: Path, seen: dict[str, Path], faults: Faults) -> RandomDeclaration | None:
    if not isinstance(written, dict):
        hint = "write `random: {samples: 64, draw: {learning_rate: {log_uniform: [1e-5, 1e-1]}}}`"
        faults.add(path, f"expected a mapping, found {describe(written)}", hint)
        return None
    draw = written.get("draw")
    if draw == {}:
        faults.add((*path, "draw"), "`random` draws nothing", _DRAW, key=True)
    for name, distribution in draw.items() if isinstance(draw, dict) else ():
        place = (*path, "draw", name)
        _check_once(name, place, seen, faults)
        kinds = list(distribution) if isinstance(distribution, dict) else []
        if len(kinds) != 1 or kinds[0] not in DISTRIBUTIONS:
            found = f"`{kinds[0]}`" if len(kinds) == 1 else describe(distribution)
            hint = f"write one of {', '.join(DISTRIBUTIONS)}, such as `{{log_uniform: [1e-5, 1e-1]}}`"
            faults.add(place, f"expected a distribution, found {found}", hint)
    return faults.build(RandomDeclaration, written, path)


def _check_points(written: Any, path: Path, faults: Faults) -> None:
    if isinstance(written, str):
        return
    if not isinstance(written, list) or not written:
        hint = "write a list such as `[{learning_rate: 0.1, seed: 3}]`, or the path of a .csv file"
        faults.add(path, f"expected a list of points, found {describe(written) if written else 'nothing'}", hint)
        return
    for index, point in enumerate(written):
        if not isinstance(point, dict) or not point:
            found = describe(point) if point else "nothing"
            faults.add((*path, index), f"expected a point, found {found}", "write `{learning_rate: 0.1}`")


def _objective(written: Any, path: Path, faults: Faults) -> SweepObjective | None:
    if not isinstance(written, dict):
        faults.add(path, f"expected a mapping, found {describe(written)}", _OBJECTIVE)
        return None
    goals = [key for key in ("minimize", "maximize") if written.get(key) is not None]
    if len(goals) != 1:
        message = "an objective both minimizes and maximizes" if goals else "the objective names no column"
        faults.add(path, message, _OBJECTIVE, key=True)
        return None
    over = written.get("over")
    if isinstance(over, str) and over not in OVER and not _is_mean(over):
        hint = f"write `last`, `best`, or `mean(10)` for the mean of the last ten, of {MOST_RECENT:,} at most"
        faults.add((*path, "over"), f"there is no choice `{over}`", hint)
    return faults.build(SweepObjective, written, path)


def _is_mean(text: str) -> bool:
    inner = text.removeprefix("mean(").removesuffix(")")
    return text == f"mean({inner})" and inner.isdecimal() and len(inner) < 6 and 0 < int(inner) <= MOST_RECENT


def _mapping(model: type[Any], written: Any, path: Path, faults: Faults) -> Any:
    if not isinstance(written, dict):
        faults.add(path, f"expected a mapping, found {describe(written)}", f"write a mapping: {model.noun}")
        return None
    return faults.build(model, written, path)
