"""A function of tensors as one flat graph of ATen operations, with its random numbers as inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch.overrides import TorchFunctionMode

from runner.language.graph.tracing import flat_graph

Draw = Callable[[], Tensor]
"""Draws the next random tensor of a step."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A function as a graph, whose last placeholders are its draws."""

    graph: fx.GraphModule
    draws: tuple[Draw, ...]  # in the order in which torch draws them


class DependentDraw(Exception):
    """A random operation whose distribution depends on the inputs."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__(str(node.target))
        self.node = node


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Lets torch compute attention from products, while a function is differentiated: its fused kernels stay whole."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield


def trace(function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor]) -> Traced:
    """Traces a function while torch computes it with examples.

    Raises:
        DependentDraw: a random operation depends on the inputs.
    """
    pure = torch.func.functionalize(function, remove="mutations_and_views")
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _as_if_compiled(), _TensorScalars():
        graph = flat_graph(pure, examples, decompositions())
    draws = _taken_out(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return Traced(graph, draws)


@functools.cache
def decompositions() -> Mapping[Any, Any]:
    """torch's decompositions into its core operations, without those that draw other random numbers than torch does."""
    table: Mapping[Any, Any] = core_aten_decompositions()
    return {target: found for target, found in table.items() if target not in _DRAWN_DIFFERENTLY}


_DRAWN_DIFFERENTLY = frozenset((torch.ops.aten.bernoulli.default, torch.ops.aten.rrelu.default))
"""Operations whose decomposition draws other random numbers."""


@contextmanager
def _as_if_compiled() -> Iterator[None]:
    """Lets torch's optimizers read no number back from a tensor while they are traced."""
    asked = torch.compiler.is_compiling
    torch.compiler.is_compiling = lambda: True
    try:
        yield
    finally:
        torch.compiler.is_compiling = asked


class _TensorScalars(TorchFunctionMode):
    """Multiplies with a factor that is a tensor, such as a learning rate; torch would read its number back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        factor = given.get("alpha" if func in _WITH_ALPHA else "value")
        if func not in _WITH_FACTOR or not isinstance(factor, Tensor):
            return func(*args, **given)
        first, second, *others = args
        left = {name: value for name, value in given.items() if value is not factor}
        return func(first, second * factor, *others, **left)


_WITH_ALPHA = frozenset((torch.add, torch.sub, Tensor.add, Tensor.add_, Tensor.sub, Tensor.sub_))
_WITH_FACTOR = _WITH_ALPHA | {
    torch.addcmul,
    torch.addcdiv,
    Tensor.addcmul,
    Tensor.addcmul_,
    Tensor.addcdiv,
    Tensor.addcdiv_,
}
"""Functions with a number that multiplies their second tensor."""


def _taken_out(module: fx.GraphModule) -> tuple[Draw, ...]:
    """Makes each random operation one more input; returns what draws each."""
    graph = module.graph
    drawing = [node for node in graph.nodes if is_random(node.target)]
    if not drawing:
        return ()
    before = next((node for node in reversed(graph.nodes) if node.op == "placeholder"), None)
    draws: list[Draw] = []
    for number, node in enumerate(drawing):
        draws.append(_draw(node))
        with graph.inserting_after(before) if before is not None else graph.inserting_before(next(iter(graph.nodes))):
            before = graph.placeholder(f"draw_{number}")
        before.meta = dict(node.meta)
        node.replace_all_uses_with(before)
    for node in reversed(drawing):
        graph.erase_node(node)
    return tuple(draws)


def is_random(target: Any) -> bool:
    """Returns whether the target of a node is an operation that draws random numbers."""
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


def is_drawn(target: torch._ops.OpOverload) -> bool:
    """Returns whether the numbers of a random operation depend on no value of a tensor."""
    return target in _OF_SHAPE or not any("Tensor" in str(argument.type) for argument in target._schema.arguments)


def _draw(node: fx.Node) -> Draw:
    """Returns what draws the result of a random node; tensors that give only their shape are replaced by empty ones."""
    assert isinstance(node.target, torch._ops.OpOverload)
    target = node.target

    def given(value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        if value.target in _SHAPES or is_drawn(target):
            like = value.meta["val"]
            return torch.empty(like.shape, dtype=like.dtype, device=like.device)
        raise DependentDraw(node)

    arguments: Any = fx.node.map_aggregate(node.args, given)
    options: Any = fx.node.map_aggregate(node.kwargs, given)

    def draw() -> Tensor:
        found: Tensor = target(*arguments, **options)
        return found

    return draw


_ATEN = torch.ops.aten
_SHAPES = frozenset((_ATEN.empty_like.default, _ATEN.empty.memory_format, _ATEN.new_empty.default))
"""Operations whose results have a shape, and no values."""

_OF_SHAPE = frozenset(
    (
        _ATEN.bernoulli.p,
        _ATEN.rand_like.default,
        _ATEN.randn_like.default,
        _ATEN.randint_like.default,
        _ATEN.randint_like.low_dtype,
        _ATEN.normal_functional.default,
        _ATEN.uniform.default,
        _ATEN.exponential.default,
        _ATEN.cauchy.default,
        _ATEN.geometric.default,
        _ATEN.log_normal.default,
    )
)
"""Random operations that read only the shape and dtype of their tensors."""
