"""The points of a sweep: every combination of its axes, each as a list of overrides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.config import Config, overridden
from runner.config.sweep_models import SpaceDeclaration
from runner.config.text.emit import flow_text
from runner.config.text.nodes import Path
from runner.faults import Faults
from runner.language.text.arithmetic import Scalar
from runner.plan.scalars import integer, scalar_constants
from runner.sweep.points.point_files import read_points
from runner.sweep.points.values import AxisFault, drawn, values_of

Values = Mapping[str, Any]
"""Override path → value."""


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
class Axis:
    """Some override paths whose values vary together."""

    paths: tuple[str, ...]
    choices: Sequence[Values]


@dataclass(frozen=True, slots=True)
class Space:
    """The union of products of axes. The last axis of a product varies fastest."""

    products: tuple[tuple[Axis, ...], ...]

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

    def replaced(self, axes: Mapping[str, list[Any]]) -> Space:
        """The space with more axes in every product; an axis of the same path is replaced.

        Args:
            axes: values by override path, as a command line gives them.
        """
        added = tuple(Axis((path,), [{path: value} for value in values]) for path, values in axes.items())
        products = tuple((*(_without(axis, axes) for axis in product), *added) for product in self.products)
        kept = tuple(tuple(axis for axis in product if axis.paths) for product in products)
        return Space(kept or (added,))


def _without(axis: Axis, replaced: Mapping[str, Any]) -> Axis:
    if not any(path in replaced for path in axis.paths):
        return axis
    paths = tuple(path for path in axis.paths if path not in replaced)
    return Axis(paths, [{path: value for path, value in each.items() if path in paths} for each in axis.choices])


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
    return Space(products)


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
        return tuple(axis for axis in axes if axis is not None)

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
        return Axis(
            tuple(columns), [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]
        )

    def random(self, space: SpaceDeclaration, path: Path) -> Axis | None:
        assert space.random is not None
        samples = integer(space.random.samples, (*path, "samples"), self.scalars, self.faults, 1)
        draw = space.random.draw
        choices = []
        for number in range(samples or 0):
            choice = {}
            for name, written in draw.items():
                try:
                    choice[name] = drawn(written, self.seed, name, number, self.scalars)
                except AxisFault as fault:
                    self.faults.add((*path, "draw", name), fault.message, fault.hint)
                    return None
            choices.append(choice)
        return Axis(tuple(draw), choices) if samples else None

    def listed(self, points: Any, path: Path) -> Axis | None:
        if isinstance(points, str):
            try:
                points = read_points(points, self.config.document, path)
            except AxisFault as fault:
                self.faults.add(path, fault.message, fault.hint)
                return None
        names = tuple(dict.fromkeys(name for point in points for name in point))
        return Axis(names, points)


def without_sweep(config: Config) -> Config:
    """The config without its sweep, as `run` takes it."""
    return config if config.sweep is None else overridden(config, ["~sweep"])
