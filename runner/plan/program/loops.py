"""The loops around the step that is being planned, and how many batches an iteration of them draws."""

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
    times: int  # of a `repeat`
    source: str | None  # of a `for_each`
    conditional: bool  # may be skipped
    leaves: list[int] = field(default_factory=list)  # positions of the `stop`s that leave it
    more: int = 0  # batches of the source that an iteration draws after its own
    more_path: ConfigPath = ()  # where it says so


@dataclass(slots=True)
class Loops:
    """The loops of a program, numbered from 0 as they begin; `around` are those not closed yet, outermost first."""

    faults: Faults
    around: list[Loop] = field(default_factory=list)
    count: int = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """Those around the step, outermost first."""
        return tuple(loop.number for loop in self.around)

    @property
    def sources(self) -> tuple[str, ...]:
        """Those that the loops around the step draw from, innermost first."""
        return tuple(loop.source for loop in reversed(self.around) if loop.source is not None)

    def new(self, step: models.Step, *, times: int = 0, source: str | None = None) -> Loop:
        """The next loop, whose steps are not planned yet."""
        self.count += 1
        return Loop(self.count - 1, times, source, _may_be_skipped(step))

    @contextmanager
    def within(self, loop: Loop) -> Iterator[None]:
        """What is planned here stands in that loop."""
        self.around.append(loop)
        yield
        self.around.pop()

    def pass_length(self, source: SourcePlan, loop: Loop) -> int:
        """The iterations of one pass over a source, each of which draws one batch or more."""
        draws = loop.more + 1
        if source.batches % draws:
            message = f"an iteration draws {draws} batches of `{source.name}`, which has {source.batches} in a pass"
            hint = f"choose a `batch_size` that gives a multiple of {draws} batches"
            if source.samples % source.batch_size and not source.drop_last and not (source.batches - 1) % draws:
                hint = "write `drop_last: true`, which leaves out the shorter last one"
            self.faults.add(loop.more_path, message, hint, key=True)
            return 1
        return source.batches // draws

    def draw_more(self, source: str, count: int, step: models.Step, path: ConfigPath) -> None:
        """A step draws `count` batches of a source; inside a loop over it, those belong to the loop's pass."""
        times, conditional = count, _may_be_skipped(step)
        for loop in reversed(self.around):
            if loop.source == source:
                if conditional:
                    message = f"this step draws more batches of `{source}`, and may be skipped"
                    hint = "remove its condition: the loop's passes have to come out even"
                    self.faults.add(path, message, hint, key=True)
                    return
                loop.more += times
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
