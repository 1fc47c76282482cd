"""Warns of `step` instructions that change nothing, because no gradient can be there when they run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runner.faults import Faults
from runner.plan.program.instructions import Action, Assign, Backward, Instruction, Step, Train, ZeroGrad


def check_gradients(program: Sequence[Instruction], faults: Faults) -> None:
    """Warn of each `step` that no `backward` precedes, and of each whose gradients a `zero_grad` has always removed.

    An instruction of the same loop precedes a step too: it runs before the step of the next iteration.
    """
    actions = [each for each in program if isinstance(each, Action)]
    for place, action in enumerate(actions):
        if not isinstance(action.argument, Step) or action.argument.closure is not None:
            continue
        names = frozenset(action.argument.parameters)
        earlier = (actions[other] for other in range(place - 1, -1, -1))
        before = next((each for each in earlier if _bears_on(each, action, names)), None)
        later = (actions[other] for other in range(place, len(actions)))
        again = (each for each in later if set(each.loops) & set(action.loops))
        if before is None and not any(_gives(each, names) for each in again):
            message, hint = "no gradient is there yet", "put `backward` before it"
        elif before is not None and not _gives(before, names):
            message, hint = "`zero_grad` has removed every gradient", "put `zero_grad` after it"
        else:
            continue
        faults.warn(action.config_path, f"{message}, so this step changes nothing", hint)


def _bears_on(action: Action, step: Action, names: Collection[str]) -> bool:
    """Whether an instruction before a step decides if a gradient is there: it may give one, or always removes all."""
    return _gives(action, names) or (
        isinstance(action.argument, ZeroGrad)
        and action.argument.set_to_none
        and action.loops == step.loops
        and action.every is None
        and action.when is None
        and set(names).issubset(action.argument.parameters)
    )


def _gives(action: Action, names: Collection[str]) -> bool:
    """Whether one of these parameters may have a gradient after an instruction, by it."""
    match action.argument:
        case Backward(parameters=given) | Train(parameters=given):
            return not frozenset(given).isdisjoint(names)
        case Assign(targets=targets):
            return any(target.endswith(".grad") and target.removesuffix(".grad") in names for target in targets)
    return False
