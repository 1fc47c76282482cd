"""The compiled engine: the eager engine's program, its `train` steps taken in compiled regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.engine import eager
from runner.engine.binding import Binding
from runner.engine.compiled.library import CompilationFault, Library
from runner.engine.compiled.trainer import Trainer
from runner.engine.rows import Compiling, Row
from runner.engine.session import Session
from runner.engine.state import State, initial_state
from runner.engine.steps.step_code import Run
from runner.engine.watch.watch import Watch
from runner.errors import RunError
from runner.plan.checks.compilable import loop_around
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, LoopStart, Train


def execute(
    plan: Plan,
    state: State | None = None,
    *,
    checkpoint: Callable[[str | None], None] | None = None,
    shared: bool = False,
    watch: Watch | None = None,
    compiling: Compiling | None = None,
    by_row: bool = False,
) -> Iterator[Row]:
    """Run a plan as the eager engine does, and yield the same rows.

    A loop whose body is one `train` step is taken in regions of many iterations; whatever else stands beside `train`
    steps is done as in the eager engine.

    Args:
        plan: as `compile` gives it for `engine: compile`.
        state, checkpoint, shared, watch: as in the eager engine. What is saved in the middle of a region is the state
            at its begin.
        compiling: told of each compilation.
        by_row: regions are of one iteration.
    Raises:
        RunError: a step fails; the problem names the place in the config.
        ExpectationError: an `expect` step does not hold.
    """
    state = initial_state(plan) if state is None else state
    bind = _Binder(compiling or (lambda path, seconds: None), shared=shared, by_row=by_row)
    given = {"checkpoint": checkpoint, "shared": shared, "watch": watch}
    try:
        yield from eager.execute(plan, state, bind=bind, several=bind.several, **given)  # type: ignore[arg-type]
    except CompilationFault as error:
        raise _compilation_fault(plan, state.position, error) from error


def _compilation_fault(plan: Plan, position: int, error: CompilationFault) -> RunError:
    """What torch's compiler has against a step, or that a compiler is missing."""
    document, action = plan.config.document, plan.program[position]
    assert isinstance(action, Action)
    if error.no_compiler:
        hint = "install g++ or clang++, or name one in the environment variable CXX; or write `engine: eager`"
        return RunError(document.problem(("engine",), "`engine: compile` needs a C++ compiler, and finds none", hint))
    message = f"torch cannot compile this step: {error}"
    return RunError(document.problem(action.config_path, message, "write `engine: eager`", key=True))


class _Binder:
    """Binds `train` steps to what compiles them, and others as the eager engine does.

    `several` has those that are alone in a loop, once they are bound.
    """

    def __init__(self, compiling: Compiling, *, shared: bool, by_row: bool) -> None:
        self._compiling = compiling
        self._shared = shared
        self._by_row = by_row
        self.several: dict[int, Callable[[], Iterator[Row]]] = {}

    def __call__(self, session: Session, position: int, action: Action) -> Run:
        if not isinstance(action.argument, Train):
            return eager.bind_step(session, position, action)
        binding = session.binding
        libraries = binding.state.compiled
        if not libraries:
            libraries.update(_libraries(binding, self._compiling))
        loop = loop_around(binding.plan.program, position)
        trainer = Trainer(session, position, loop, libraries[position], shared=self._shared, by_row=self._by_row)
        if loop is not None:
            self.several[position] = trainer.rows
        return trainer.run


def _libraries(binding: Binding, compiling: Compiling) -> dict[int, Library]:
    """What is compiled for each `train` of the program, by its position; those that do the same share it."""
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
            library = Library(binding, same[0], several, compiling)
            made.append((same, library))
        libraries[position] = library
    return libraries


_Same = tuple[Train, tuple[int, ...]]
"""Steps of which this is equal do the same."""


def _same(action: Action, argument: Train) -> _Same:
    """What a step does, and where that depends on it the loops whose iteration it reads."""
    reads = any("iteration" in computation.inputs for computation in argument.evaluation.computations())
    return argument, action.loops if reads else ()
