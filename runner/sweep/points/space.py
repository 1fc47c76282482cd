"""The points of a sweep: every combination of its axes, each as a list of overrides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from runner.config import Config, overridden
from runner.config.document import Document
from runner.config.sweep_models import SpaceDeclaration
from runner.config.text.emit import flow_text
from runner.config.text.nodes import Path
from runner.faults import Faults
from runner.language.text.arithmetic import Scalar
from runner.plan.scalars import integer, scalar_constants
from runner.sweep.points.axis import COLUMNS, MEAN_COLUMNS, Axis, Values
from runner.sweep.points.overlaps import full_path, overlaps
from runner.sweep.points.point_files import read_points
from runner.sweep.points.values import MOST_VALUES, AxisFault, check_distribution, drawn, resolved, values_of


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep: the config with some overrides."""

    index: int
    values: Values

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides as a command line writes them."""
        return tuple(f"{path}={flow_text(value)}" for path, value in self.values.items())

    @property
    def label(self) -> str:
        """The point in messages: ``point 3 (learning_rate=0.1 seed=2)``."""
        return f"point {self.index} ({' '.join(self.overrides)})" if self.values else f"point {self.index}"


@dataclass(frozen=True, slots=True)
class Space:
    """The union of products of axes. The last axis of a product varies fastest."""

    products: tuple[tuple[Axis, ...], ...]
    document: Document | None = None  # of the config that declares it

    def __len__(self) -> int:
        return sum(math.prod(len(axis.choices) for axis in axes) for axes in self.products)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every override path that some point sets, in order."""
        return tuple(dict.fromkeys(path for axes in self.products for axis in axes for path in axis.paths))

    def points(self) -> Iterator[Point]:
        """Yields every point, numbered from 0."""
        products = (itertools.product(*[axis.choices for axis in axes]) for axes in self.products)
        for index, choices in enumerate(itertools.chain.from_iterable(products)):
            yield Point(index, {path: value for choice in choices for path, value in choice.items()})

    def first_choices(self) -> Space:
        """The space with the first choice of each axis alone."""
        products = tuple(tuple(replace(axis, choices=axis.choices[:1]) for axis in axes) for axes in self.products)
        return Space(products, self.document)

    def replaced(self, axes: Mapping[str, list[Any]]) -> Space:
        """The space with more axes in every product; an axis of the same path is replaced.

        Args:
            axes: values by override path, as a command line gives them.
        """
        added = tuple(Axis((path,), [{path: value} for value in values]) for path, values in axes.items())
        names = frozenset(map(full_path, axes))
        products = tuple((*(_without(axis, names) for axis in product), *added) for product in self.products)
        kept = tuple(tuple(axis for axis in product if axis.paths) for product in products)
        return Space(kept or (added,), self.document)


def _without(axis: Axis, replaced: Collection[str]) -> Axis:
    paths = tuple(path for path in axis.paths if full_path(path) not in replaced)
    if paths == axis.paths:
        return axis
    choices = [{path: value for path, value in each.items() if path in paths} for each in axis.choices]
    return replace(axis, paths=paths, choices=choices)


@dataclass(frozen=True, slots=True)
class Draws(Sequence[Values]):
    """The draws of some random axes, each made when it is read."""

    draw: Mapping[str, Any]
    seed: int
    scalars: Mapping[str, Scalar]
    samples: int

    def __len__(self) -> int:
        return self.samples

    @overload
    def __getitem__(self, number: int) -> Values: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Values]: ...

    def __getitem__(self, number: int | slice) -> Values | Sequence[Values]:
        if isinstance(number, slice):
            return [self[each] for each in range(self.samples)[number]]
        place = range(self.samples)[number]
        return {name: drawn(written, self.seed, name, place, self.scalars) for name, written in self.draw.items()}


def space_of(config: Config) -> Space:
    """The space that a config declares; a single point if it declares none.

    Raises:
        ConfigError: the values of an axis are not valid; each problem is at the place of its axis.
    """
    if config.sweep is None:
        return Space(((),))
    faults = Faults(config.document)
    scalars = scalar_constants(config, faults)
    faults.stop()
    reader = _Reader(config, scalars, faults, config.sweep.seed)
    if config.sweep.union:
        spaces = [(space, ("sweep", "union", index)) for index, space in enumerate(config.sweep.union)]
        products = tuple(reader.product(space, path) for space, path in spaces)
    else:
        products = (reader.product(config.sweep, ("sweep",)),)
    faults.stop()
    return Space(products, config.document)


