"""Reports each step that `engine: cudagraph` cannot record, with the reason, before step 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from runner.faults import Faults
from runner.language.graph.computation import Computation
from runner.language.text.faults import LanguageError
from runner.optim import OptimizerPlan
from runner.plan.checks.whole_steps import EAGER, check_draws, check_whole_steps
from runner.plan.determinism import is_cuda
from runner.plan.program.instructions import Action, Instruction, Train

_SENT = frozenset({torch.tensor, torch.as_tensor})
"""Operations that build a tensor from Python numbers and copy it to the device in every step."""


def check_device(device: str, faults: Faults) -> None:
    """Report a device without CUDA graphs."""
    if not is_cuda(device):
        message = f"`engine: cudagraph` needs a CUDA device, and this config runs on `{device}`"
        faults.add(("engine",), message, f"write `device: cuda`, or {EAGER}")


def steps_within(optimizer: OptimizerPlan) -> bool:
    """Whether an optimizer's step can be part of the recorded graph: the same function of tensors every time.

    Most optimizers compute with the step number in Python, so they step after the replay.
    """
    if optimizer.rule is not None:
        updates = optimizer.rule.update.values()
        return not optimizer.rule.reads and not any(update.random or "t" in update.inputs for update in updates)
    return optimizer.kind == "sgd" and not any(optimizer.scheduled())


def check_capturable(program: Iterable[Instruction], fixed: Iterable[str], faults: Faults) -> None:
    """Report each step that cannot be recorded.

    Args:
        fixed: the parameters and constants, which a recording may read in addition to batch columns.
    """
    names = frozenset(fixed)

    def check(action: Action, train: Train) -> None:
        _check_train(action, train, names, faults)

    check_whole_steps(program, "`engine: cudagraph` records", faults, check)


def _check_train(action: Action, train: Train, fixed: frozenset[str], faults: Faults) -> None:
    if train.closure:
        message = "`engine: cudagraph` cannot record this step: `lbfgs` evaluates the objective again within it"
        faults.add(action.config_path, message, f"use another optimizer, or write {EAGER}", key=True)
    if check_draws(action, train, "cudagraph", faults):
        return
    known = fixed | {column for column, _ in train.evaluation.batches}
    for computation in train.evaluation.computations():
        moving = [name for name in computation.inputs if name not in known]
        if moving:
            message = f"`engine: cudagraph` records this step once, and `{moving[0]}` changes from step to step"
            faults.add(action.config_path, message, f"write {EAGER}", key=True)
            return
        for error in _faults_of(computation):
            faults.language(("expression",), error)
            return


def _faults_of(computation: Computation) -> Iterator[LanguageError]:
    for node in computation.graph.nodes:
        if "place" not in node.meta:
            continue
        origin = node.meta.get("origin", computation.origin)
        if node.meta.get("dynamic"):
            message = "`engine: cudagraph` cannot record this: its shape depends on data"
            yield LanguageError(message, f"write {EAGER}", node.meta["place"], origin)
        elif node.target in _SENT:
            message = "`engine: cudagraph` cannot record this: its numbers are copied to the device in every step"
            yield LanguageError(message, f"declare it in `constants`, or write {EAGER}", node.meta["place"], origin)
