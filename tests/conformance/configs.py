"""A case as a config: its text, the arrays it reads from a file, and where its results stand in the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .cases import Case, expected_results, has_nonfinite
from .drafting import Draft, Job, Reading
from .expressions import Scope, UnsayableError
from .models import Model, reaching_names, read_gradient, read_names
from .optimizers import optimizer_of


def job_of(case: Case, dtype: str, optimizer: str = "torch") -> Job:
    """The config that computes what `case` expects, in `dtype`.

    Args:
        optimizer: "torch" for the nearest class of torch.optim, "rule" for the case's own equations.
    Raises:
        UnsayableError: the language has no words for the case.
    """
    return BUILDERS[case.kind](case, Draft(case, dtype, nonfinite=has_nonfinite(case)), optimizer)


def _expr(case: Case, draft: Draft, optimizer: str) -> Job:
    record, scope = case.record, draft.scope()
    wrt, inputs = list(record.get("grads") or ()), case.arrays("inputs")
    origins = declared_inputs(case, draft, scope)
    outputs = state_outputs(case, draft, scope)
    loss = draft.statement("objective", record["loss"], scope) if wrt else ""
    if not draft.parameters:  # a config trains something
        anchor = draft.parameter("anchor", torch.tensor(0.0), draft.scope())
        objective = draft.names.give("objective")
        draft.statements.append(f"{objective} = 1.0 * {anchor}")
        draft.step("forward", objective)
    for key, column in outputs:
        draft.read(draft.step("forward", column), Reading(key, column, "forward"))
    if wrt:
        row = draft.step("backward", loss)
        for name in wrt:
            read_gradient(draft, row, f"grad:{name}", origins.get(name), inputs[name], "backward")
    return draft.job()


def declared_inputs(case: Case, draft: Draft, scope: Scope) -> dict[str, str]:
    """Declares the inputs that the case reads; returns the parameters that the loss depends on, by the case's names."""
    record = case.record
    wrt = list(record.get("grads") or ())
    bindings = case.lets() + [(output["name"], output["expr"]) for output in record["outputs"]]
    objective = record["loss"] if wrt else record["outputs"][-1]["expr"]
    reaching, used = reaching_names(bindings, objective), read_names(bindings, objective, *dict(bindings))
    inputs = case.arrays("inputs")
    floating = [name for name, value in inputs.items() if value.is_floating_point() and name in reaching]
    parameters = wrt or (floating if _ends_in_a_tensor(bindings, inputs, draft.scope()) else [])
    for name, value in inputs.items():
        if name in parameters and name in reaching:
            draft.parameter(name, value, scope)
        elif name in used:
            draft.constant(name, value, scope)
    return {name: scope.names[name] for name in wrt if name in reaching}


def state_outputs(case: Case, draft: Draft, scope: Scope) -> list[tuple[str, str]]:
    """Writes the case's statements; returns the result key and the column of each output that it expects."""
    outputs: list[tuple[str, str]] = []
    for name, expression in case.lets():
        draft.statement(name, expression, scope)
    for output in case.record["outputs"]:
        write = _statement_of_a_number if not scope.is_tensor(output["expr"]) else _statement_of_a_tensor
        column = write(draft, output, scope)
        if output.get("expected") is not None:
            outputs.append((f"out:{output['name']}", column))
    return outputs


def _ends_in_a_tensor(bindings: Iterable[tuple[str, str]], inputs: Iterable[str], scope: Scope) -> bool:
    """Whether the last of the bindings is a tensor rather than a number."""
    for name in inputs:
        scope.bind(name, name)
    tensor = True
    for name, expression in bindings:
        tensor = scope.is_tensor(expression)
        scope.bind(name, name, tensor=tensor)
    return tensor


def _statement_of_a_tensor(draft: Draft, output: Mapping[str, Any], scope: Scope) -> str:
    return draft.statement(output["name"], output["expr"], scope)


def _statement_of_a_number(draft: Draft, output: Mapping[str, Any], scope: Scope) -> str:
    """An output that is a Python number, as a tensor that holds it."""
    text = scope.translate(output["expr"])
    number = draft.names.give(output["name"])
    draft.statements.append(f"{number} = {text}")
    scope.bind(output["name"], number, tensor=False)
    column = draft.names.give(output["name"])
    expected = output.get("expected")
    dtype = expected["dtype"] if isinstance(expected, Mapping) else draft.dtype
    dtype = draft.dtype if dtype.startswith("float") else dtype
    draft.statements.append(f"{column} = full((), {number}, dtype={dtype})")
    return column


def _minimize(case: Case, draft: Draft, optimizer: str) -> Job:
    model = Model(case, draft)
    loss, _ = model.objective(model.base)
    for at, probe in enumerate(case.record["probes"]):
        assign_probe(case, draft, model, at)
        draft.step("zero_grad")
        row = draft.step("backward", loss)
        entry = {key: probe.get(key) for key in ("loss", "grads")}
        model.read(row, entry, at, "backward", (row, loss, "backward"))
    return draft.job()


