"""The parts of a page: sections, each with text, and with data that a view in `assets` draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.errors import Problem
from runner.report.markup import NOTHING, Markup


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page.

    Values in `data` are strings, numbers, lists, mappings and NumPy arrays of little-endian numbers; the page passes
    an array to the view as a typed array.
    """

    name: str  # a word: the fragment of its address
    title: str
    text: Markup = NOTHING  # shown as it is, above what the view draws
    view: str | None = None  # the function of `assets` that draws `data`
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """A page: what stands at its top, its sections in order, and where it opens."""

    title: str
    head: Markup
    sections: tuple[Section, ...]
    shared: Mapping[str, Any] = field(default_factory=dict)  # data for all views, such as the chosen rows
    opens_at: str | None = None  # the section that it opens at; None: its top
    problems: tuple[Problem, ...] = ()  # what is damaged; the page says so at its top
