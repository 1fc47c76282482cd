"""Leads from the names on a page to the lines of the config that write them."""

from __future__ import annotations

from dataclasses import dataclass

from runner.report.difference.model import Difference
from runner.report.difference.side import Line, Side, address
from runner.report.listing import MOST_LINES
from runner.report.markup import NOTHING, Markup, tag, text

MOST_KEYS = 6
"""The most keys of configs that differ that a sentence names."""


@dataclass(frozen=True, slots=True)
class Leads:
    """The addresses of a difference: the lines of the found side, or else of the expected one."""

    difference: Difference

    def name(self, name: str) -> Markup:
        """The name of a column, which leads to its line if it has one."""
        found = self.address(name)
        return text(name) if found is None else tag("a", text(name), href=f"#{found}")

    def step(self, path: str, said: str) -> Markup:
        found = self.step_address(path)
        return text(said) if found is None else tag("a", text(said), href=f"#{found}")

    def configs(self) -> Markup:
        """The keys of the configs that differ, which lead to both texts; nothing if none differs."""
        keys = [each.key for each in self.difference.config]
        if not keys:
            return NOTHING
        named = ", ".join(keys[:MOST_KEYS]) + (", …" if len(keys) > MOST_KEYS else "")
        link = tag("a", text(named), href=f"#{self.difference.prefix}config")
        return tag("p", text("The configs differ in "), link, text("."))

    def address(self, name: str) -> str | None:
        return self._first([(side, side.columns.get(name)) for side in self._sides()])

    def step_address(self, path: str) -> str | None:
        return self._first([(side, side.steps.get(path)) for side in self._sides()])

    def _sides(self) -> list[Side]:
        return [side for side in (self.difference.found, self.difference.expected) if side is not None]

    def _first(self, found: list[tuple[Side, Line | None]]) -> str | None:
        known = ((side, line) for side, line in found if line is not None and line[1] <= MOST_LINES)
        return next((address(side, line, self.difference.prefix) for side, line in known), None)
