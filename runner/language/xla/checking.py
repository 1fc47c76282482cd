"""Finds what keeps a computation and its gradients from being translated to JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from runner.language.graph.aten import aten_graph
from runner.language.graph.computation import Computation
from runner.language.graph.elements import traceable
from runner.language.graph.scalar_split import split_scalars
from runner.language.lowering.diagnosis import READ_BACK, READS_BACK
from runner.language.text.faults import START, LanguageError
from runner.language.xla.operators import Unsupported, translate
from runner.language.xla.operators.translate import NO_RULE
from runner.language.xla.tracing import DependentDraw, plain_kernels, trace

MOST_OPERATIONS = 10_000
"""The most operations of an expression and its gradients. XLA compiled 8,800 in 6 seconds; the time grows faster."""

TOO_MANY = f"it has more than {MOST_OPERATIONS:,} operations with its gradients, the most that are compiled"

DEPENDENT = "its random numbers have a distribution that depends on tensors"


class _TooMany(Exception):
    """A computation has more operations than are compiled."""


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Ends a computation with too many operations: tracing all of them would take longer than compiling the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._count += 1
        if self._count > MOST_OPERATIONS:
            raise _TooMany
        return func(*args, **(kwargs or {}))


def untranslatable(computation: Computation, objective: int, parameters: Sequence[str]) -> LanguageError | int:
    """Returns the fault of a computation that cannot be translated, at its operation, or the number of its operations.

    Args:
        objective: the output whose gradients are computed.
        parameters: the inputs that they are computed for.
    """
    split = split_scalars(computation)
    inputs = {node.meta["input"]: _example(node) for node in computation.nodes if node.op == "placeholder"}
    examples = [inputs[name] for name in split.inputs]
    numbers = [torch.zeros((), dtype=torch.float64) for _ in range(split.read)]
    places = [place for place, name in enumerate(split.inputs) if name in parameters]
    result = split.tensors.index(objective)
    reason = _reason(lambda *given: split.function(None, *given), [*examples, *numbers], places, result)
    if isinstance(reason, int):
        return reason
    place, origin = START, computation.origin
    for node in () if reason == TOO_MANY else computation.nodes:
        if node.op in ("call_function", "call_method") and isinstance(_reason_of(node), str):
            place, origin = node.meta.get("place", START), node.meta.get("origin", computation.origin)
            break
    return LanguageError(reason, None, place, origin)


def _example(node: fx.Node) -> Any:
    """The example of a node; zeros where planning computed no numbers."""
    example = node.meta["example"]
    if isinstance(example, Tensor) and example.is_meta:
        return torch.zeros(example.shape, dtype=example.dtype)
    return example


def _reason_of(node: fx.Node) -> str | int:
    """Returns why one operation cannot be translated alone, or the number of operations that it is made of."""
    tensors = [other for other in node.all_input_nodes if isinstance(other.meta["example"], Tensor)]
    examples = [_example(other) for other in tensors]
    if not isinstance(node.meta["example"], Tensor):
        return 0
    places = [place for place, example in enumerate(examples) if example.is_floating_point() or example.is_complex()]

    def compute(*given: Tensor) -> tuple[Tensor]:
        found = {other: other.meta["example"] for other in node.all_input_nodes} | dict(
            zip(tensors, given, strict=True)
        )
        arguments: Any = fx.map_arg(node.args, found.__getitem__)
        options: Any = fx.map_arg(node.kwargs, found.__getitem__)
        target = traceable(node)
        if isinstance(target, str):
            return (getattr(arguments[0], str(node.target))(*arguments[1:], **options),)
        assert callable(target)
        return (target(*arguments, **options),)

    return _reason(compute, examples, places, 0)


def _reason(
    function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor], places: Sequence[int], objective: int
) -> str | int:
    """Returns why a function and its gradients cannot be translated, or the number of their operations.

    Args:
        places: the inputs that gradients are computed for.
    """

    def compute(*given: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            inputs = [value.detach() for value in given]
            for place in places:
                inputs[place].requires_grad_()
            results = list(function(*inputs))
            found: Sequence[Tensor | None] = ()
            value = results[objective]
            if places and value.requires_grad:
                wanted = [inputs[place] for place in places]
                found = torch.autograd.grad((value,), wanted, (torch.ones_like(value),), allow_unused=True)
        return [value.detach() for value in (*results, *found) if value is not None]

    plain = [example.detach() for example in examples]
    try:
        with torch.random.fork_rng(devices=[]), plain_kernels(), _Counting():
            differentiated = aten_graph(compute, plain)
        graph = trace(lambda *given: differentiated(*given), plain).graph
        if len(graph.graph.nodes) > MOST_OPERATIONS:
            return TOO_MANY
        translate(graph)
        operations: int = sum(node.op == "call_function" for node in graph.graph.nodes)
        return operations
    except _TooMany:
        return TOO_MANY
    except Unsupported as error:
        return reason_of(error)
    except DependentDraw:
        return DEPENDENT
    except RuntimeError as error:
        if READ_BACK in str(error):
            return READS_BACK
        # any other error of torch comes again in the first step, which says where and why
    return 0


def reason_of(error: Unsupported) -> str:
    """Says which operation has no translation, and why if there is more to say."""
    missing = error.missing[0]
    name = missing.operator.removeprefix("aten.").removesuffix(".default")
    return f"JAX has no translation of `{name}`" + ("" if missing.reason == NO_RULE else f": {missing.reason}")
