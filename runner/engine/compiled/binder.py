"""Binds `train` steps to compiled code."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.engine import eager
from runner.engine.binding import Binding
from runner.engine.compiled.trainer import Library, Trainer
from runner.engine.rows import Compiling, Row, Rows
from runner.engine.session import Session
from runner.engine.steps.step_code import Run
from runner.plan.checks.compilable import loop_around
from runner.plan.program.instructions import Action, LoopStart, Train

MakeLibrary = Callable[[Binding, Train, bool, Compiling], Library]
"""Makes the compiled code of equal steps; the flag says whether one of them runs several iterations at once."""


class Binder:
    """Binds `train` steps to compiled code, and other steps as the eager engine does.

    `several` maps the position of each bound step that is alone in a loop to its iterator over rows.

    Args:
        library: makes the compiled code of equal steps.
        compiling: called at each compilation.
        shared, by_row, together: as in the engines.
    """

    def __init__(
        self,
        library: MakeLibrary,
        compiling: Compiling | None,
        *,
        shared: bool,
        by_row: bool,
        together: bool = False,
    ) -> None:
        self._library = library
        self._compiling = compiling or (lambda path, seconds: None)
        self._shared = shared
        self._by_row = by_row
        self._together = together
        self.several: dict[int, Callable[[], Iterator[Row | Rows]]] = {}

    def __call__(self, session: Session, position: int, action: Action) -> Run:
        if not isinstance(action.argument, Train):
            return eager.bind_step(session, position, action)
        binding = session.binding
        libraries = binding.state.compiled
        if not libraries:
            libraries.update(_libraries(binding, self._library, self._compiling))
        loop = loop_around(binding.plan.program, position)
        trainer = Trainer(
            session,
            position,
            loop,
            libraries[position],
            shared=self._shared,
            by_row=self._by_row,
            together=self._together,
        )
        if loop is not None:
            self.several[position] = trainer.rows
        return trainer.run


def _libraries(binding: Binding, make: MakeLibrary, compiling: Compiling) -> dict[int, Library]:
    """Returns the compiled code of each `train` step by its position. Steps with equal keys share one compilation."""
    plan = binding.plan
    found: dict[int, tuple[_Same, LoopStart | None]] = {}
    for position, instruction in enumerate(plan.program):
        if isinstance(instruction, Action) and isinstance(instruction.argument, Train):
            found[position] = _same(instruction, instruction.argument), loop_around(plan.program, position)
    made: list[tuple[_Same, Library]] = []
    libraries: dict[int, Library] = {}
    for position, (same, _) in found.items():
        library = next((library for other, library in made if other == same), None)
        if library is None:
            several = any(loop is not None for other, loop in found.values() if other == same)
            library = make(binding, same[0], several, compiling)
            made.append((same, library))
        libraries[position] = library
    return libraries


_Same = tuple[Train, tuple[int, ...]]
"""The key of a step. Steps with equal keys share one compilation."""


def _same(action: Action, argument: Train) -> _Same:
    """Returns the key of a step: its argument, and the loops whose iteration it reads, if any."""
    reads = any("iteration" in computation.inputs for computation in argument.evaluation.computations())
    return argument, action.loops if reads else ()