def assign_probe(case: Case, draft: Draft, model: Model, at: int) -> None:
    """Gives the parameters the values of a probe of an objective."""
    values = {
        model.parameters[name]: draft.constant(f"{name}_at_{at}", case.array(value))
        for name, value in case.record["probes"][at]["params"].items()
        if name in model.parameters
    }
    draft.step("assign", values)


def _program(case: Case, draft: Draft, optimizer: str) -> Job:
    model = Model(case, draft)
    if "optimizer" in case.record:
        draft.optimizer, model.views = optimizer_of(case, draft, model, optimizer)
    entries = {entry["after"]: entry for entry in case.record["expected"]}
    scope, loss, row, kind = model.base, None, 0, "start"
    if 0 in entries:
        model.read(0, entries[0], 0, "start", None)
    for position, step in enumerate(case.record["program"], 1):
        match step:
            case "backward":
                column, _ = model.objective(scope)
                row, kind = draft.step("backward", column), "backward"
                loss = (row, column, "backward")
            case "zero_grad" | "step":
                row, kind = draft.step(step), step
            case {"assign": assigned}:
                for name, expression in assigned.items():  # one after another, as the case means it
                    row, kind = draft.step("assign", {model.parameters[name]: scope.translate(expression)}), "assign"
            case {"set": values}:
                scope = scope.copy()
                for name, value in values.items():
                    if name in scope.names:
                        draft.constant(name, case.array(value), scope)
            case _:
                raise UnsayableError(f"a program's entry {step!r}")
        if position in entries:
            model.read(row, entries[position], position, kind, loss)
    return draft.job()


def _train(case: Case, draft: Draft, optimizer: str) -> Job:
    model = Model(case, draft)
    iterations = int(case.record["iterations"])
    scheduled = {
        name: [case.array(value) for value in values] for name, values in (case.record.get("scheduled") or {}).items()
    }
    entries = {entry["iteration"]: entry for entry in case.record["expected"]}
    if 0 in entries:
        model.read(0, entries[0], 0, "start", None)
    alike = all(len({(value.shape, value.dtype) for value in values}) == 1 for values in scheduled.values())
    draft.optimizer, model.views = optimizer_of(case, draft, model, optimizer)
    wanted = {name for entry in entries.values() for name in entry.get("values") or ()}

    if alike:
        scope = model.base.copy()
        for name, values in scheduled.items():
            _indexed(draft, name, values[:iterations], scope)
        loss, lets = model.objective(scope)
        apart = [lets[name] for name in sorted(wanted) if name not in model.reaching]
        steps = [*({"forward": name} for name in apart), {"train": {"objective": loss}}]
        draft.steps = [{"repeat": {"times": iterations, "steps": steps}}]
        for iteration, entry in entries.items():
            if iteration > 0:
                _read_iteration(model, (iteration - 1) * (len(apart) + 1), entry, loss, lets, apart)
        return draft.job()

    for iteration in range(1, iterations + 1):
        scope = model.base.copy()
        for name, values in scheduled.items():
            draft.constant(name, values[iteration - 1], scope)
        loss, lets = model.objective(scope)
        entry = entries.get(iteration, {"iteration": iteration})
        apart = [lets[name] for name in sorted(entry.get("values") or ()) if name not in model.reaching]
        before = draft.rows
        for name in apart:
            draft.step("forward", name)
        draft.step("train", {"objective": loss})
        _read_iteration(model, before, entry, loss, lets, apart)
    return draft.job()


def _indexed(draft: Draft, name: str, values: Sequence[Tensor], scope: Scope) -> None:
    """A constant of every iteration's values and the statement that takes this iteration's."""
    stacked = torch.stack(list(values))
    if stacked.dim() == 1:  # an element of a 1-d constant would be a number, not a tensor
        stacked = stacked[:, None]
    constant = draft.constant(f"{name}_by_iteration", stacked)
    current = draft.names.give(name)
    index = "iteration - 1" if values[0].dim() else "iteration - 1, 0"
    draft.statements.append(f"{current} = {constant}[{index}]")
    scope.bind(name, current)


def _read_iteration(
    model: Model, before: int, entry: Mapping[str, Any], loss: str, lets: Mapping[str, str], apart: Sequence[str]
) -> None:
    """Readings of one iteration, whose first row is the one after `before`."""
    row, at = before + len(apart) + 1, entry["iteration"]
    model.read(row, entry, at, "train", (row, loss, "train"))
    for name in entry.get("values") or ():
        column = lets[name]
        number, kind = (before + apart.index(column) + 1, "forward") if column in apart else (row, "train")
        model.draft.read(number, Reading(f"{at}:value:{name}", column, kind))


BUILDERS = {"expr": _expr, "train": _train, "program": _program, "minimize": _minimize}


def missing_keys(job: Job, case: Case) -> set[str]:
    """Results that the case states and the job would not look for, beside state that torch does not keep."""
    read = {reading.key for readings in job.readings.values() for reading in readings} | set(job.known)
    return set(expected_results(case)) - read
