"""Sums of equal terms, whose roundings have one direction where they are added one after another."""

from __future__ import annotations

import numpy
import pytest

import runner
from tests.engine.running import compiled

pytest.importorskip("jax")

SHAPES = ([5, 16, 24], [120, 16], [31, 31], [3000], [70, 70], [17])
MOST = 10
"""Units in the last place; torch is up to 8 off, and adding 1,920 terms in turn 365."""


@pytest.mark.slow
def test_a_sum_is_as_near_as_that_of_torch() -> None:
    terms = numpy.random.default_rng(0).uniform(0.1, 1, 3).astype(numpy.float32)
    names = [f"w{place}" for place in range(len(SHAPES))]
    parameters = "".join(
        f"  {name}: {{shape: {shape}, init: zeros}}\n" for name, shape in zip(names, SHAPES, strict=True)
    )
    values = "".join(f"  s{name} = {name}.sum()\n  m{name} = ({name} * {name}).mean()\n" for name in names)
    total = " + ".join(f"s{name} + m{name}" for name in names)
    for term in terms:
        text = f"engine: xla\nparameters:\n{parameters}expression: |\n{values}  loss = {total}\n"
        text = text.replace("init: zeros", f"init: {term}")
        *_, row = runner.execute(compiled(text + "optimizer: {sgd: {lr: 0}}\nsteps: 2\n"))
        for name, shape in zip(names, SHAPES, strict=True):
            exact = numpy.float64(numpy.float32(term))
            square = numpy.float64(numpy.float32(term) * numpy.float32(term))
            for found, expected in ((row[f"s{name}"], exact * numpy.prod(shape)), (row[f"m{name}"], square)):
                assert found is not None
                assert abs(float(found) - expected) <= MOST * numpy.spacing(numpy.float32(expected)), (name, term)
