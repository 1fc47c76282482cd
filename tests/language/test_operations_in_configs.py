"""The same contract through a whole config: what a `backward` step records is what `.backward()` leaves in torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

import runner
from runner.catalogue import find_operation
from tests.language.bits import leaves, requires_grad, same, target
from tests.language.samples import UNREACHABLE, Said, initial, said_samples
from tests.tables import over

DTYPES = (torch.float32, torch.complex64)

LEFT_OUT = {
    "chalf": "torch adds no half-precision complex numbers on the CPU",
    "linalg.eig": "the phase of eigenvectors is free, so torch differentiates no plain sum of them",
    "linalg.eigh": "the phase of eigenvectors is free, so torch differentiates no plain sum of them",
}
"""What has no gradient that a sum of the results could ask for; the language alone is held to it beside this file."""


def _differentiable() -> list[Any]:
    """One entry of the database for each function that autograd knows and that draws no random numbers."""
    found: dict[str, Any] = {}
    for entry in op_db:
        operation = find_operation(f"torch.{entry.name}")
        draws = operation is not None and "random" in operation.flags
        if entry.supports_autograd and not draws and entry.name not in {*UNREACHABLE, *LEFT_OUT}:
            found.setdefault(entry.name, entry)
    return list(found.values())


@pytest.mark.slow
@over("entry", _differentiable(), split=initial)
def test_a_backward_step_records_what_backward_leaves(entry: Any, tmp_path: Path) -> None:
    dtypes = [dtype for dtype in DTYPES if dtype in entry.supported_backward_dtypes("cpu")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dtype in dtypes:
            said = next((each for each in said_samples(entry, dtype, True, 20) if _fits(each)), None)
            if said is not None:
                _compare(said, tmp_path)


def _fits(said: Said) -> bool:
    """Whether a config can hold the sample: contiguous tensors, one of them a parameter, none of them empty."""
    tensors = said.tensors.values()
    return any(tensor.requires_grad for tensor in tensors) and all(
        tensor.is_contiguous() and tensor.is_leaf and tensor.numel() > 0 and tensor.dtype != torch.bfloat16
        for tensor in tensors
    )


def _compare(said: Said, folder: Path) -> None:
    names: list[str] = []
    expected = said.direct()
    left = target(expected, names)
    outputs = dict(zip(names, leaves(expected), strict=True))
    through = {name: value for name, value in outputs.items() if requires_grad(value)}
    if not through:
        return
    loss = sum((value * (0.5 + index)).sum() for index, value in enumerate(through.values()))
    assert isinstance(loss, Tensor)
    terms = " + ".join(f"({name} * {0.5 + index}).sum()" for index, name in enumerate(through))
    (loss.real if loss.is_complex() else loss).backward()
    np.savez(folder / "tensors.npz", **{name: x.detach().resolve_conj().numpy() for name, x in said.tensors.items()})
    parameters = {name: x for name, x in said.tensors.items() if x.requires_grad and x.grad is not None}
    text = _config(said, left, f"({terms}).real" if loss.is_complex() else terms, set(parameters))
    rows = list(runner.execute(runner.compile(runner.loads(text, base=folder))))
    for name, value in through.items():
        assert same(rows[1][name], value), text
    for name, parameter in parameters.items():
        assert same(rows[1][f"{name}.grad"], parameter.grad), text


def _config(said: Said, left: str, objective: str, parameters: set[str]) -> str:
    def declared(wanted: bool) -> str:
        lines = [f"  {name}: {{file: 'tensors.npz#{name}'}}" for name in said.tensors if (name in parameters) is wanted]
        return "\n".join(lines) or "  unused: 0"

    return (
        f"parameters:\n{declared(True)}\nconstants:\n{declared(False)}\n"
        f"expression: |\n  {left} = {said.call}\n  objective = {objective}\nsteps: [backward]\n"
    )
