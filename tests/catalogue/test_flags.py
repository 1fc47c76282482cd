"""The flags of operations against what torch does: which draw random numbers, and whose shapes depend on data."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_map

from runner.catalogue import Operation, find_method, find_operation
from tests.language.samples import UNREACHABLE, UnsayableError, initial, samples, say
from tests.tables import over

SAMPLES = 6

STATIC = {
    "combinations": "a mask inside, whose count of true elements is known",
    "nn.functional.ctc_loss": "reads its lengths to size a buffer, never its result",
}
"""What fake tensors take for a shape that depends on data, and is none."""


def entries() -> list[Any]:
    return [
        pytest.param(entry, id=f"{entry.name}-{entry.variant_test_name}".strip("-"))
        for entry in op_db
        if entry.name not in UNREACHABLE and entry.supported_dtypes("cpu") and operation_of(entry) is not None
    ]


def operation_of(entry: Any) -> Operation | None:
    return find_operation(f"torch.{entry.name}") or find_method(entry.name)


@pytest.mark.slow
@over("entry", entries(), split=initial)
def test_an_operation_that_draws_or_sizes_its_result_by_data_is_flagged(entry: Any) -> None:
    operation = operation_of(entry)
    assert operation is not None
    dtypes = entry.supported_dtypes("cpu")
    dtype = torch.float32 if torch.float32 in dtypes else min(dtypes, key=str)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        for sample in itertools.islice(samples(entry, dtype, False), SAMPLES):
            try:
                say(entry, sample)
            except UnsayableError:
                continue
            state = torch.get_rng_state()
            entry.op(sample.input, *sample.args, **sample.kwargs)
            assert torch.equal(state, torch.get_rng_state()), f"{operation.name} draws random numbers"
            if "dynamic" not in operation.flags and entry.name not in STATIC:
                _infer(entry, sample)


def test_an_operation_flagged_random_draws() -> None:
    draws = {
        "torch.bernoulli": lambda: torch.bernoulli(torch.full((8,), 0.5)),
        "F.dropout": lambda: torch.nn.functional.dropout(torch.ones(8)),
        "F.rrelu": lambda: torch.nn.functional.rrelu(-torch.ones(8), training=True),
        "F.gumbel_softmax": lambda: torch.nn.functional.gumbel_softmax(torch.ones(8), dim=0),
        "torch.svd_lowrank": lambda: torch.svd_lowrank(torch.eye(3), q=2),
        "torch.poisson": lambda: torch.poisson(torch.ones(8)),
        "torch.binomial": lambda: torch.binomial(torch.ones(8), torch.full((8,), 0.5)),
    }
    with torch.random.fork_rng():
        for name, call in draws.items():
            operation = find_operation(name)
            assert operation is not None
            assert "random" in operation.flags
            state = torch.get_rng_state()
            call()
            assert not torch.equal(state, torch.get_rng_state()), name


def _infer(entry: Any, sample: Any) -> None:
    """Run the sample on tensors without data, which torch refuses where a shape depends on it."""
    with FakeTensorMode() as mode:
        given = tree_map(
            lambda value: mode.from_tensor(value) if isinstance(value, Tensor) else value,
            (sample.input, sample.args, sample.kwargs),
        )
        try:
            entry.op(given[0], *given[1], **given[2])
        except DynamicOutputShapeException as error:
            pytest.fail(f"{entry.name} gives a shape that depends on data: {error}")
        except (RuntimeError, TypeError, NotImplementedError):
            return  # a value is read, or fake tensors do not know the operation: its shape is another matter
