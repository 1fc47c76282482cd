"""Warns of likely mistakes in an expression: accidental broadcasting, and random numbers in an `evaluate` step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, fx

from runner.config.text.nodes import ScalarNode
from runner.faults import ConfigPath, Faults, KeyPath, place
from runner.language.graph.draws import draws, has_training
from runner.language.graph.lowered import Lowered
from runner.language.text.faults import LanguageError
from runner.plan.program.instructions import Action, Evaluate, Instruction

Shape = tuple[int, ...]

LOSSES = frozenset(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss"))
"""Losses over a prediction and its target, which torch broadcasts."""

_PAIRING = frozenset(("sub", "subtract", "eq", "ne"))
"""Operations that hand-written losses and accuracies use."""

_RESHAPING = frozenset(
    (
        *("getitem", "unsqueeze", "reshape", "view", "unflatten", "transpose", "t", "permute", "expand", "movedim"),
        *("swapaxes", "swapdims", "mT", "T"),
    )
)
"""Operations that set a shape on purpose: in `x[:, None] - y` the broadcasting is intended."""

TORCH_WARNS = "Using a target size"
"""The start of torch's own warning, which has no place in the config."""


def advise(lowered: Lowered, program: Iterable[Instruction], declared: Collection[str], faults: Faults) -> bool:
    """Warn of likely mistakes; returns whether an operation broadcasts a column against a row.

    Args:
        lowered: the expression, with its examples.
        declared: the names of parameters and constants, whose shapes are declared.
    """
    pairs = list(_column_against_row(lowered.graph, declared))
    for node, shapes in pairs:
        one, other, both = map(_shown, shapes)
        hint = "give both one shape: `squeeze(1)` the column, or `unsqueeze(1)` the row"
        _warn(node, f"{one} against {other} broadcasts to every pair, {both}", hint, faults)
    warned: set[Any] = set()
    for item in program:
        if isinstance(item, Action) and isinstance(item.argument, Evaluate):
            for node in _random(item.argument.evaluation.computation.graph):
                where = node.meta.get("origin"), node.meta["place"]
                if where not in warned:
                    warned.add(where)
                    _warn(node, f"`{_name(node)}` draws random numbers in `evaluate`", _hint(node, faults), faults)
    return bool(pairs)


def _column_against_row(graph: fx.Graph, declared: Collection[str]) -> Iterator[tuple[fx.Node, Sequence[Shape]]]:
    """The operations that broadcast `(n, 1)` against `(n,)`, with both shapes and the resulting `(n, n)`."""
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
    """Whether an operand has the shape `(n, 1)` on purpose."""
    if node.op == "placeholder":
        return node.meta["input"] in declared
    return _name(node) in _RESHAPING or bool(node.kwargs.get("keepdim"))


def _random(graph: fx.Graph) -> Iterator[fx.Node]:
    """The operations that draw random numbers, except those with `training=False`."""
    return (node for node in graph.nodes if "place" in node.meta and draws(node))


def _hint(node: fx.Node, faults: Faults) -> str:
    """The hint for an operation that draws random numbers in `evaluate`."""
    text = _written(node, faults)
    switched = has_training(node)
    if switched and text.endswith(")") and "training" not in text:
        return f"write `{text[:-1]}, training=training)`"
    return "give it `training=training`" if switched else "use it only in training: `… if training else …`"


def _written(node: fx.Node, faults: Faults) -> str:
    """The text of an operation in the config; "" if it is not available."""
    found = faults.document.node(_path(node))
    at = node.meta["place"]
    if isinstance(_path(node), KeyPath) or not isinstance(found, ScalarNode):
        return ""
    lines = str(found.value).split("\n")
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
