"""Shows the progress of a sweep: one line on a terminal, otherwise a line for each failure."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.cli.output.bar import clock_time
from runner.cli.output.printing import say
from runner.cli.output.progress import can_draw
from runner.sweep.choosing.best import Best
from runner.sweep.choosing.groups import Means
from runner.text import counted, printable_line, shortened

if TYPE_CHECKING:
    from runner.sweep.choosing.objective import Objective
    from runner.sweep.points.outcome import Outcome
    from runner.sweep.points.space import Point

MOST_REASONS = 4
OFF = "--lanes off"

INTERVAL = 0.1  # seconds between two updates of the line


class SweepProgress:
    """Follows a sweep, and prints failures as they come.

    Args:
        total: the number of points.
        quiet: print nothing.
        points: the points if they are known, for an objective that is a mean over some axes.
    """

    def __init__(self, total: int, objective: Objective | None, quiet: bool, points: Sequence[Point] = ()) -> None:
        self._total = total
        self._objective = objective
        self._quiet = quiet
        self._draws = not quiet and can_draw(sys.stderr)
        self._done: dict[int, bool] = {}  # index → whether it failed
        self._running: set[int] = set()
        self._difference: tuple[float, str] | None = None  # the largest of lanes that are close only
        self._alone: dict[int, str] = {}  # index → why it did not run as a lane; empty if it did
        self._warned: set[int] = set()
        self._best = None if objective is None else Best(objective)
        self._unmeasured: set[int] = set()  # that ended, and whose objective is missing or NaN
        self._means = None if objective is None or not objective.mean_over else Means(objective, points)
        self._began = time.monotonic()
        self._before = 0  # points that an earlier process has run
        self._next = 0.0
        self._drawn = False

    def begun(self, index: int) -> None:
        """A point has begun."""
        self._running.add(index)
        self._draw()

    def known(self, outcomes: Sequence[Outcome]) -> None:
        """Points had ended before, in another process."""
        for outcome in outcomes:
            self._before += outcome.index not in self._done
            self._note(outcome)
        self._draw()

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Points have ended, or wait to be compared."""
        for outcome in outcomes:
            self._running.discard(outcome.index)
            self._note(outcome)
            if outcome.alone is not None:
                self._alone[outcome.index] = outcome.alone
                self._note_difference(outcome)
            if not self._quiet:
                self._print(outcome)
        self._draw()

    def _note(self, outcome: Outcome) -> None:
        self._done[outcome.index] = outcome.status == "failed"
        self._note_best(outcome)

    def _print(self, outcome: Outcome) -> None:
        """Print what a person should know of a point now: a warning, once, and a failure."""
        if outcome.warning is not None and outcome.index not in self._warned:
            self._warned.add(outcome.index)
            self.clear()
            say(f"warning: {printable_line(outcome.warning)}", err=True)
        if outcome.status == "failed":
            self.clear()
            say(f"point {outcome.index} failed: {printable_line(str(outcome.failure))}", err=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._drawn = False

    def summary(self) -> str:
        """What has become of the points: `12 of 20 points done, 1 failed, 2 running, best loss 0.31 (point 7), …`."""
        failed = sum(self._done.values())
        parts = [f"{len(self._done):,} of {self._total:,} points done"]
        parts += [f"{failed:,} failed"] if failed else []
        parts += [f"{len(self._running):,} running"] if self._running else []
        if self._objective is not None and self._means is not None:
            if self._means.best is not None:
                mean, first, count = self._means.best
                more = f" and {count - 1:,} more" if count > 1 else ""
                parts.append(f"best mean {self._objective.column} {mean:.5g} (point {first}{more})")
        elif self._objective is not None and self._best is not None and (best := self._best.found) is not None:
            parts.append(f"best {self._objective.column} {best[0]:.5g} (point {best[1]})")
        if self._unmeasured and self._objective is not None:
            which = "no point has" if len(self._unmeasured) == len(self._done) else f"{len(self._unmeasured):,} without"
            parts.append(f"{which} a number `{self._objective.column}`")
        new = len(self._done) - self._before
        left = self._total - len(self._done)
        if new and left:
            parts.append(f"{clock_time(round((time.monotonic() - self._began) / new * left))} left")
        return ", ".join(parts)

    def lanes(self) -> str | None:
        """How many points ran as lanes, and why the others did not; None if nothing decided that."""
        if not self._alone or not any(reason != OFF for reason in self._alone.values()):
            return None
        line = lanes_line(list(self._alone.values()))
        return line if self._difference is None else f"{line}; {self._difference[1]}"

    def _note_difference(self, outcome: Outcome) -> None:
        if outcome.difference is not None and outcome.distance is not None:
            found = (outcome.distance, outcome.difference)
            if self._difference is None or found[0] > self._difference[0]:
                self._difference = found

    def _note_best(self, outcome: Outcome) -> None:
        if self._objective is None or self._best is None:
            return
        value = self._objective.of(outcome)
        self._best.add(outcome.index, value)
        if self._means is not None:
            self._means.add(outcome.index, value)
        self._unmeasured.discard(outcome.index)
        if (value is None or value != value) and outcome.status != "failed":
            self._unmeasured.add(outcome.index)

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._draws or now < self._next:
            return
        self._next = now + INTERVAL
        from shutil import get_terminal_size

        width = get_terminal_size().columns
        sys.stderr.write(f"\r\x1b[2K{shortened(self.summary(), max(20, width - 1))}")
        sys.stderr.flush()
        self._drawn = True


def lanes_line(reasons: Sequence[str]) -> str:
    """`612 of 1,000 points in lanes; 388 in processes: lbfgs`.

    Args:
        reasons: for each point why it does not run as a lane; empty if it does.
    """
    stacked = sum(not reason for reason in reasons)
    text = f"{stacked:,} of {counted(len(reasons), 'point')} in lanes"
    alone = Counter(reason for reason in reasons if reason)
    if not alone:
        return text
    shown = [f"{count:,} {reason}" if len(alone) > 1 else reason for reason, count in alone.most_common(MOST_REASONS)]
    more = ["…"] if len(alone) > MOST_REASONS else []
    return f"{text}; {alone.total():,} in processes: {', '.join([*shown, *more])}"
