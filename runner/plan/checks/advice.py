"""What an expression does that is seldom meant: columns against rows, and random numbers in an `evaluate` step."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx

from runner.config.text.nodes import ScalarNode
from runner.faults import ConfigPath, Faults, KeyPath, place
from runner.language.graph.lowered import Lowered
from runner.language.text.faults import LanguageError
from runner.plan.program.instructions import Action, Evaluate, Instruction

Shape = tuple[int, ...]

LOSSES = frozenset(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss"))
"""Operations over pairs of a prediction and its target, which torch broadcasts."""

_PAIRING = frozenset(("sub", "subtract", "eq", "ne"))
"""Operations by which a loss or a count of hits is written by hand."""

_RESHAPING = frozenset(
    (
        *("getitem", "unsqueeze", "reshape", "view", "unflatten", "transpose", "t", "permute", "expand", "movedim"),
        *("swapaxes", "swapdims", "mT", "T"),
    )
)
"""Operations whose author has the shape in mind: `x[:, None] - y` is every pair on purpose."""

TORCH_WARNS = "Using a target size"
"""How torch's own warning begins, which names no place in a config."""


@contextmanager
def torch_quiet() -> Iterator[None]:
    """While an expression is planned, torch's warning of what `advise` tells is left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=TORCH_WARNS, category=UserWarning)
        yield


def leave_to_advice() -> None:
    """From now on, torch does not warn again of what `advise` has told."""
    warnings.filterwarnings("ignore", message=TORCH_WARNS, category=UserWarning)


def advise(lowered: Lowered, program: Iterable[Instruction], declared: Collection[str], faults: Faults) -> bool:
    """Warn of what is seldom meant, at its place; gives whether columns are held against rows.

    Args:
        lowered: the expression, its examples still there.
        declared: parameters and constants, whose shapes are written down.
    """
    pairs = list(_column_against_row(lowered.graph, declared))
    for node, shapes in pairs:
        one, other, both = map(_shown, shapes)
        hint = "give both one shape: `squeeze(1)` the column, or `unsqueeze(1)` the row"
        _warn(node, f"{one} against {other} is every pair, {both}", hint, faults)
    told: set[Any] = set()
    for item in program:
        if isinstance(item, Action) and isinstance(item.argument, Evaluate):
            for node in _random(item.argument.evaluation.computation.graph):
                where = node.meta.get("origin"), node.meta["place"]
                if where not in told:
                    told.add(where)
                    _warn(node, f"`{_name(node)}` draws random numbers in `evaluate`", _hint(node, faults), faults)
    return bool(pairs)


def _column_against_row(graph: fx.Graph, declared: Collection[str]) -> Iterator[tuple[fx.Node, Sequence[Shape]]]:
    """The operations that broadcast `(n, 1)` against `(n,)`, with both shapes and that of all pairs."""
    for node in graph.nodes:
        name = _name(node)
        if "place" not in node.meta or (name not in LOSSES and name not in _PAIRING):
            continue
        operands = [each for each in node.args[:2] if isinstance(each, fx.Node)]
        shapes = [tuple(each.meta["example"].shape) for each in operands if isinstance(each.meta["example"], Tensor)]
        if len(shapes) != 2 or len(shapes[0]) == len(shapes[1]):
            continue
        column, row = sorted(zip(shapes, operands, strict=True), key=lambda pair: -len(pair[0]))
        if column[0] != (*row[0], 1) or len(row[0]) != 1 or row[0][0] < 2:
            continue
        if name in LOSSES or not _is_meant(column[1], declared):
            yield node, [*shapes, (row[0][0], row[0][0])]


def _is_meant(node: fx.Node, declared: Collection[str]) -> bool:
    """Whether whoever wrote an operand of shape `(n, 1)` gave it that shape on purpose."""
    if node.op == "placeholder":
        return node.meta["input"] in declared
    return _name(node) in _RESHAPING or bool(node.kwargs.get("keepdim"))


def _random(graph: fx.Graph) -> Iterator[fx.Node]:
    """The operations that draw, which those do not that are told that this is no training."""
    return (
        node
        for node in graph.nodes
        if node.meta.get("random") and "place" in node.meta and not any(each is False for each in _switches(node))
    )


def _switches(node: fx.Node) -> Iterator[Any]:
    """The arguments that may say whether this is training."""
    if _takes_training(node):
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
        yield bound.arguments.get("training")
    else:  # torch's own functions do not say how their arguments are called
        yield from node.args
        yield node.kwargs.get("train")


def _takes_training(node: fx.Node) -> bool:
    try:
        return callable(node.target) and "training" in inspect.signature(node.target).parameters
    except ValueError:
        return False


def _hint(node: fx.Node, faults: Faults) -> str:
    """One thing to do about an operation that draws where nothing is learnt."""
    text = _written(node, faults)
    takes = _takes_training(node)
    if takes and text.endswith(")") and "training" not in text:
        return f"write `{text[:-1]}, training=training)`"
    return "give it `training=training`" if takes else "write it for training alone: `… if training else …`"


def _written(node: fx.Node, faults: Faults) -> str:
    """The text of an operation on one line, as the config has it."""
    held = faults.document.node(_path(node))
    at = node.meta["place"]
    if isinstance(_path(node), KeyPath) or not isinstance(held, ScalarNode):
        return ""
    lines = str(held.value).split("\n")
    return lines[at.line - 1][at.column : at.column + at.width] if at.line <= len(lines) else ""


def _warn(node: fx.Node, message: str, hint: str, faults: Faults) -> None:
    fault = LanguageError(message, hint, node.meta["place"], node.meta.get("origin"))
    faults.warnings.append(place(faults.document, ("expression",), fault))


def _path(node: fx.Node) -> ConfigPath:
    return node.meta.get("origin") or ("expression",)


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _shown(shape: tuple[int, ...]) -> str:
    return f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"
