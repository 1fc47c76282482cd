"""The section that steps through rows: the program, the graph with values and gradients, and what each step changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from runner.language.graph.computation import extract
from runner.plan import Plan
from runner.report.markup import Markup, joined, paragraph
from runner.report.reading.curves import Curve
from runner.report.reading.rows import Step
from runner.report.reading.tensors import Measured
from runner.report.run.focus import problems_of
from runner.report.run.numbers import kind_text, number, written
from runner.report.run.stepping.graph import MOST_NODES, Node, nodes_of
from runner.report.run.stepping.program import line_of, lines_of
from runner.report.run.stepping.replaying import Replayed, Replays, replays
from runner.report.run.subject import Subject
from runner.report.section import Section

MOST_GRAPHS = 6
"""The most objectives whose graphs are drawn."""

_ROLES = {"weight": "weight", "gradient": "gradient", "state": "state", "value": "value", "norm": "value"}
_OWN = (
    "The value of each node, and ∂, its gradient, in this step alone. `.grad` in the table adds up until `zero_grad`."
)
_BEFORE = "The weights are those before the step."
_COMPUTED: Mapping[str, str] = {
    "forward": "The value of each node in this step.",
    "backward": _OWN,
    "train": f"{_OWN} {_BEFORE}",
    "first": f"{_OWN} {_BEFORE} L-BFGS then computes the objective of others, which the log does not have.",
}
_LOGGED = "Values of this row as the log has them."
_WITHOUT = "Inner values and gradients cannot be computed again:"
_RECORDED = "Values of this row as the log has them; this step computes no gradients of inner operations."

_SAME, _CHANGED, _UNKNOWN = 0, 1, 2


def steps(subject: Subject) -> Section | None:
    """The program, the graph of each objective, and a table of tensors, for each chosen row."""
    if not subject.steps:
        return None
    lines = lines_of(subject.plan, subject.steps)
    found = replays(subject)
    data = {
        "program": [{"text": line.text, "depth": line.depth, "number": line.number} for line in lines],
        "lines": [line_of(lines, step) for step in subject.steps],
        "tensors": [
            *(_tensor(subject, tensor) for tensor in subject.tensors if tensor.positions),
            *(_number(subject, curve) for curve in subject.curves if curve.count),
        ],
        "graphs": [] if subject.plan is None else _graphs(subject, subject.plan, found),
    }
    notes = [paragraph(each, "note") for each in _notes(subject, found)]
    return Section("steps", "Step by step", joined([*_went_wrong(subject), *notes]), "steps", data)


def _went_wrong(subject: Subject) -> list[Markup]:
    """What went wrong in the row where the page opens, which the head says far above."""
    if subject.focus is None:
        return []
    problems = problems_of(subject.run.manifest)
    said = problems[0]["message"] if problems else subject.focus.reason
    row = f"row {int(subject.rows.numbers[subject.focus.position]):,}: "
    return [paragraph(said if "(row " in said else f"{row}{said}", "alert")]


def shared(subject: Subject) -> dict[str, Any]:
    """The chosen rows, which several views have in common, and where the page opens."""
    focus = subject.focus
    positions = subject.chosen.tolist()
    return {
        "rows": [
            {"row": step.row, "step": step.step, "path": step.path, "iteration": step.iteration}
            for step in subject.steps
        ],
        "count": len(subject.rows),
        "at": positions.index(focus.position) if focus and focus.position in positions else len(positions) - 1,
        "name": None if focus is None else focus.name,
    }


def _notes(subject: Subject, found: Replays) -> list[str]:
    notes = []
    if len(subject.rows) > len(subject.steps):
        notes.append(
            f"{len(subject.steps)} of {len(subject.rows):,} rows: "
            "the first, the last, extremes, and others between them."
        )
    if subject.unplanned is not None:
        notes.append(f"There is no graph, because {subject.unplanned}.")
    elif found.reason is not None:
        few = "some rows have" if found.flows else "the graph has"
        notes.append(f"{few.capitalize()} no values of inner operations: {found.reason}.")
    if found.differs:
        notes.append(
            f"Inner values are computed again on another machine: the objective differs by {found.differs:.1e}."
        )
    return notes


def _tensor(subject: Subject, tensor: Measured) -> dict[str, Any]:
    of = tensor.of
    norms = dict(zip(tensor.positions, tensor.norms, strict=True))
    broken = dict(zip(tensor.positions, tensor.nonfinite, strict=True))
    return {
        "name": of.name,
        "role": _ROLES[of.role],
        "kind": kind_text(of.shape, of.dtype),
        "values": [_value(tensor, position, norms, broken) for position in subject.chosen.tolist()],
        "changed": [_changed(tensor, position) for position in subject.chosen.tolist()],
        "by": [_difference(tensor, position) for position in subject.chosen.tolist()],
    }


def _number(subject: Subject, curve: Curve) -> dict[str, Any]:
    values, moves = subject.numbers[curve.name], subject.moves[curve.name]
    return {
        "name": curve.name,
        "role": "value",
        "kind": kind_text(curve.column.shape, curve.column.dtype),
        "values": [number(values[position]) if position in values else None for position in subject.chosen.tolist()],
        "changed": [_UNKNOWN] * len(subject.chosen),
        "by": [_move(moves[position]) if position in moves else None for position in subject.chosen.tolist()],
    }


def _move(change: float | None) -> str:
    """How much a number changed since the last row that has it."""
    if change is None or math.isnan(change):
        return "computed"
    return f"{change:+.6g}" if change else "same"


def _value(tensor: Measured, position: int, norms: dict[int, float], broken: dict[int, int]) -> str | None:
    if position in tensor.values:
        return written(tensor.values[position])
    if broken.get(position):
        return f"{broken[position]:,} elements are not finite"
    return f"norm {number(norms[position])}" if position in norms else None


def _changed(tensor: Measured, position: int) -> int:
    if position not in tensor.changes:
        return _UNKNOWN
    return _SAME if tensor.changes[position] is None else _CHANGED


def _difference(tensor: Measured, position: int) -> str | None:
    """How much a tensor of one element changed; that a tensor came or went."""
    found = tensor.changes.get(position)
    if not isinstance(found, Tensor):
        return found
    if found.numel() != 1 or found.dtype.is_complex or not found.is_floating_point():
        return None
    return f"{found.item():+.6g}"


def _graphs(subject: Subject, plan: Plan, found: Replays) -> list[dict[str, Any]]:
    graphs = []
    tensors = {tensor.of.name: tensor for tensor in subject.tensors}
    for objective in list(plan.objectives)[:MOST_GRAPHS]:
        computation = extract(plan.lowered, [objective])
        nodes = nodes_of(plan, computation)
        if len(nodes) > MOST_NODES:
            graphs.append({"objective": objective, "nodes": [], "left": len(nodes), "flows": []})
            continue
        positions = subject.chosen.tolist()
        flows = [_flow(nodes, objective, found.flows.get(position)) for position in positions]
        graphs.append(
            {
                "objective": objective,
                "nodes": [node.to_json() for node in nodes],
                "left": 0,
                "flows": [
                    _recorded(tensors, subject.numbers, nodes, position) if flow is None else flow
                    for flow, position in zip(flows, positions, strict=True)
                ],
                "states": [
                    _state(found, step, flow is not None) for step, flow in zip(subject.steps, flows, strict=True)
                ],
            }
        )
    return graphs


def _state(found: Replays, step: Step, computed: bool) -> str:
    """What the values of a graph are in one row, as sentences."""
    if computed:
        return _COMPUTED[found.flows[step.position].kind]
    reason = found.reasons.get(step.position)
    if reason is None and not found.flows and not found.reasons and step.step in _COMPUTED:
        reason = found.reason
    return _RECORDED if reason is None else f"{_LOGGED} {_WITHOUT} {reason}."


def _flow(nodes: tuple[Node, ...], objective: str, found: Replayed | None) -> list[list[str | None]] | None:
    """The value and the gradient of each node as text; None if the row differentiates another objective, or none."""
    if found is None or objective != found.objective:
        return None
    flow = {id(node.meta): pair for node, pair in found.flow.items()}
    return [_texts(*flow.get(id(node.node.meta), (None, None))) for node in nodes]


def _texts(value: Any, gradient: Tensor | None) -> list[str | None]:
    if isinstance(value, Tensor):
        said: str | None = written(value)
    else:
        said = number(value) if isinstance(value, (bool, int, float, complex)) else None
    return [said, None if gradient is None else written(gradient)]


def _recorded(
    tensors: Mapping[str, Measured], numbers: Mapping[str, Mapping[int, float]], nodes: tuple[Node, ...], position: int
) -> list[list[str | None]]:
    """The recorded value of each node that has a name in the log, and the gradient of each weight."""
    found: list[list[str | None]] = []
    for node in nodes:
        name = node.name if node.kind == "operation" else node.label
        value = _of(tensors.get(name or ""), position)
        if value is None and position in numbers.get(name or "", ()):
            value = number(numbers[name or ""][position])
        found.append([value, _of(tensors.get(f"{name}.grad"), position) if node.kind == "weight" else None])
    return found


def _of(tensor: Measured | None, position: int) -> str | None:
    return written(tensor.values[position]) if tensor is not None and position in tensor.values else None