@dataclass(frozen=True, slots=True)
class _Reader:
    config: Config
    scalars: Mapping[str, Scalar]
    faults: Faults
    seed: int

    def product(self, space: SpaceDeclaration, path: Path) -> tuple[Axis, ...]:
        axes = [self.axis({name: values}, (*path, "grid")) for name, values in space.grid.items()]
        axes += [self.axis(together, (*path, "zip", index)) for index, together in enumerate(space.zip)]
        if space.random is not None:
            axes.append(self.random(space, (*path, "random")))
        if space.points is not None:
            axes.append(self.listed(space.points, (*path, "points")))
        found = tuple(axis for axis in axes if axis is not None)
        self.check(found)
        return found

    def check(self, axes: Sequence[Axis]) -> None:
        """Check that no axis sets the sweep itself, or what another axis sets, or is called as another column."""
        taken = taken_names(self.config)
        for axis in axes:
            for name in axis.paths:
                if not name or name.startswith("~") or "=" in name:
                    hint = "name a value such as `learning_rate` or `optimizer.sgd.lr`"
                    self.faults.add(axis.at(name), f"`{name}` is not the path of a value", hint, key=not axis.listed)
                if name.partition(".")[0] == "sweep":
                    message, hint = "an axis cannot change the sweep", "name a value of the config without its sweep"
                    self.faults.add(axis.at(name), f"{message}: `{name}`", hint, key=not axis.listed)
                if name in taken:
                    self.faults.add(axis.at(name), taken_message(name), taken_hint(name), key=not axis.listed)
        for overlap in overlaps(axes):
            line = self.config.document.mark(overlap.other.at(overlap.before), key=True).line
            message = f"{overlap.message}; the other is in line {line}"
            self.faults.add(overlap.axis.at(overlap.name), message, "remove one of them", key=True)

    def axis(self, written: Mapping[str, Any], path: Path) -> Axis | None:
        columns: dict[str, list[Any]] = {}
        for name, values in written.items():
            try:
                columns[name] = values_of(values, self.scalars)
            except AxisFault as fault:
                self.faults.add((*path, name), fault.message, fault.hint)
                return None
        first, count = next((name, len(values)) for name, values in columns.items())
        for name, values in columns.items():
            if len(values) != count:
                message = f"`{name}` has {len(values)} values, and `{first}` has {count}"
                self.faults.add((*path, name), message, "give the axes of one `zip` equal lengths", key=True)
                return None
        if count * len(columns) > MOST_VALUES:
            message = (
                f"the axes have {count * len(columns):,} values together, and at most {MOST_VALUES:,} are possible"
            )
            self.faults.add(path, message, "write fewer")
            return None
        choices = [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]
        return Axis(tuple(columns), choices, path)

    def random(self, space: SpaceDeclaration, path: Path) -> Axis | None:
        assert space.random is not None
        samples = integer(space.random.samples, (*path, "samples"), self.scalars, self.faults, 1)
        draw = space.random.draw
        if samples is not None and samples > MOST_VALUES:
            message = f"`random` has {samples:,} samples, and at most {MOST_VALUES:,} are possible"
            self.faults.add((*path, "samples"), message, "write a smaller number")
            return None
        for name, written in draw.items():
            try:
                check_distribution(written, self.scalars)
            except AxisFault as fault:
                self.faults.add((*path, "draw", name), fault.message, fault.hint)
                return None
        if samples is None:
            return None
        listed = {name: resolved(written, self.scalars) for name, written in draw.items()}
        return Axis(tuple(draw), Draws(listed, self.seed, self.scalars, samples), (*path, "draw"))

    def listed(self, points: Any, path: Path) -> Axis | None:
        if isinstance(points, str):
            try:
                points = read_points(points, self.config.document, path)
            except AxisFault as fault:
                self.faults.add(path, fault.message, fault.hint)
                return None
        names = tuple(dict.fromkeys(name for point in points for name in point))
        return Axis(names, points, path, listed=True)


def taken_names(config: Config) -> frozenset[str]:
    """The names that no axis has, because other columns of the points have them."""
    objective = None if config.sweep is None else config.sweep.objective
    means = MEAN_COLUMNS if objective is not None and objective.mean_over else ()
    return frozenset((*COLUMNS, *means))


def taken_message(name: str) -> str:
    return f"an axis cannot be called `{name}`: the table of points has another column of that name"


def taken_hint(name: str) -> str:
    return f"write `{full_path(name)}`, if the constant is meant"


def without_sweep(config: Config) -> Config:
    """The config without its sweep, as `run` takes it."""
    return config if config.sweep is None else overridden(config, ["~sweep"])
