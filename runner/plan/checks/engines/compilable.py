"""Reports each step that cannot become one compiled function of tensors, with the reason, before step 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gaussian_nll_loss, one_hot

from runner.catalogue import newer_arguments, optimizers
from runner.faults import ConfigPath, Faults
from runner.language.graph.computation import Computation
from runner.language.graph.scalar_split import split_scalars
from runner.language.text.faults import LanguageError
from runner.optim import OptimizerPlan, Scheduled
from runner.plan.checks.whole_steps import EAGER, check_draws, check_whole_steps
from runner.plan.program.instructions import Action, Instruction, LoopEnd, LoopStart, Train
from runner.plan.rows.health import HealthPlan

LONGEST = 256
"""Maximum number of iterations in one compiled call."""

_OPTIMIZERS: Mapping[str, str] = {
    "lbfgs": "evaluates the objective again within its step",
    "adafactor": "reads numbers back from its tensors in every step",
}
"""Optimizers whose step is not a function of tensors alone, and why."""

_READING: Mapping[Any, tuple[str, str]] = {
    one_hot: ("`one_hot` reads its labels to check them", "(labels[..., None] == arange(classes)).to(int64)"),
    gaussian_nll_loss: (
        "`gaussian_nll_loss` reads its variances to check them",
        "0.5 * (log(variance) + (x - y) ** 2 / variance).mean()",
    ),
    **dict.fromkeys((torch.istft, "istft"), ("`istft` reads its window to check it", "")),
}
"""Operations and methods that read numbers back from tensors, each with what it reads, and what to write instead."""

_OPTIONS = ("foreach", "fused")
"""Options that select one of torch's implementations of an update."""

SWITCHES = ("amsgrad", "centered", "decoupled_weight_decay", "maximize", "nesterov")
"""Options that are true or false."""

_BRANCHED_ON: Mapping[str, str] = {
    "weight_decay": "whether it is 0",
    "momentum": "whether it is 0",
    "ns_steps": "how large it is",
    **dict.fromkeys(SWITCHES, "whether it is on"),
}
"""Options that torch branches on, each with what it tests; a compiled step cannot change branches."""

_NOT_BRANCHED_ON = frozenset({("muon", "weight_decay"), ("muon", "momentum")})
"""Exceptions: optimizers that do not branch on such an option."""


def decides(kind: str, option: str) -> bool:
    """Whether an optimizer branches on the value of an option."""
    return option in _BRANCHED_ON and (kind, option) not in _NOT_BRANCHED_ON


def loop_around(program: Sequence[Instruction], position: int) -> LoopStart | None:
    """The loop around a step, if the loop contains only that step and it runs in every iteration."""
    if position == 0 or position + 1 == len(program):
        return None
    before, action, after = program[position - 1 : position + 2]
    assert isinstance(action, Action)
    conditional = action.every is not None or action.when is not None
    if isinstance(before, LoopStart) and isinstance(after, LoopEnd) and before.loop == after.loop and not conditional:
        return before
    return None


def runs_singly(train: Train) -> bool:
    """Whether a compiled call has only one iteration of a step: it draws random numbers, or has complex tensors.

    The numbers of each iteration have a seed of their own, and torch compiles no loop over complex tensors.
    """
    return any(computation.random or _is_complex(computation) for computation in train.evaluation.computations())


def _is_complex(computation: Computation) -> bool:
    examples = (node.meta.get("example") for node in computation.nodes)
    return any(isinstance(example, Tensor) and example.is_complex() for example in examples)


def most_at_once(program: Sequence[Instruction]) -> int:
    """The maximum number of loop iterations in one call of `engine: compile`; large iterations reduce it further."""
    for position, action in enumerate(program):
        if not (isinstance(action, Action) and isinstance(action.argument, Train)):
            continue
        if loop_around(program, position) and not runs_singly(action.argument):
            return LONGEST
    return 1


