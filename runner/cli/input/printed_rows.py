"""Which rows and columns a command prints: `--rows`, `--columns`, `--quiet` and `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from runner.cli.input.options import names_in
from runner.errors import Problem, UsageError

if TYPE_CHECKING:
    from runner.plan import Plan
    from runner.record.display.console import Printing, Rows

_ROWS = ("full", "lines", "none")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks to print."""

    rows: Rows | None = None  # None: by the length of the run
    columns: tuple[str, ...] | None = None  # None: all
    quiet: bool = False
    as_json: bool = False

    def printing(self, plan: Plan) -> Printing | None:
        """How to print the rows of a plan as text; None: not at all.

        Raises:
            UsageError: a name matches no column.
        """
        if self.quiet or self.as_json or self.rows == "none":
            return None
        from runner.record.display.console import plan_printing

        return plan_printing(plan, self.rows, self.columns)


def asked_rows(rows: str | None, columns: list[str] | None, quiet: bool, as_json: bool) -> Asked:
    """What four options ask for together.

    Raises:
        UsageError: `rows` is no choice, or an option would have no effect.
    """
    if rows not in (None, *_ROWS):
        raise UsageError(Problem(f"--rows is `{rows}`", "write `full`, `lines` or `none`"))
    names = names_in(columns)
    if names == []:
        raise UsageError(Problem("--columns names no column", "write for example `--columns loss`"))
    unused = next((name for name, value in (("--columns", names), ("--rows", rows)) if value is not None), None)
    if unused is not None:
        other = "--json" if as_json else "--quiet" if quiet else None
        if other is not None:
            raise UsageError(Problem(f"{unused} has no effect with {other}", f"leave {unused} out"))
        if rows == "none" and names is not None:
            raise UsageError(Problem("--columns has no effect with --rows none", "leave --columns out"))
    return Asked(cast("Rows | None", rows), None if names is None else tuple(names), quiet, as_json)
