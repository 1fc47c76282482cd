"""The last loop of a program, whose count may grow after the run has finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.faults import ConfigPath
from runner.plan.program.instructions import Instruction, LoopEnd, LoopStart


@dataclass(frozen=True, slots=True)
class LastLoop:
    """The last loop that is in no other loop."""

    loop: int
    times: int
    start: int  # the positions of its instructions
    end: int
    config_path: ConfigPath

    def kept(self, every: int) -> int:
        """The iteration after which the state is kept; 0: before the loop.

        It is the last one, unless the log, with a row for each `every` iterations, keeps the rows of that iteration
        only because it is the last: a longer run does not have them.
        """
        return self.times if self.times % every == 0 else self.times - 1


def last_loop(program: Sequence[Instruction]) -> LastLoop | None:
    """The last loop of a program that is in no other loop; None if the program has no loop."""
    starts = [
        (position, item) for position, item in enumerate(program) if isinstance(item, LoopStart) and not item.loops
    ]
    if not starts:
        return None
    start, head = starts[-1]
    end = next(
        position for position, item in enumerate(program) if isinstance(item, LoopEnd) and item.loop == head.loop
    )
    return LastLoop(head.loop, head.times, start, end, head.config_path)
