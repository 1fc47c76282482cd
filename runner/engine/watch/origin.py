"""Finds the operation that first made a value or a derivative in a computation non-finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from runner.engine.watch.replay import FINITE, INFINITE, NAN, Done, Replay, call, kind_of, plain, replay
from runner.language.graph.computation import Computation
from runner.language.inference.runtime import gradient


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something non-finite first appeared."""

    node: fx.Node  # the operation, or the input that contains it
    name: str | None = None  # the first named value that it made non-finite
    value: Tensor | None = None  # the value of that name
    masked: Tensor | None = None  # for a gradient: the non-finite value that a mask removed from the result

    @property
    def input(self) -> str | None:
        """The name of the input that contains it; None for an operation."""
        return self.node.meta["input"] if self.node.op == "placeholder" else None


def origin_of_value(
    computation: Computation, inputs: Sequence[Any], position: int, roles: Mapping[str, str]
) -> Origin | None:
    """The operation that made an output of a computation non-finite; None if a replay returns a finite output.

    It is the first operation that returns NaN or an infinity for finite inputs. Infinities that the config itself
    writes (`masked_fill(mask, -inf)`, a constant) are intended: as inputs they count as finite. One of them is the
    origin only if nothing else made the output infinite.

    Args:
        inputs: the inputs of the computation, as they were.
        position: the position of the output.
        roles: the role of each input by name; an infinity in a `parameter` or a `constant` counts as intended.
    """
    with torch.set_grad_enabled(computation.gradients):
        made = replay(computation.graph, inputs)
    output = made.output(position)
    if output is None or not output.kind:
        return None
    roots = _roots(made, roles)
    root = roots[output].done
    for number, result in enumerate(computation.outputs):
        done = made.output(number)
        if done is not None and done.kind and roots[done].done is root and isinstance(done.value, Tensor):
            return Origin(root.node, result.name, done.value)
    return Origin(root.node)


@dataclass(frozen=True, slots=True)
class _Root:
    done: Done
    written: bool  # whether it is an infinity that the config writes


MASKING = frozenset(
    (
        *("where", "masked_fill", "masked_select", "masked_scatter", "nan_to_num", "isnan", "isinf", "isfinite"),
        *("clamp", "clip", "clamp_min", "clamp_max", "minimum", "maximum", "fmin", "fmax"),
        *("nanmean", "nansum", "nanmedian", "nanquantile"),
    )
)
"""Operations that leave out non-finite elements on purpose, so that their results do not depend on them."""


def _roots(made: Replay, roles: Mapping[str, str]) -> dict[Done, _Root]:
    """Where the non-finite elements of each result first appeared; for a finite result, those of its inputs."""
    roots: dict[Done, _Root] = {}
    for done in made.done:
        if done.kind == FINITE:
            earlier = _earlier(done, roots)
            if earlier is not None:
                roots[done] = earlier
            continue
        if done.kind == NAN:
            spoilt = [roots[given] for given in done.inputs if given.kind == NAN][:1]
            spoilt += [roots[given] for given in done.inputs if given.kind and not roots[given].written]
        else:
            spoilt = [roots[given] for given in done.inputs if given.kind]
            spoilt.sort(key=lambda root: root.written)  # stable: the first that is not written, else the first
        if spoilt:
            roots[done] = spoilt[0]
            continue
        written = done.kind == INFINITE and _is_written(done.node, roles)
        earlier = None if written else _earlier(done, roots)
        roots[done] = earlier or _Root(done, written)
    return roots


def _earlier(done: Done, roots: Mapping[Done, _Root]) -> _Root | None:
    """Where a non-finite value that an operation depends on first appeared, even if its inputs are finite; else None.

    In `log(y / y.sum())`, an overflowing sum makes finite elements 0 by division, and then their `log` infinite.
    """
    if _name_of(done.node) in MASKING or not _is_floating(done.value):
        return None
    return next((roots[given] for given in done.inputs if given in roots and not roots[given].written), None)


