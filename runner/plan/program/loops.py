"""The loops that enclose the step being planned, and the number of batches that their iterations draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runner.config import models
from runner.faults import ConfigPath, Faults
from runner.plan.data.sources import SourcePlan


@dataclass(slots=True)
class Loop:
    """A `repeat` or `for_each` whose steps are being planned."""

    number: int
    times: int  # iterations, for a `repeat`
    source: str | None  # the source, for a `for_each`
    conditional: bool  # whether it may be skipped
    leaves: list[int] = field(default_factory=list)  # positions of the `stop` steps that leave it
    more: int = 0  # additional batches of the source that an iteration draws
    more_path: ConfigPath = ()  # the path of the step that draws them
    accumulates: bool = True  # whether only steps that accumulate draw them, each once in an iteration


@dataclass(slots=True)
class Loops:
    """The loops of a program, numbered from 0 in the order of their starts.

    `enclosing` has the loops around the current step, outermost first.
    """

    faults: Faults
    enclosing: list[Loop] = field(default_factory=list)
    count: int = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the enclosing loops, outermost first."""
        return tuple(loop.number for loop in self.enclosing)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of the enclosing loops, innermost first."""
        return tuple(loop.source for loop in reversed(self.enclosing) if loop.source is not None)

    def new(self, step: models.Step, *, times: int = 0, source: str | None = None) -> Loop:
        """Returns a new loop with the next number."""
        self.count += 1
        return Loop(self.count - 1, times, source, _may_be_skipped(step))

    @contextmanager
    def within(self, loop: Loop) -> Iterator[None]:
        """Context manager: steps planned in its block are inside the loop."""
        self.enclosing.append(loop)
        yield
        self.enclosing.pop()

    def pass_length(self, source: SourcePlan, loop: Loop) -> int:
        """The number of iterations in one pass over a source; each draws one batch or more."""
        draws = loop.more + 1
        if source.batches % draws and not loop.accumulates:
            message = f"an iteration draws {draws} batches of `{source.name}`, which has {source.batches} in a pass"
            hint = f"choose a `batch_size` that gives a multiple of {draws} batches"
            if source.samples % source.batch_size and not source.drop_last and not (source.batches - 1) % draws:
                hint = "write `drop_last: true`, which leaves out the shorter last one"
            self.faults.add(loop.more_path, message, hint, key=True)
            return 1
        return -(-source.batches // draws)

    def draw_more(
        self, source: str, count: int, step: models.Step, path: ConfigPath, *, accumulates: bool = False
    ) -> None:
        """Record that a step draws `count` batches of a source; inside a loop over it, they count towards the pass.

        Args:
            accumulates: whether the step takes fewer batches at the end of a pass.
        """
        times, conditional = count, _may_be_skipped(step)
        for loop in reversed(self.enclosing):
            if loop.source == source:
                if conditional:
                    message = f"this step draws more batches of `{source}`, and may be skipped"
                    hint = "remove its condition: every pass of the loop must draw equally many batches"
                    self.faults.add(path, message, hint, key=True)
                    return
                loop.more += times
                loop.accumulates &= accumulates and times == count
                loop.more_path = path
                return
            if loop.source is not None and source in self.sources:
                message = f"this step draws more batches of `{source}` inside a loop over `{loop.source}`"
                self.faults.add(path, message, "draw them in the loop over their own source", key=True)
                return
            times *= loop.times
            conditional = conditional or loop.conditional or bool(loop.leaves)


def _may_be_skipped(step: models.Step) -> bool:
    return step.every is not None or step.when is not None
