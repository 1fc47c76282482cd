"""A case as a config whose `train` steps compute every number, as other engines compile only those.

A case that trains nothing gets an optimizer that keeps its weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from .cases import Case, has_nonfinite
from .configs import declared_inputs, job_of, state_outputs
from .drafting import Draft, Job, Reading
from .models import Model, read_gradient

KEEPING = {"rule": {"update": "param = param"}}
"""An optimizer that changes no weight."""


def trained_job(case: Case, dtype: str, optimizer: str, engine: str) -> Job:
    """The config that computes what `case` expects under `engine`.

    A program's `backward` and `step` stay as they are: they run as in the eager engine.

    Raises:
        UnsayableError: the language has no words for the case.
    """
    draft = Draft(case, dtype, nonfinite=has_nonfinite(case))
    match case.kind:
        case "expr":
            job = _expr(case, draft)
        case "minimize":
            job = _minimize(case, draft)
        case _:
            job = job_of(case, dtype, optimizer)
    return dataclasses.replace(job, text=f"{job.text}engine: {engine}\n")


def _expr(case: Case, draft: Draft) -> Job:
    """One step for all outputs and gradients."""
    inputs, wrt = case.arrays("inputs"), list(case.record.get("grads") or ())
    scope, origins = draft.scope(), {}
    origins = declared_inputs(case, draft, scope)
    outputs = state_outputs(case, draft, scope)
    if wrt:
        objective = draft.statement("objective", case.record["loss"], scope)
    else:
        objective = draft.parameter("anchor", torch.tensor(0.0), draft.scope())
    row = _train(draft, objective, [column for _, column in outputs])
    for key, column in outputs:
        draft.read(row, Reading(key, column, "train"))
    for name in wrt:
        read_gradient(draft, row, f"grad:{name}", origins.get(name), inputs[name], "train")
    draft.optimizer = KEEPING
    return draft.job()


def _train(draft: Draft, objective: str, others: Sequence[str]) -> int:
    """A step that computes the gradients of the objective, and other values besides."""
    total = draft.names.give("total")
    terms = [objective, *(f"0 * {name}.detach().sum()" for name in others)]
    draft.statements.append(f"{total} = {' + '.join(terms)}")
    return draft.step("train", {"objective": total})


def _minimize(case: Case, draft: Draft) -> Job:
    """A step at each probe."""
    model = Model(case, draft)
    loss, _ = model.objective(model.base)
    draft.optimizer = KEEPING
    for at, probe in enumerate(case.record["probes"]):
        values = {
            model.parameters[name]: draft.constant(f"{name}_at_{at}", case.array(value))
            for name, value in probe["params"].items()
            if name in model.parameters
        }
        draft.step("assign", values)
        row = draft.step("train", {"objective": loss})
        entry = {key: probe.get(key) for key in ("loss", "grads")}
        model.read(row, entry, at, "train", (row, loss, "train"))
    return draft.job()
