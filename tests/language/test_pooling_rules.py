"""What is claimed of an operation's batches is tried on PyTorch's operator database: split, computed, combined."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_unflatten

from runner.language.pooling.rules import CONSTANT, Rows, State, Term
from runner.language.pooling.table import RULES

SAMPLES = 5
DTYPES = (torch.float64, torch.complex128, torch.int64, torch.bool)
NEEDS_ANOTHER_BATCH = {"squeeze"}  # of one sample: it would lose its dimension


class Given:
    """The states of the operands."""

    def __init__(self, states: Mapping[fx.Node, State]) -> None:
        self._states = states

    def of(self, value: Any) -> State:
        return self._states.get(value, CONSTANT) if isinstance(value, fx.Node) else CONSTANT


def claimed(op: Any, leaves: list[Any], spec: Any, samples: Mapping[int, int], whole: Any) -> State | None:
    """Returns what the rule of an operation says, if some of its tensors have the samples in a dimension."""
    graph, states, nodes = fx.Graph(), {}, []
    for place, leaf in enumerate(leaves):
        node = leaf
        if isinstance(leaf, Tensor):
            node = graph.placeholder(f"operand_{place}")
            node.meta = {"example": leaf}
            if place in samples:
                states[node] = Rows(samples[place])
        nodes.append(node)
    args, kwargs = tree_unflatten(nodes, spec)
    node = graph.call_function(op, args, kwargs)
    node.meta = {"example": whole}
    return RULES[op.__name__](Given(states), node)


def combined(state: State, first: Tensor, second: Tensor, count: int, total: int) -> Tensor:
    """Returns the value of both batches, of `count` and `total - count` samples, as the state says."""
    if isinstance(state, Rows):
        return torch.cat([first, second], state.dim)
    assert isinstance(state, Term)
    if state.pool == "mean":
        return (first * count + second * (total - count)) / total
    if state.pool == "sum":
        return (first + second).to(first.dtype)
    return torch.maximum(first, second) if state.pool == "max" else torch.minimum(first, second)


def placements(leaves: list[Any]) -> Iterator[dict[int, int]]:
    """Yields which tensors have the samples, and in which dimension: up to three tensors, with one length."""
    tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dim()]
    for size in (1, 2, 3):
        for chosen in itertools.combinations(tensors, size):
            for dims in itertools.product(*(range(min(3, leaves[place].dim())) for place in chosen)):
                lengths = {leaves[place].shape[dim] for place, dim in zip(chosen, dims, strict=True)}
                if len(lengths) == 1 and min(lengths) >= 2:
                    yield dict(zip(chosen, dims, strict=True))


def tensors_of(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def checked(op: Any, leaves: list[Any], spec: Any, samples: Mapping[int, int], whole: Any) -> bool:
    """Compares the whole value with that of two batches; False if nothing is claimed, or a batch cannot be computed."""
    state = claimed(op, leaves, spec, samples, whole)
    if not isinstance(state, (Rows, Term)) or (isinstance(state, Term) and state.pool == "weighted"):
        return False
    place, dim = next(iter(samples.items()))
    total = leaves[place].shape[dim]
    count = 2 if total >= 4 else 1
    if op.__name__ in NEEDS_ANOTHER_BATCH and count == 1:
        return False
    parts = []
    for start, length in ((0, count), (count, total - count)):
        batch = [
            leaf.narrow(samples[place], start, length) if place in samples else leaf
            for place, leaf in enumerate(leaves)
        ]
        args, kwargs = tree_unflatten(batch, spec)
        try:
            parts.append(tensors_of(op(*args, **kwargs)))
        except (RuntimeError, ValueError, IndexError):  # an argument holds the length of the whole
            return False
    for expected, first, second in zip(tensors_of(whole), *parts, strict=True):
        found = combined(state, first, second, count, total)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8, equal_nan=True)
    return True


@pytest.mark.slow
def test_batches_combine_to_the_whole_as_each_rule_says() -> None:
    tried_rules: Counter[str] = Counter()
    wrong: list[str] = []
    for entry in op_db:
        name = getattr(entry.op, "__name__", "")
        dtype = next((each for each in DTYPES if each in entry.dtypes), None)
        if name not in RULES or dtype is None:
            continue
        for sample in itertools.islice(entry.sample_inputs("cpu", dtype), SAMPLES):
            if name == "one_hot" and sample.kwargs.get("num_classes", -1) < 0:
                continue  # its shape depends on data, so the rule is not asked
            leaves, spec = tree_flatten(((sample.input, *sample.args), sample.kwargs))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole = None
                for samples in itertools.islice(placements(leaves), 8):
                    whole = entry.op(sample.input, *sample.args, **sample.kwargs) if whole is None else whole
                    try:
                        tried_rules[name] += checked(entry.op, leaves, spec, samples, whole)
                    except (AssertionError, RuntimeError) as error:
                        wrong.append(f"{name}, {sample.summary()}, samples in {samples}: {error}")
    assert not wrong, "\n".join(wrong[:20])
    assert len(+tried_rules) > 300
    assert tried_rules.total() > 1000
