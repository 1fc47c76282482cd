"""Graphs as functions of JAX: values of hand-written torch, checks of torch, and what has no rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.nn import functional

from runner.catalogue.versions import absence
from runner.language.xla.operators import Unsupported, supported, translate, translate_checked
from runner.language.xla.operators.facts import as_array
from runner.language.xla.operators.table import DATA_DEPENDENT, RANDOM, REASONS, REFUSALS, RULES
from tests.engine.xla.operators.traced import Traced, assert_agrees, every_operator, run, trace
from tests.tables import over

aten = torch.ops.aten


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def step_of_adam(x: Tensor, y: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
    """A step of Adam on a network with one hidden layer, as torch.optim writes it."""
    parameters = [value.detach().requires_grad_() for value in state[:4]]
    means, squares, count = list(state[4:8]), list(state[8:12]), state[12]
    w1, b1, w2, b2 = parameters
    logits = functional.relu(x @ w1 + b1) @ w2 + b2
    loss = functional.cross_entropy(logits, y)
    gradients = torch.autograd.grad(loss, parameters)
    count = count + 1
    after = []
    for place, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        means[place] = means[place].lerp(gradient, 0.1)
        squares[place] = (squares[place] * 0.999).addcmul(gradient, gradient.conj(), value=0.001)
        size = (squares[place].sqrt() / (1 - 0.999**count).sqrt()).add_(1e-8)
        after.append(parameter - 0.01 / (1 - 0.9**count) * means[place] / size)
    return tuple(value.detach() for value in (loss, *after, *means, *squares, count))


@pytest.mark.slow
@over("dtype", [torch.float64, torch.float32])
def test_a_step_of_adam_is_that_of_torch(dtype: torch.dtype) -> None:
    numbers = generator()

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=numbers)

    x, y = drawn(16, 5), torch.randint(3, (16,), generator=numbers)
    weights = [drawn(5, 8), drawn(8), drawn(8, 3), drawn(3)]
    inputs = [x, y, *weights, *map(torch.zeros_like, weights), *map(torch.zeros_like, weights), torch.tensor(0.0)]
    sample = Traced(step_of_adam, trace(step_of_adam, *inputs), inputs)
    assert_agrees(run([sample])[0], sample.expected())


def test_constants_none_and_the_order_of_outputs_are_kept() -> None:
    table = torch.tensor([3.0, 1.0, 2.0], dtype=torch.bfloat16)

    def function(x: Tensor, y: Tensor) -> tuple[Any, ...]:
        return y * 2, None, x + table, x

    x, y = torch.ones(3, dtype=torch.bfloat16), torch.tensor(2**40)
    graph = trace(function, x, y)
    with jax.enable_x64(True):
        found = translate(graph)(as_array(x), as_array(y))
    assert_agrees(found, function(x, y))


def test_a_0d_index_that_is_a_constant_scatters() -> None:
    place = torch.tensor(2)

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.scatter(x, 0, place, 1.5), torch.scatter(x, 0, place, y), torch.scatter_add(y, 0, place * 0, y)

    x, y = torch.arange(5.0), torch.tensor(3.0)
    with jax.enable_x64(True):
        found = jax.jit(translate(trace(function, x, y)))(as_array(x), as_array(y))
    assert_agrees(found, (torch.tensor([0, 1, 1.5, 3, 4]), torch.tensor([0.0, 1, 3, 3, 4]), torch.tensor(6.0)))


def test_a_translated_function_runs_in_a_loop_and_over_a_batch() -> None:
    def function(x: Tensor) -> tuple[Tensor]:
        return (torch.sin(x) + x.sum(),)

    x = torch.linspace(0, 1, 4, dtype=torch.float64)
    step = translate(trace(function, x))
    with jax.enable_x64(True):
        looped = jax.lax.scan(lambda carry, _: (step(carry)[0], None), as_array(x), None, length=3)[0]
        batch = jax.vmap(lambda value: step(value)[0])(jnp.stack([as_array(x), as_array(2 * x)]))
    expected = function(*function(*function(x)))[0]
    assert_agrees([looped], [expected])
    assert_agrees([batch], [torch.stack([function(x)[0], function(2 * x)[0]])])


def test_a_graph_is_refused_with_every_node_that_has_no_rule() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return x.relu(), torch.nonzero(x), torch.rand(3), torch.linalg.ldl_factor(x @ x.mT)[0], x[x > 0]

    graph = trace(function, torch.eye(2))
    with pytest.raises(
        Unsupported,
        match=r"^aten\.nonzero\.default: its result has a shape that depends on data; "
        r"aten\.rand\.default: it draws random numbers; "
        r"aten\.linalg_ldl_factor_ex\.default: it has no rule; "
        r"aten\.index\.Tensor: an index that is a mask gives a shape that depends on data$",
    ) as caught:
        translate(graph)
    assert [each.operator for each in caught.value.missing][:2] == ["aten.nonzero.default", "aten.rand.default"]
    assert caught.value.node is caught.value.missing[0].node
    assert caught.value.node.target is aten.nonzero.default
    assert caught.value.operator == "aten.nonzero.default"


def test_a_dtype_that_xla_lacks_is_refused() -> None:
    graph = trace(lambda x: (x.chalf(),), torch.ones(2))
    with pytest.raises(Unsupported, match=r"^aten\._to_copy\.default: XLA has no dtype complex32 here$"):
        translate(graph)


def test_a_mask_that_takes_one_value_needs_no_shape_of_data() -> None:
    def function(x: Tensor, y: Tensor) -> tuple[Tensor]:
        x = x.clone()
        x[y > 0] = 5.0
        return (x,)

    tensors = [torch.zeros(3, 2), torch.tensor([-1.0, 2.0, float("nan")])]
    sample = Traced(function, trace(function, *tensors), tensors)
    assert_agrees(run([sample])[0], function(*tensors))


def compute_failures(compute: Any, tensors: tuple[Tensor, ...]) -> list[bool]:
    with jax.enable_x64(True):
        _, failures = compute(*map(as_array, tensors))
    return [bool(each) for each in failures]


@pytest.mark.slow
def test_an_index_out_of_range_fails_a_check() -> None:
    graph = trace(lambda x, i: (x[i], x.gather(0, i.abs())), torch.ones(3), torch.tensor([0, -1]))
    compute, nodes = translate_checked(graph)
    assert [str(node.target) for node in nodes] == ["aten.index.Tensor", "aten.gather.default"]
    for index, expected in [([0, -3], [False, True]), ([2, 1], [False, False]), ([3, 0], [True, True])]:
        assert compute_failures(compute, (torch.ones(3), torch.tensor(index))) == expected
        for function, fails in zip((lambda x, i: x[i], lambda x, i: x.gather(0, i.abs())), expected, strict=True):
            if fails:  # torch raises an error where a check fails
                with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
                    function(torch.ones(3), torch.tensor(index))


@pytest.mark.slow
def test_what_torch_raises_for_integers_and_singular_matrices_fails_a_check() -> None:
    whole = torch.tensor([4, 5])
    divided = trace(lambda x, y: (x // y, x % y), whole, torch.tensor([1, 2]))
    compute, _ = translate_checked(divided)
    assert compute_failures(compute, (whole, torch.tensor([1, 2]))) == [False, False]
    assert compute_failures(compute, (whole, torch.tensor([1, 0]))) == [True, True]
    inverse, nodes = translate_checked(trace(lambda x: (torch.linalg.inv(x),), torch.eye(2)))
    assert [str(node.target) for node in nodes] == ["aten._linalg_check_errors.default"]
    assert compute_failures(inverse, (torch.eye(2),)) == [False]
    assert compute_failures(inverse, (torch.ones(2, 2),)) == [True]


def test_every_rule_belongs_to_an_operator_of_torch() -> None:
    for name in (*RULES, *RANDOM, *DATA_DEPENDENT):
        library, packet, overload = name.split(".")
        if absence(f"torch.{packet}", torch.__version__):
            continue
        assert isinstance(getattr(getattr(getattr(torch.ops, library), packet), overload), torch._ops.OpOverload)
    assert RULES.keys().isdisjoint(REASONS)
    assert REFUSALS.keys() <= RULES.keys()
    assert supported(aten.add.Tensor)
    assert not supported(aten.nonzero.default)


NEVER_LEFT = {
    **dict.fromkeys((f"aten.sym_{name}" for name in ("numel.default", "size.int", "stride.int")), "a size is known"),
    "aten.sym_storage_offset.default": "a size is known",
    "aten.atan2.out": "functionalize turns it into `atan2`",
    "aten.resize_.default": "it works in place",
    "aten.upsample_bilinear2d.vec": "it dispatches to the operator with sizes",
    "aten.upsample_nearest2d.vec": "it dispatches to the operator with sizes",
}
"""Core operators that a trace never leaves, and why."""


def test_every_core_operator_that_a_trace_leaves_has_a_rule_or_a_reason() -> None:
    decomposed = core_aten_decompositions()
    names = {str(each) for each in every_operator() if torch.Tag.core in each.tags and each not in decomposed}
    assert len(names) > 150
    assert sorted(names - RULES.keys() - REASONS.keys() - NEVER_LEFT.keys()) == []


def test_what_reads_no_tensor_is_computed_by_torch() -> None:
    """Windows and frequencies of transforms have no rules."""

    def compute(x: Tensor) -> tuple[Tensor, ...]:
        windows = (torch.hamming_window(7), torch.kaiser_window(7, periodic=False), torch.fft.rfftfreq(12, 0.5))
        return tuple(x * window for window in windows)

    inputs = [torch.linspace(-1, 1, 7)]
    sample = Traced(compute, trace(compute, *inputs), inputs)
    assert not all(supported(node.target) for node in sample.graph.graph.nodes if node.op == "call_function")
    assert_agrees(run([sample])[0], sample.expected())


def test_numbers_before_and_after_tensors_have_the_values_of_torch() -> None:
    def compute(x: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        shifted = torch.bitwise_left_shift(3, k), torch.bitwise_right_shift(64, k), torch.bitwise_and(6, k)
        zetas = torch.special.zeta(3.0, x.abs() + 1), torch.special.zeta(x.abs() + 2, 2.0)
        conjugate = torch.complex(x, x).conj().imag * 2
        return (*shifted, *zetas, -7.5 % x, 7 % k, torch.copysign(x, -1.0), conjugate)

    inputs = [torch.tensor([0.3, -1.5, 2.0, -0.25], dtype=torch.float64), torch.tensor([1, 2, 5, 7])]
    sample = Traced(compute, trace(compute, *inputs), inputs)
    assert_agrees(run([sample])[0], sample.expected())
