"""Samples of PyTorch's operator database as the graphs that the XLA engine translates, and their comparison."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy
import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions

from runner.language.graph.aten import aten_graph
from runner.language.graph.computation import extract
from runner.language.graph.scalar_split import split_scalars
from runner.language.inference.inference import Inference
from runner.language.lowering.lower import lower_statements
from runner.language.lowering.scope import Scope
from runner.language.xla.operators import translate
from runner.language.xla.operators.facts import as_array
from runner.language.xla.tracing import Draw, plain_kernels
from runner.language.xla.tracing import trace as trace_with_draws
from tests.language.bits import leaves, like, requires_grad, target
from tests.language.samples import Said

Function = Callable[..., tuple[Tensor, ...]]

SEED = 42

FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Options for XLA: code that runs once need not be fast."""

TOLERANCES = {
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
    torch.float32: 2e-5,
    torch.float64: 1e-9,
    torch.complex64: 2e-5,
    torch.complex128: 1e-9,
}
"""How far a value may be, relative to the largest of its tensor.

Both libraries sum in their own order, and what is left after terms cancel has the error of the terms.
"""


@dataclass(frozen=True, slots=True)
class Traced:
    """A function as a graph of core ATen operators, and the tensors that it takes; its random ones come last."""

    function: Function
    graph: fx.GraphModule
    tensors: Sequence[Tensor]
    draws: Sequence[Draw] = ()

    def expected(self) -> tuple[Any, ...]:
        """The results of torch, which does not decompose its operators."""
        torch.default_generator.manual_seed(SEED)
        return tuple(self.function(*self.tensors))

    def inputs(self) -> list[Tensor]:
        """The inputs of the graph, with the random numbers of `expected`."""
        torch.default_generator.manual_seed(SEED)
        return [*self.tensors, *(draw() for draw in self.draws)]


def every_operator() -> list[torch._ops.OpOverload]:
    """Every overload of ATen; `dir(torch.ops.aten)` lists only those that the process has used."""
    names = [name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")]
    found = [name.partition(".") for name in sorted(names)]
    return [getattr(getattr(torch.ops.aten, packet), overload or "default") for packet, _, overload in found]


def trace(function: Function, *tensors: Tensor) -> fx.GraphModule:
    """Traces a function: first with its backward pass, then functional and decomposed. Random operators stay."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        inner = aten_graph(function, tensors)
        functional = torch.func.functionalize(inner, remove="mutations_and_views")
        return aten_graph(functional, tensors, core_aten_decompositions())


def traced(said: Said, gradients: bool) -> Traced | None:
    """Traces a sample as the engine does, with the gradients of its results; None if it computes no tensor.

    Raises:
        DependentDraw: its random numbers depend on tensors.
    """
    torch.default_generator.manual_seed(SEED)
    expected = said.direct()
    names: list[str] = []
    left = target(expected, names)
    lowered = lower_statements(f"{left} = {said.call}", Scope(tensors=said.tensors), Inference(gradients=gradients))
    computed = [name for name in names if isinstance(lowered.values[name], fx.Node)]
    if not computed:
        return None
    computation = extract(lowered, computed)
    tensors = [said.tensors[name] for name in computation.inputs]

    def results(compute: Callable[..., Any], *given: Tensor) -> tuple[Tensor, ...]:
        inputs = [value.detach() for value in given]
        if gradients:
            inputs = [each.requires_grad_(like.requires_grad) for each, like in zip(inputs, tensors, strict=True)]
        named = dict(zip(computed, compute(None, *inputs), strict=True))
        values = iter([named.get(name, lowered.values[name]) for name in names])
        found = [leaf for leaf in leaves(said.process(like(expected, values))) if isinstance(leaf, Tensor)]
        differentiated = [leaf for leaf in found if requires_grad(leaf)]
        wanted = [each for each in inputs if each.requires_grad]
        if differentiated and wanted:
            ones = [torch.ones_like(leaf) for leaf in differentiated]
            given_back = torch.autograd.grad(differentiated, wanted, ones, allow_unused=True)
            found += [each for each in given_back if each is not None]
        return tuple(each.detach() for each in found)

    copies = [tensor.detach() for tensor in tensors]
    with plain_kernels():
        differentiated = aten_graph(partial(results, split_scalars(computation).function), copies)
    found = trace_with_draws(lambda *given: differentiated(*given), copies)
    return Traced(partial(results, computation.function), found.graph, copies, found.draws)


def run(samples: Sequence[Traced]) -> list[tuple[Any, ...]]:
    """Runs samples in XLA, all in one compilation."""
    functions = [translate(sample.graph) for sample in samples]

    def together(given: Sequence[Sequence[jax.Array]]) -> list[tuple[Any, ...]]:
        return [function(*values) for function, values in zip(functions, given, strict=True)]

    with jax.enable_x64(True):
        inputs = [[as_array(tensor) for tensor in sample.inputs()] for sample in samples]
        found: list[tuple[Any, ...]] = jax.jit(together).lower(inputs).compile(FAST_COMPILATION)(inputs)
        return found


def as_tensor(array: jax.Array) -> Tensor:
    if array.dtype == jax.numpy.bfloat16:
        return torch.from_numpy(numpy.array(array.astype(jax.numpy.float32))).bfloat16()
    return torch.from_numpy(numpy.array(array))


def assert_agrees(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Asserts that results have torch's dtypes, shapes and, within the tolerance, values."""
    for mine, theirs in zip(found, expected, strict=True):
        if not isinstance(theirs, Tensor):
            assert mine is theirs
            continue
        theirs = theirs.resolve_conj().resolve_neg()
        tolerance = TOLERANCES.get(theirs.dtype, 0.0)
        finite = theirs[torch.isfinite(theirs)]
        largest = float(finite.abs().max()) if tolerance and finite.numel() else 0.0
        torch.testing.assert_close(
            as_tensor(mine), theirs, rtol=tolerance, atol=tolerance * max(1.0, largest), equal_nan=True
        )
