"""Cases as configs whose `train` steps compute every number, as other engines compile only those.

A case that trains nothing gets an optimizer that keeps its weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from .cases import Case, has_nonfinite
from .configs import assign_probe, declared_inputs, job_of, state_outputs
from .drafting import Draft, Job, Reading
from .models import Model, read_gradient

KEEPING = {"rule": {"update": "param = param"}}
"""An optimizer that changes no weight."""


def trained_job(case: Case, dtype: str, optimizer: str, engine: str) -> Job:
    """The config that computes what `case` expects under `engine`.

    A program's `backward` and `step` stay as they are, which only the eager engine runs.

    Raises:
        UnsayableError: the language has no words for the case.
    """
    if case.kind == "expr":
        return joined_job([case], dtype, engine)
    draft = Draft(case, dtype, nonfinite=has_nonfinite(case))
    job = _minimize(case, draft) if case.kind == "minimize" else job_of(case, dtype, optimizer)
    return _under(engine, job)


def joined_job(cases: Sequence[Case], dtype: str, engine: str) -> Job:
    """One config with one step for all outputs and gradients of some cases of expressions, so that it compiles once.

    The key of a result begins with the case's identity if there are several.
    """
    draft = Draft(cases[0], dtype, nonfinite=any(map(has_nonfinite, cases)))
    terms: list[str] = []
    found: list[Reading] = []
    gradients: list[tuple[Case, str, str, str | None]] = []
    for case in cases:
        prefix = f"{case.id} " if len(cases) > 1 else ""
        wrt, scope = list(case.record.get("grads") or ()), draft.scope()
        origins = declared_inputs(case, draft, scope)
        outputs = state_outputs(case, draft, scope)
        if wrt:
            terms.append(draft.statement("objective", case.record["loss"], scope))
        terms += [f"0 * {column}.detach().sum()" for _, column in outputs]
        found += [Reading(prefix + key, column, "train") for key, column in outputs]
        gradients += [(case, f"{prefix}grad:{name}", name, origins.get(name)) for name in wrt]
    if not any(origin for *_, origin in gradients):
        terms.append(draft.parameter("anchor", torch.tensor(0.0), draft.scope()))
    total = draft.names.give("total")
    draft.statements.append(f"{total} = {' + '.join(terms)}")
    row = draft.step("train", {"objective": total})
    for reading in found:
        draft.read(row, reading)
    for case, key, name, origin in gradients:
        read_gradient(draft, row, key, origin, case.arrays("inputs")[name], "train")
    draft.optimizer = KEEPING
    return _under(engine, draft.job())


def _minimize(case: Case, draft: Draft) -> Job:
    """A step at each probe."""
    model = Model(case, draft)
    loss, _ = model.objective(model.base)
    draft.optimizer = KEEPING
    for at, probe in enumerate(case.record["probes"]):
        assign_probe(case, draft, model, at)
        row = draft.step("train", {"objective": loss})
        entry = {key: probe.get(key) for key in ("loss", "grads")}
        model.read(row, entry, at, "train", (row, loss, "train"))
    return draft.job()


def _under(engine: str, job: Job) -> Job:
    return dataclasses.replace(job, text=f"{job.text}engine: {engine}\n")