def check_compilable(
    program: Sequence[Instruction],
    optimizers: Mapping[str, OptimizerPlan],
    health: HealthPlan,
    faults: Faults,
    engine: str = "compile",
) -> None:
    """Report each step and optimizer that an engine cannot compile, and any `health` rules.

    Args:
        engine: its name, for the messages.
    """
    name = f"`engine: {engine}`"
    if health != HealthPlan():
        message = f"{name} runs many steps at once, and `health` checks each"
        faults.add(("health",), message, f"remove `health`, or write {EAGER}", key=True)
    stepping: dict[str, ConfigPath] = {}

    def check(action: Action, train: Train) -> None:
        _check_train(action, train, engine, faults)

    check_whole_steps(program, f"{name} compiles", faults, check)
    for action in program:
        if isinstance(action, Action) and isinstance(action.argument, Train):
            for optimizer in action.argument.optimizers:
                stepping.setdefault(optimizer, action.config_path)
    for optimizer, path in stepping.items():
        _check_optimizer(optimizers[optimizer], path, name, faults)


def _check_train(action: Action, train: Train, engine: str, faults: Faults) -> None:
    if check_draws(action, train, engine, faults):
        return
    for computation in train.evaluation.computations():
        for error in _faults_of(computation, f"`engine: {engine}`"):
            faults.language(("expression",), error)
            return


def _faults_of(computation: Computation, engine: str, *, rule: bool = False) -> Iterator[LanguageError]:
    for node in computation.graph.nodes:
        if node.meta.get("dynamic") and "place" in node.meta:
            message = f"{engine} cannot compile this: its shape depends on data"
            origin = node.meta.get("origin", computation.origin)
            yield LanguageError(message, f"write {EAGER}", node.meta["place"], origin)
            return
        if node.target in _READING and "place" in node.meta:
            reads, instead = _READING[node.target]
            message = f"{engine} cannot compile this: {reads}"
            hint = f"write `{instead}`, or {EAGER}" if instead else f"write {EAGER}"
            yield LanguageError(message, hint, node.meta["place"], node.meta.get("origin", computation.origin))
            return
    try:
        split_scalars(computation, rule=rule)
    except LanguageError as error:
        error.message = f"{engine} cannot compile this: {error.message}"
        error.hint = f"{error.hint}, or write {EAGER}"
        yield error


def _check_optimizer(optimizer: OptimizerPlan, path: ConfigPath, engine: str, faults: Faults) -> None:
    kind = optimizer.kind
    if kind in _OPTIMIZERS:
        message = f"{engine} cannot compile this step: `{kind}` {_OPTIMIZERS[kind]}"
        faults.add(path, message, f"use another optimizer, or write {EAGER}", key=True)
    groups = [optimizer.options, *(group.options for group in optimizer.groups)]
    newer = newer_arguments(optimizers()[kind]) if optimizer.rule is None else ()
    for option in newer:
        if any(option in options for options in groups):
            message = f"{engine} takes no `{option}`: it is newer than what is compiled"
            at = (*optimizer.path, kind, option)
            faults.add(at, message, f"remove `{option}`, or write {EAGER}", key=True)
    for option in _OPTIONS:
        if any(options.get(option) for options in groups):
            message = f"{engine} does not support `{option}`: the whole update is compiled"
            at = (*optimizer.path, kind, option)
            faults.add(at, message, f"remove `{option}`, or write {EAGER}", key=True)
    if optimizer.rule is not None:
        _check_rule(optimizer.rule.update.values(), (*optimizer.path, kind, "update"), engine, faults)
        return
    changing = {option.path: name for _, name, option in optimizer.scheduled() if isinstance(option, Scheduled)}
    for at, name in changing.items():
        if decides(kind, name):
            why = f"torch checks {_BRANCHED_ON[name]} in each step"
            message = f"{engine} does not support a changing `{name}`: {why}"
            faults.add(at, message, f"write {'`true` or `false`' if name in SWITCHES else 'a number'}, or {EAGER}")


def _check_rule(updates: Iterable[Computation], path: ConfigPath, engine: str, faults: Faults) -> None:
    for computation in updates:
        if computation.random:
            message = f"{engine} cannot compile this rule: it draws random numbers"
            faults.add(path, message, f"write {EAGER}", key=True)
            return
        for error in _faults_of(computation, engine, rule=True):
            error.origin = error.origin or computation.origin
            faults.language(path, error)
            return
