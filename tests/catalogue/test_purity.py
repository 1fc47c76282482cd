"""No operation of the tables changes what it is given, nor the state of the process: tried on the operator database."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves

from runner.catalogue import check_call, find_attribute, find_method, find_operation
from tests.language.samples import initial
from tests.tables import over

SAMPLES = 3


def entries() -> Iterator[Any]:
    """The database's entries that the tables hold, as (name, entry, dtype)."""
    for entry in op_db:
        name = entry.name.removeprefix("nn.functional.")
        dtypes = entry.supported_dtypes("cpu")
        if dtypes and (find_operation(entry.name) or find_operation(name)):
            dtype = torch.float32 if torch.float32 in dtypes else min(dtypes, key=str)
            yield pytest.param(entry, dtype, id=f"{entry.name}-{entry.variant_test_name}".strip("-"))


def process_state() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )


@over(("entry", "dtype"), list(entries()), split=lambda entry, _: initial(entry))
@pytest.mark.filterwarnings("ignore")
def test_an_operation_leaves_its_arguments_and_the_process_as_they_were(entry: Any, dtype: torch.dtype) -> None:
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)
        before = process_state()
        operation = find_operation(entry.name) or find_operation(entry.name.removeprefix("nn.functional."))
        assert operation is not None
        for sample in itertools.islice(entry.sample_inputs_func(entry, "cpu", dtype, False), SAMPLES):
            arguments = (sample.input, *sample.args)
            if check_call(operation, arguments, sample.kwargs) is not None:
                continue
            tensors = [leaf for leaf in tree_leaves((arguments, sample.kwargs)) if isinstance(leaf, Tensor)]
            copies = [(tensor._version, tensor.clone()) for tensor in tensors]
            entry.op(*arguments, **sample.kwargs)
            for tensor, (version, copy) in zip(tensors, copies, strict=True):
                assert tensor._version == version
                assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(copy))
        assert process_state() == before


def test_most_of_the_database_is_tried() -> None:
    assert len(list(entries())) > 500


def test_the_tables_hold_methods_that_exist_in_no_other_form() -> None:
    assert find_method("view") is not None
    assert find_attribute("mT") is not None
