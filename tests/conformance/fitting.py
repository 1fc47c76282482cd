"""A `minimize` case as a config that drives L-BFGS to the minimiser."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

import runner

from .cases import Case
from .drafting import Draft, flow

CERTIFIED_DIGITS = 11
"""NIST certifies so many, and no more can be reached."""

ROUNDS = 10
HESSIAN, SCALE = "hessian", "scale"
"""Along what the parameters are moved: the eigenvectors of the Hessian at the start, or each in units of its start."""

LBFGS = {
    "lr": 1,
    "max_iter": 200,
    "history_size": 30,
    "line_search_fn": "strong_wolfe",
    "tolerance_grad": 0,
    "tolerance_change": 0,
}


def fitting_config(case: Case, start: Sequence[float], directions: str = HESSIAN) -> str:
    """The config that minimises the logarithm of the case's loss in float64.

    The parameters are `start * (1 + directions @ z)`, with `z` from zero. `directions` are the eigenvectors of the
    Hessian over the square roots of its eigenvalues' sizes, which the config computes at its start, or the identity.
    The logarithm has the same minimisers and makes sums of squares of any size alike.
    """
    draft, names = Draft(case, "float64"), list(case.record["params"])
    scope = draft.scope()
    for name, value in case.arrays("constants").items():
        draft.constant(name, value, scope)
    lines = ["b = start * u"]
    for position, name in enumerate(names):
        scope.bind(name, name)
        lines.append(f"{name} = b[{position}]")
    for name, expression in case.lets():
        lines.append(f"{name} = {scope.translate(expression)}")
        scope.bind(name, name)
    lines.append(f"log({scope.translate(case.record['loss'])})")
    size = len(names)
    rows = ", ".join(f"grad(slope[{position}], u)" for position in range(size))
    functions = {
        "objective_at(u)": "\n".join(lines),
        "hessian(u)": f"slope = grad(objective_at(u), u)\nstack([{rows}])",
        "whitening(h)": "curvatures, axes = linalg.eigh(h)\naxes / sqrt(abs(curvatures))",
    }
    turned = [{"assign": {"directions": "whitening(hessian(unit))"}}] if directions == HESSIAN else []
    config = {
        "name": "fitting",
        "dtype": "float64",
        "parameters": {
            "z": {"shape": [size], "init": 0},
            "unit": {"shape": [size], "init": 1, "requires_grad": False},
            "directions": {"shape": [size, size], "init": "eye", "requires_grad": False},
        },
        "constants": draft.constants | {"start": {"init": list(start)}},
        "functions": functions,
        "expression": "moved = unit + directions @ z\nreached = start * moved\nobjective = objective_at(moved)",
        "optimizer": {"lbfgs": LBFGS},
        "steps": [*turned, {"repeat": {"times": ROUNDS, "steps": ["train"]}}, {"forward": "reached"}],
    }
    return "\n".join(f"{json.dumps(key)}: {flow(value)}" for key, value in config.items())


def fitted(case: Case, start: Sequence[float], directions: str = HESSIAN) -> list[float]:
    """The parameters that the config ends with."""
    *_, last = runner.execute(runner.compile(runner.loads(fitting_config(case, start, directions), base=str(Path()))))
    reached = last["reached"]
    assert isinstance(reached, torch.Tensor)
    return [float(value) for value in reached]


def digits_reached(found: Sequence[float], certified: Sequence[float]) -> float:
    """The digits that the worst parameter shares with its certified value, which is not zero; -inf where it is NaN."""
    return min(_digits(*pair) for pair in zip(found, certified, strict=True))


def _digits(found: float, certified: float) -> float:
    error = abs(found - certified) / abs(certified)
    if not math.isfinite(error):
        return -math.inf
    return min(float(CERTIFIED_DIGITS), -math.log10(error)) if error else float(CERTIFIED_DIGITS)
