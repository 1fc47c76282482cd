"""Gives the problems of a point's overrides the place of their axis in the config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runner.config.document import Document
from runner.config.text.emit import flow_text
from runner.config.text.nodes import ScalarNode
from runner.errors import Problem
from runner.sweep.points.axis import Axis
from runner.sweep.points.space import Space


def placed(space: Space, problems: Iterable[Problem]) -> list[Problem]:
    """The problems, those of overrides at the axis that gives them, each once.

    A path that names nothing is marked as a key; a value that is not valid is marked itself, where it is written.
    """
    axes = {name: axis for product in space.products for axis in product for name in axis.paths}
    found: dict[tuple[Any, ...], Problem] = {}
    for problem in problems:
        name, _, value = (problem.source or "").removeprefix("override ").partition("=")
        axis = axes.get(name) if (problem.source or "").startswith("override ") else None
        if axis is None:
            found.setdefault((problem,), problem)
        elif problem.column is not None and problem.column <= len(name):
            found.setdefault((name, problem.message), _at_key(space.document, axis, name, problem))
        else:
            found.setdefault((problem,), _at_value(space.document, axis, name, value, problem))
    return list(found.values())


def _at_key(document: Document | None, axis: Axis, name: str, problem: Problem) -> Problem:
    if document is None or axis.place is None:
        return problem
    return document.problem(axis.at(name), problem.message, problem.hint, key=not axis.listed)


def _at_value(document: Document | None, axis: Axis, name: str, value: str, problem: Problem) -> Problem:
    if document is None or axis.place is None or axis.listed:
        return problem
    path = axis.at(name)
    for index, choice in enumerate(axis.choices):
        node = document.node((*path, index))
        if flow_text(choice[name]) == value and isinstance(node, ScalarNode) and node.value == choice[name]:
            return document.problem((*path, index), problem.message, problem.hint)
    return problem
