"""Which operations of a graph draw random numbers: those with `training=False` or a dropout of 0 do not."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import fx

from runner.language.graph.recurrent import RECURRENT, recurrent_arguments


def draws(node: fx.Node) -> bool:
    """Whether an operation draws random numbers."""
    if not node.meta.get("random"):
        return False
    name = getattr(node.target, "__name__", node.target)
    if name in RECURRENT:
        found = recurrent_arguments(node)
        return found.get("train") is not False and found.get("dropout") != 0
    if name == "scaled_dot_product_attention":
        rate: Any = node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0)
        return bool(rate != 0)
    return not any(each is False for each in _switches(node))


def _switches(node: fx.Node) -> Iterator[Any]:
    """The arguments that may be the training flag."""
    if has_training(node):
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
        yield bound.arguments.get("training")
    else:  # torch's own functions have no parameter names to inspect
        yield from node.args
        yield node.kwargs.get("train")


def has_training(node: fx.Node) -> bool:
    """Whether an operation has an argument `training`."""
    try:
        return callable(node.target) and "training" in inspect.signature(node.target).parameters
    except ValueError:
        return False
