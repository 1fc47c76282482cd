"""Gives the problems of a point's overrides the place of their axis in the config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from runner.config.document import Document
from runner.config.text.emit import flow_text
from runner.config.text.nodes import ListNode, Path, ScalarNode
from runner.errors import Problem
from runner.sweep.points.axis import Axis
from runner.sweep.points.overlaps import full_path
from runner.sweep.points.space import Space


def placed(space: Space, problems: Iterable[Problem]) -> list[Problem]:
    """The problems, those of overrides at the axis that gives them, each once.

    A path that names nothing is marked as a key; a value that is not valid is marked itself, where it is written, or
    else the text or the distribution that gives it.
    """
    axes: dict[str, list[Axis]] = {}
    for axis in (axis for product in space.products for axis in product):
        for name in axis.paths:
            axes.setdefault(name, []).append(axis)
    found: dict[tuple[Any, ...], Problem] = {}
    for problem in problems:
        name, _, value = (problem.source or "").removeprefix("override ").partition("=")
        own = axes.get(name, []) if (problem.source or "").startswith("override ") else []
        if not own:
            found.setdefault((problem,), problem)
            continue
        axis = _axis_with(own, name, value)
        if problem.column is not None and problem.column <= len(name):
            found.setdefault((name, problem.message), _at_key(space.document, axis, name, problem))
        else:
            found.setdefault((problem,), _at_value(space.document, axis, name, value, problem))
    return list(found.values())


def _axis_with(axes: Sequence[Axis], name: str, value: str) -> Axis:
    """The axis that has a value, among those of one path: each space of a union may have one."""
    if len(axes) == 1:
        return axes[0]
    having = (axis for axis in axes if any(name in each and flow_text(each[name]) == value for each in axis.choices))
    return next(having, axes[0])


def _at_key(document: Document | None, axis: Axis, name: str, problem: Problem) -> Problem:
    if document is None or axis.place is None:
        return problem
    return document.problem(axis.at(name), problem.message, problem.hint, key=not axis.listed)


def _at_value(document: Document | None, axis: Axis, name: str, value: str, problem: Problem) -> Problem:
    if document is None or axis.place is None:
        return problem
    start = (problem.column or 1) - 1
    marked = (problem.excerpt or "")[start : start + problem.width]
    for path in _written(document, axis, name, problem):
        node = document.node(path)
        if isinstance(node, ScalarNode) and flow_text(node.value) in (value, marked):
            return document.problem(path, problem.message, problem.hint)
    if value.startswith(("{", "[")):  # the override marks what is wrong inside the block
        return problem
    return document.problem(axis.at(name), f"{problem.message}, with {name}={value}", problem.hint)


def _written(document: Document, axis: Axis, name: str, problem: Problem) -> Iterator[Path]:
    """The places where the values of an axis have what a problem is about."""
    node = document.node(axis.at(name))
    below = problem.path.removeprefix(full_path(name)) if problem.path.startswith(full_path(name)) else ""
    inside = [int(part) if part.isdecimal() else part for part in below.split(".") if part]
    for index in range(len(node.items) if isinstance(node, ListNode) else 0):
        path = (*axis.at(name), index, *([name] if axis.listed else []))
        yield path  # a short form, such as `steps: 3`, is one value, whatever is wrong in it
        yield (*path, *inside)
