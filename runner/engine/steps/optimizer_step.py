"""Takes the steps of optimizers, and puts the new weights and state into rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.faults import LateOption
from runner.engine.session import Session
from runner.engine.steps.step_code import StepCode
from runner.engine.watch.checks import Check
from runner.optim import Scheduled, Stepper
from runner.plan.program.instructions import Evaluation

_KEPT_FOR: Mapping[object, str] = {"max_exp_avg_sq": "amsgrad", "grad_avg": "centered", "momentum_buffer": "momentum"}
"""State entry → the option that needs it. torch creates it only in a parameter's first step, if the option is on."""


def measured(
    session: Session, takes: Sequence[Callable[[], None]], optimizers: Sequence[str]
) -> list[Callable[[], None]]:
    """The steps of optimizers, with the measurements of the health rules about updates."""
    binding = session.binding
    held = [name for optimizer in optimizers for name in binding.plan.optimizers[optimizer].parameters]
    return session.health.updates(takes, binding.parameters(held))


def stepping(
    binding: Binding, name: str, closure: Callable[[], Tensor] | None = None, *, in_place: bool = False
) -> Callable[[], None]:
    """A function that takes one step of an optimizer, with its hyperparameters for the next `t`.

    Args:
        in_place: whether weights keep their storage.
    """
    stepper, schedules = binding.state.steppers[name], binding.state.schedules[name]
    take = stepper.step_in_place if in_place else stepper.step
    if not isinstance(stepper, Stepper):  # a rule, which has no closure and no hyperparameters
        return take
    if closure is not None and binding.plan.optimizers[name].needs_closure:

        def take() -> None:
            stepper.step_closure(closure)

    if not schedules:
        return take

    def scheduled() -> None:
        t = stepper.steps + 1
        for schedule in schedules:
            stepper.set_option(schedule.group, schedule.option, schedule.value(t))
        try:
            take()
        except KeyError as error:  # a parameter's state lacks an entry
            late = _late(binding, name, t, error.args[0])
            if late is None:
                raise
            raise late from error

    return scheduled


def _late(binding: Binding, name: str, t: int, entry: object) -> LateOption | None:
    """The fault of an option that needs a state entry, but was off in a parameter's first step; else None."""
    plan = binding.plan.optimizers[name]
    for _, option, scheduled in plan.scheduled():
        if option == _KEPT_FOR.get(entry) and isinstance(scheduled, Scheduled):
            message = f"`{option}` is on at t = {t}, and `{plan.class_name}` keeps no `{entry}` for a parameter"
            return LateOption(f"{message} in whose first step it was off", scheduled.path)
    return None


def take_steps(
    session: Session,
    step: StepCode,
    optimizers: Sequence[str],
    look: Check | None,
    results: Sequence[str] = (),
    guard: Callable[[str, Callable[[], None]], Callable[[], None]] = lambda name, take: take,
) -> None:
    """Add the steps of some optimizers to the code of a step, then a check, and the new weights and state for rows.

    Args:
        guard: wraps the step of an optimizer, to skip it.
    """
    binding = session.binding
    takes = [guard(name, stepping(binding, name)) for name in optimizers]
    for take in measured(session, takes, optimizers):
        step.call(take, "update")
    step.look(look, results)
    for name in optimizers:
        step.keep_weights(binding.plan.optimizers[name].parameters)
    step.keep_state()


def owned(evaluation: Evaluation, results: tuple[Any, ...]) -> tuple[Any, ...]:
    """The results of an evaluation; those that share memory with a weight are copied, because the step writes it."""
    outputs = evaluation.computation.outputs
    return tuple(
        value.detach().clone() if output.aliases and isinstance(value, Tensor) else value
        for output, value in zip(outputs, results, strict=True)
    )
