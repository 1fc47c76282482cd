"""The eager engine: binds the program to its tensors once, then runs it step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

import torch

from runner.engine.binding import Binding
from runner.engine.faults import FAULTS, run_fault
from runner.engine.rows import AnyRows, Row
from runner.engine.session import KEPT, SaveCheckpoint, Session, open_session
from runner.engine.state import State, Withheld, initial_state
from runner.engine.steps import steps
from runner.engine.steps.following import conclude, is_exhausted, starting_again
from runner.engine.steps.step_code import Run
from runner.engine.watch.watch import Watch
from runner.errors import RunError
from runner.language.inference.generators import left_alone
from runner.plan.determinism import deterministic
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Break, Instruction, LoopEnd, LoopStart, When
from runner.plan.rows.layout import Held, copied

Jump = Callable[[int], int]
"""The start or end of a loop: takes its own position, and returns the next one."""

Bound = tuple[Callable[..., Any], Action | None]
"""A bound instruction: the function that runs it, and the action whose rows it makes; None for a jump."""

Bind = Callable[[Session, int, Action], Run]
"""Binds the step at a position of the program."""

BindJump = Callable[[Session, int, LoopStart | LoopEnd | Break], Jump]
"""Binds the jump at a position of the program."""

Several = Mapping[int, Callable[[], Iterator[AnyRows]]]
"""Functions by position. Each runs several steps at once, yields their rows, and moves the state past them."""


def bind_step(session: Session, position: int, action: Action) -> Run:
    """Bind a step as the eager engine runs it."""
    return steps.bind(session, action.argument, action.loops, position)


def bind_jump(session: Session, position: int, instruction: LoopStart | LoopEnd | Break) -> Jump:
    """Bind the start or end of a loop, or what leaves it, as the eager engine runs it."""
    match instruction:
        case LoopStart():
            return _enter(session.binding, instruction)
        case LoopEnd():
            return _again(session.binding, instruction)
        case Break():
            return _leave(session, position, instruction)


def execute(
    plan: Plan,
    state: State | None = None,
    *,
    checkpoint: SaveCheckpoint | None = None,
    shared: bool = False,
    watch: Watch | None = None,
    bind: Bind = bind_step,
    jump: BindJump = bind_jump,
    groups: bool = False,
) -> Iterator[Row]:
    """Run a plan with the eager engine, and yield a row for its start and after each step.

    Args:
        bind: binds a step to the tensors of the run.
        jump: binds the start or end of a loop, or what leaves it.
        groups: whether rows hold many small tensors of one shape as one; `bind` must not read what rows hold.
    The other arguments, and what it raises, are those of `execute` of `engines.py`.
    """
    rows = execute_several(
        plan, state, checkpoint=checkpoint, shared=shared, watch=watch, bind=bind, jump=jump, groups=groups
    )
    return cast(Iterator[Row], rows)


def execute_several(
    plan: Plan,
    state: State | None = None,
    *,
    checkpoint: SaveCheckpoint | None = None,
    shared: bool = False,
    watch: Watch | None = None,
    bind: Bind = bind_step,
    jump: BindJump = bind_jump,
    several: Several = MappingProxyType({}),
    groups: bool = False,
) -> Iterator[AnyRows]:
    """Run a plan as `execute` does; some steps run several at a time, and may yield their rows together.

    Args:
        several: steps that run several at a time; read after all steps are bound.
    """
    state = initial_state(plan) if state is None else state
    session = open_session(plan, state, checkpoint=checkpoint, watch=watch, groups=groups)
    program = [_bind(session, position, each, bind, jump) for position, each in enumerate(plan.program)]
    row = making_rows(session.binding, shared=shared)
    if state.row == 0:
        session.watch.start()
        yield _first_row(session.binding, shared=shared)
        if session.watch.failure is not None:
            raise RunError(session.watch.failure)
    with left_alone(plan.device, plan.random), deterministic(plan.device):
        yield from _steps(session, program, several, row)


def _steps(
    session: Session, program: Sequence[Bound], several: Several, row: Callable[[Action, Held], Row]
) -> Iterator[AnyRows]:
    """Runs the program from the position of the state, and yields the row of each step."""
    plan, state, watch = session.binding.plan, session.binding.state, session.watch
    program = [(run, None if position in several else action) for position, (run, action) in enumerate(program)]
    last, position, end = state.last, state.position, len(program)
    try:
        yield from _last_rows(plan, last, row)
        while position < end:
            run, action = program[position]
            if action is None:
                if position in several:
                    yield from several[position]()
                    position = state.position
                    if watch.failure is not None:
                        break
                    continue
                position = state.position = run(position)
                if last:
                    yield from _last_rows(plan, last, row)
                continue
            values = run()
            position += 1
            state.position = position
            if values is not None:
                yield row(action, values)
            if watch.failure is not None:
                break
        watch.settle()
        session.health.conclude()
        conclude(session)
        if watch.failure is not None:
            raise RunError(watch.failure)
    except FAULTS as error:
        raise run_fault(plan, state, position, error) from error


def _first_row(binding: Binding, *, shared: bool) -> Row:
    """Returns the row of the initial values, and counts it."""
    binding.state.row = 1
    values = tuple(binding.latest)
    return Row(0, "start", "start", 1, binding.layout, values if shared else copied(values))


def making_rows(binding: Binding, *, shared: bool) -> Callable[[Action, Held], Row]:
    """Returns a function that makes the row of a step from its values, and counts it."""
    state, layout, iterations = binding.state, binding.layout, binding.state.iterations

    def row(action: Action, values: Held) -> Row:
        number = state.row
        state.row = number + 1
        loops = action.loops
        if loops:
            iteration, path = iterations[loops[-1]], action.path.format(*iterations)
        else:
            iteration, path = 1, action.path
        return Row(number, action.kind, path, iteration, layout, values if shared else copied(values))

    return row


def _last_rows(plan: Plan, last: list[Withheld], row: Callable[[Action, Held], Row]) -> Iterator[Row]:
    """Yields the last rows of a loop that ended early, and removes them from `last`."""
    while last:
        position, values = last.pop(0)
        action = plan.program[position]
        assert isinstance(action, Action)
        yield row(action, values)


def _bind(session: Session, position: int, instruction: Instruction, bind: Bind, jump: BindJump) -> Bound:
    match instruction:
        case LoopStart() | LoopEnd():
            return _keeping(session, position, jump(session, position, instruction)), None
        case Break():
            return jump(session, position, instruction), None
        case Action():
            return _action(session, position, instruction, bind), instruction


def _keeping(session: Session, position: int, jump: Jump) -> Jump:
    """A jump that first keeps the state, if it is where the state of a finished run is kept."""
    binding = session.binding
    kept = session.last_loop
    if kept is None or position not in (kept.start, kept.end) or position - 1 in session.keeping:
        return jump
    iterations, iteration = binding.state.iterations, kept.kept(binding.plan.log.every)
    if (position == kept.start) != (iteration <= 0):
        return jump
    loop, save = kept.loop, session.checkpoint

    def run(position: int) -> int:
        if iteration <= 0 or iterations[loop] == iteration:
            save(KEPT)
        return jump(position)

    return run


def _enter(binding: Binding, instruction: LoopStart) -> Jump:
    if instruction.source is not None:
        return _enter_pass(binding, instruction, instruction.source)
    iterations, loop, times, end = binding.state.iterations, instruction.loop, instruction.times, instruction.exit
    withheld = binding.state.withheld
    due = _due(binding, instruction.every, instruction.when, instruction.loops)
    start_again = starting_again(binding.state, binding.plan.program, loop)

    def run(position: int) -> int:
        if not (times and due()):
            return end
        iterations[loop] = 1
        start_again()
        withheld.pop(loop, None)
        return position + 1

    return run


def _enter_pass(binding: Binding, instruction: LoopStart, source: str) -> Jump:
    """The start of a `for_each` loop: begins a pass and draws its first batch."""
    enter = _enter(binding, replace(instruction, source=None))
    batches, end = binding.state.batches[source], instruction.exit

    def run(position: int) -> int:
        following = enter(position)
        if following != end:
            batches.begin()
            batches.next()
        return following

    return run


def _again(binding: Binding, instruction: LoopEnd) -> Jump:
    if instruction.source is not None:
        return _again_pass(binding, instruction, instruction.source)
    iterations, loop, times, start = binding.state.iterations, instruction.loop, instruction.times, instruction.start

    def run(position: int) -> int:
        if iterations[loop] < times:
            iterations[loop] += 1
            return start
        return position + 1

    return run


def _again_pass(binding: Binding, instruction: LoopEnd, source: str) -> Jump:
    """The end of a `for_each` loop: draws the next batch, of a new pass if this one is over."""
    again = _again(binding, replace(instruction, source=None))
    batches, start = binding.state.batches[source], instruction.start
    iterations, loop, length = binding.state.iterations, instruction.loop, instruction.pass_length

    def run(position: int) -> int:
        following = again(position)
        if following == start:
            if iterations[loop] % length == 1 or length == 1:
                batches.begin()
            batches.next()
        return following

    return run


def _leave(session: Session, position: int, instruction: Break) -> Jump:
    """Leave the loop. The rows of this iteration are its last, which the log keeps.

    If it is the last loop, the state is kept as it is then.
    """
    binding = session.binding
    due = _due(binding, instruction.every, instruction.when, instruction.loops)
    if instruction.patience is not None:
        is_now, exhausted = due, is_exhausted(binding, instruction.patience, position)
        due = lambda: is_now() and exhausted()  # noqa: E731
    state, end, loop = binding.state, instruction.exit, instruction.loops[-1]
    withheld, iterations, last = state.withheld, state.iterations, state.last
    is_last = session.last_loop is not None and session.last_loop.loop == loop
    save = session.checkpoint

    def run(position: int) -> int:
        if not due():
            return position + 1
        iteration, rows = withheld.pop(loop, (0, []))
        if iteration == iterations[loop]:
            last.extend(rows)
        state.position = end
        if is_last:
            save(KEPT)
        return end

    return run


def _action(session: Session, position: int, action: Action, bind: Bind) -> Run:
    binding = session.binding
    run = bind(session, position, action)
    if not torch.is_grad_enabled():
        run = _with_gradients(run)
    if action.rows and action.loops and binding.plan.log.every > 1:
        run = _every_row(session, run, position, action)
    if action.every is not None or action.when is not None:
        run = _if_due(run, _due(binding, action.every, action.when, action.loops))
    return run


def _every_row(session: Session, run: Run, position: int, action: Action) -> Run:
    """Drop the rows of iterations that the log leaves out, but keep the last iteration and a row that ends the run."""
    binding = session.binding
    every, loop, iterations = binding.plan.log.every, action.loops[-1], binding.state.iterations
    program = binding.plan.program
    times = next(item.times for item in program if isinstance(item, LoopStart) and item.loop == loop)
    stops = any(isinstance(item, Break) and item.loops[-1] == loop for item in program)
    withheld, watch = binding.state.withheld, session.watch

    def kept() -> Held | None:
        values = run()
        iteration = iterations[loop]
        if iteration % every == 0 or iteration == times or watch.failure is not None:
            return values
        if stops and values is not None:
            if loop not in withheld or withheld[loop][0] != iteration:
                withheld[loop] = (iteration, [])
            withheld[loop][1].append((position, binding.layout.values(values)))  # without groups: `_may_group`
        return None

    return kept


def _due(binding: Binding, every: int | None, when: When | None, loops: Sequence[int]) -> Callable[[], bool]:
    """A function that returns whether a step with `every` or `when` runs now."""
    iterations = binding.state.iterations
    condition = None if when is None else binding.call(when.computation, loops, observes=True)
    loop = loops[-1] if loops else -1

    def due() -> bool:
        if every is not None and iterations[loop] % every:
            return False
        return True if condition is None else bool(condition()[0])

    return due


def _if_due(run: Run, due: Callable[[], bool]) -> Run:
    return lambda: run() if due() else None


def _with_gradients(run: Run) -> Run:
    def enabled() -> Held | None:
        with torch.enable_grad():
            return run()

    return enabled
