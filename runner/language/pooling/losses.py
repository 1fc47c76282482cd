"""The rules of losses and metrics, which reduce over the samples as their arguments say."""

from __future__ import annotations

from torch import fx

from runner.language.pooling.rules import (
    Pool,
    Rows,
    Rule,
    State,
    States,
    Term,
    Weights,
    argument_of,
    broadcast,
    is_tensor,
    name_of,
    shape_of,
)


def measure(pool: Pool) -> Rule:
    """The rule of a metric that is a mean or a count over samples, of predictions and targets."""

    def rule(states: States, node: fx.Node) -> State | None:
        operands = [states.of(operand) for operand in node.all_input_nodes]
        return Term(pool) if all(operand == Rows(0) for operand in operands) else None

    return rule


WEIGHTED = frozenset({"mse_loss", "l1_loss"})
"""Losses whose mean divides by the sum of their weights, if they have any."""


def loss(states: States, node: fx.Node) -> State | None:
    """The rule of a loss that is computed element by element, and reduced as its `reduction` says."""
    operands = [operand for operand in node.all_input_nodes if is_tensor(operand)]
    right = broadcast(states, operands)
    if right is None:
        return None
    reduction = node.kwargs.get("reduction", "mean")
    if any(isinstance(argument, str) for argument in node.args):
        return None
    if reduction == "none":
        return Rows(len(shape_of(node)) + right)
    if reduction == "batchmean":
        first = argument_of(node, 0, "input")
        return Term("mean") if isinstance(states.of(first), Rows) and right == -len(shape_of(first)) else None
    if reduction == "mean" and name_of(node) in WEIGHTED and argument_of(node, 5, "weight") is not None:
        return None
    return Term("mean") if reduction == "mean" else Term("sum") if reduction == "sum" else None


def by_class(states: States, node: fx.Node) -> State | None:
    """The rule of `cross_entropy` and `nll_loss`. Their mean is weighted by the targets that are not ignored."""
    logits, target = argument_of(node, 0, "input"), argument_of(node, 1, "target")
    weight = argument_of(node, 2, "weight")
    if (
        not all(isinstance(state, Rows) and state.dim == 0 for state in map(states.of, (logits, target)))
        or len(shape_of(logits)) < 2
    ):
        return None
    if isinstance(states.of(weight), Rows) or any(isinstance(argument, str) for argument in node.args):
        return None
    reduction = node.kwargs.get("reduction", "mean")
    if reduction != "mean":
        return Term("sum") if reduction == "sum" else Rows(0)
    if target.meta["example"].dtype.is_floating_point:
        return Term("mean")
    ignored = argument_of(node, 4, "ignore_index", -100)
    return Term("weighted", Weights(target, weight, ignored)) if type(ignored) is int else None


def by_sample(states: States, node: fx.Node) -> State | None:
    """The rule of a loss that has one value for each sample in dimension 0, such as `triplet_margin_loss`."""
    operands = [operand for operand in node.all_input_nodes if is_tensor(operand)]
    with_samples = [operand for operand in operands if isinstance(states.of(operand), Rows)]
    if any(states.of(operand) != Rows(0) for operand in with_samples) or with_samples[0] is not operands[0]:
        return None
    if len(shape_of(operands[0])) != 2 or any(isinstance(argument, str) for argument in node.args):
        return None
    if any(len(shape_of(operand)) > 1 for operand in operands if operand not in with_samples):
        return None
    reduction = node.kwargs.get("reduction", "mean")
    return Term("mean") if reduction == "mean" else Term("sum") if reduction == "sum" else Rows(0)
