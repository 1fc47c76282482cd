"""Says where a row stands in the loops of a program: its iteration, and the epoch and batch of a source."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.plan import Plan
from runner.plan.program.instructions import Action, LoopStart
from runner.report.run.stepping.replaying import pattern_of


class Places:
    """The loops of a plan, by the path of a row."""

    def __init__(self, plan: Plan | None) -> None:
        program = () if plan is None else plan.program
        loops = {each.loop: each for each in program if isinstance(each, LoopStart)}
        self._known = [
            (re.compile(pattern_of(each.path)), [loops[loop] for loop in each.loops])
            for each in program
            if isinstance(each, Action) and each.loops
        ]

    def words(self, path: str) -> str | None:
        """Where a row is in each loop: `iteration 26 of 128, epoch 2 of 8, batch 10 of 16`; None outside of loops."""
        for pattern, loops in self._known:
            match = pattern.fullmatch(path)
            if match:
                return _words(loops, [int(each) for each in match.groups()])
        return None


def _words(loops: Sequence[LoopStart], iterations: Sequence[int]) -> str:
    return "; ".join(_of_loop(loop, iteration) for loop, iteration in zip(loops, iterations, strict=False))


def _of_loop(loop: LoopStart, iteration: int) -> str:
    said = f"iteration {iteration:,} of {loop.times:,}"
    length = loop.pass_length
    if loop.source is None or length < 1 or loop.times <= length:
        return said
    epoch, batch = divmod(iteration - 1, length)
    return f"{said}, epoch {epoch + 1:,} of {-(-loop.times // length):,}, batch {batch + 1:,} of {length:,}"