def _is_floating(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex()
    return isinstance(value, (float, tuple, list))


def _name_of(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _is_written(node: fx.Node, roles: Mapping[str, str]) -> bool:
    if node.op == "placeholder":
        return roles.get(node.meta["input"]) in ("parameter", "constant")
    return any(kind_of(argument) for argument in (*node.args, *node.kwargs.values()))


def origin_of_gradient(
    computation: Computation,
    inputs: Sequence[Any],
    objective: int,
    cotangent: Tensor | None,
    parameter: str,
    roles: Mapping[str, str],
) -> Origin | None:
    """The operation whose derivative made the gradient of a parameter non-finite; None if there is none.

    Backward from the objective, it is the first operation that receives a finite gradient and passes on a non-finite
    one. If an input of that operation is non-finite, the origin is that of the input instead: 0 times NaN is NaN.

    Args:
        cotangent: the gradient of the objective; None for one.
        parameter: its name.
    """
    leaves = [
        value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value for value in inputs
    ]
    with torch.enable_grad():
        made = replay(computation.graph, leaves)
        output = made.output(objective)
        assert output is not None
        gradients = _gradients(made, output.value, cotangent)
        reached = _reached(made, parameter)
        for done in reversed(made.done):
            if done in reached and done.inputs and _spoils(done, gradients, reached):
                given = next((each for each in done.inputs if each.kind), None)
                root = done if given is None else _roots(made, roles)[given].done
                values = [] if given is None else [value.detach() for value in root.tensors if kind_of(value)]
                return Origin(root.node, masked=values[0]) if values else Origin(done.node)
    return None


def _gradients(made: Replay, output: Tensor, cotangent: Tensor | None) -> dict[int, Tensor]:
    """The gradient of every tensor of a replay that has one, by the tensor's `id`."""
    tensors = {id(tensor): tensor for done in made.done for tensor in done.tensors if tensor.requires_grad}
    found = torch.autograd.grad(output, list(tensors.values()), cotangent, allow_unused=True)
    return {key: value for key, value in zip(tensors, found, strict=True) if value is not None}


def _reached(made: Replay, parameter: str) -> set[Done]:
    """A parameter, and the operations that depend on it."""
    reached: set[Done] = set()
    for done in made.done:
        if done.node.meta.get("input") == parameter or any(given in reached for given in done.inputs):
            reached.add(done)
    return reached


def _spoils(done: Done, gradients: Mapping[int, Tensor], reached: set[Done]) -> bool:
    """Whether an operation receives a finite gradient, and gives an input in `reached` a non-finite one."""
    of_result = [gradients[id(tensor)] for tensor in done.tensors if id(tensor) in gradients]
    if not of_result or kind_of(of_result):
        return False
    given = [tensor for source in done.inputs if source in reached for tensor in source.tensors]
    if not kind_of([gradients[id(tensor)] for tensor in given if id(tensor) in gradients]):
        return False
    if done.node.target is gradient:  # `_shares` cannot compute it: it needs the history of its operands
        return True
    return any(kind_of(share) for share in _shares(done, gradients))


def _shares(done: Done, gradients: Mapping[int, Tensor]) -> Iterator[Tensor]:
    """Yields what this operation alone adds to the gradient of each input."""
    node = done.node
    own = {operand: _leaf(plain(given)) for operand, given in done.operands.items()}
    result = call(node, own)
    results = Done(node, result).tensors
    pairs = [
        (new, gradients[id(old)])
        for new, old in zip(results, done.tensors, strict=True)
        if new.requires_grad and id(old) in gradients
    ]
    leaves = [tensor for value in own.values() for tensor in Done(node, value).tensors if tensor.requires_grad]
    if pairs and leaves:
        outputs, cotangents = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True)
        yield from (share for share in found if share is not None)


def _leaf(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    return type(value)(map(_leaf, value)) if isinstance(value, (tuple, list)) else value
