"""How uncertain the results of a case are on any machine.

A source states numbers to the last digits of the processor that computed them. Near an exact minimum, and after a
hundred steps, another processor's roundings may lead elsewhere. How far is measured: by runs with perturbed rounding.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from runner.compare.numbers.bounds import FACTOR, Uncertainty, floored
from runner.compare.numbers.tolerances import Measured, largest_magnitude, root_mean_square
from runner.compare.uncertainty.measuring import difference_of
from runner.compare.uncertainty.perturbation import Perturbation

from .attempts import Attempt
from .cases import expected_results
from .comparison import Difference
from .configs import job_of
from .outcomes import found_by
from .running import run_job

RUNS = (2, 4, 8)
"""How many perturbed runs explain a difference: the next number where fewer do not."""


def beyond_uncertainty(attempt: Attempt, missed: Iterable[Difference]) -> list[Difference]:
    """Those of the missed results that are farther from what is stated than another machine may be."""
    found, expected = found_by(attempt), expected_results(attempt.case)
    perturbed: list[dict[str, Tensor]] = []
    left = list(missed)
    for runs in RUNS:
        perturbed += [_perturbed(attempt, seed) for seed in range(len(perturbed), runs)]
        left = [
            each
            for each in left
            if each.key not in found
            or not _holds(found[each.key], expected[each.key], [run[each.key] for run in perturbed if each.key in run])
        ]
        if not left:
            break
    return left


def _perturbed(attempt: Attempt, seed: int) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder, Perturbation(seed):
        return run_job(job_of(attempt.case, attempt.dtype, attempt.optimizer), Path(folder))


def _holds(found: Tensor, expected: Tensor, perturbed: list[Tensor]) -> bool:
    if found.shape != expected.shape or not found.is_floating_point() or not found.numel():
        return False
    deltas = [difference_of(run, found) for run in perturbed]
    apart = difference_of(found, expected.to(found.dtype))
    if apart is None or any(delta is None for delta in deltas):
        return False
    spread = torch.stack([delta for delta in deltas if delta is not None])
    uncertainty = Uncertainty(math.sqrt(float(spread.square().mean())), float(spread.max()))
    size = root_mean_square(expected), largest_magnitude(expected)
    bound = Measured(*floored(uncertainty, found.dtype, *size), FACTOR)
    return bound.holds(math.sqrt(float(apart.square().mean())), float(apart.max()))
