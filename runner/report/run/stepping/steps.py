"""The section that steps through rows: the program, the graph with values and gradients, and what each step changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from runner.language.graph.computation import extract
from runner.plan import Plan
from runner.report.markup import joined, paragraph
from runner.report.reading.curves import Curve
from runner.report.reading.rows import IN_WORDS, Step
from runner.report.reading.tensors import Measured
from runner.report.run.numbers import kind_text, number, written
from runner.report.run.replayed import Replays
from runner.report.run.stepping.checks import Checks, Verdict, checks_of
from runner.report.run.stepping.graph import MOST_NODES, Node, nodes_of
from runner.report.run.stepping.origin import Texts, flow_of, origin_of
from runner.report.run.stepping.places import Places
from runner.report.run.stepping.program import Line, line_of, lines_of
from runner.report.run.stepping.small import constants_of, is_small, updates_of
from runner.report.run.subject import Subject
from runner.report.section import Section

MOST_GRAPHS = 6
"""The most objectives whose graphs are drawn."""

_ROLES = {"weight": "weight", "gradient": "gradient", "state": "state", "value": "value", "norm": "value"}
_VALUES = "The value of each node, and ∂, the gradient of the objective with respect to it, in this step alone."
_ADDS_UP = "`backward` adds ∂ to the `.grad` in the table; `zero_grad` clears it."
_BEFORE = "The weights are those before the step."
_COMPUTED: Mapping[str, str] = {
    "forward": "The value of each node in this step.",
    "backward": f"{_VALUES} {_ADDS_UP}",
    "train": f"{_VALUES} {_BEFORE}",
    "first": f"{_VALUES} {_BEFORE} L-BFGS then computes the objective of others, which the log does not have.",
}
_LOGGED = "Values of this row as the log has them."
_WITHOUT = "Inner values and gradients cannot be computed again:"
_RECORDED = (
    "Values of this row as the log has them; this step computes no gradients of inner operations. "
    "`.grad` of a weight is what earlier steps left there."
)
_ROWS = f"{IN_WORDS} The number of a step in the program is not that of its row. Choose a step to go to its rows."


_SAME, _CHANGED, _UNKNOWN = 0, 1, 2


def steps(subject: Subject) -> Section | None:
    """The program, the graph of each objective, and a table of tensors, for each chosen row."""
    if not subject.steps:
        return None
    lines = lines_of(subject.plan, subject.steps)
    found = subject.replayed
    constants = constants_of(subject)
    data = {
        "program": _program(lines, checks_of(subject, lines)),
        "lines": [line_of(lines, step) for step in subject.steps],
        "note": _ROWS,
        "sums": [updates_of(subject, step.position) for step in subject.steps] if is_small(subject) else None,
        "tensors": [
            *(_tensor(subject, tensor) for tensor in subject.tensors if tensor.positions),
            *(_number(subject, curve) for curve in subject.curves if curve.count),
            *(_constant(subject, name, value) for name, value in constants.items()),
        ],
        "graphs": [] if subject.plan is None else _graphs(subject, subject.plan, found, constants),
    }
    notes = [paragraph(each, "note") for each in _notes(subject, found)]
    return Section("steps", "Step by step", joined(notes), "steps", data)


def _program(lines: Sequence[Line], checks: Checks) -> list[dict[str, Any]]:
    found = []
    for place, line in enumerate(lines):
        shown: dict[str, Any] = {"text": line.text, "depth": line.depth, "number": line.number}
        if line.action is not None and not line.action.rows:
            shown["silent"] = True
        verdict = checks.verdicts.get(place)
        if verdict is not None:
            sign = {Verdict.PASSED: "✓ ", Verdict.FAILED: "✗ "}.get(verdict, "")
            shown |= {"verdict": f"{sign}{verdict.value}", "passed": verdict is Verdict.PASSED}
        found.append(shown)
    return found


def shared(subject: Subject) -> dict[str, Any]:
    """The chosen rows, which several views have in common, and where the page opens."""
    focus = subject.focus
    positions = subject.chosen.tolist()
    opens = 0 if is_small(subject) else len(positions) - 1
    return {
        "rows": list(_rows(subject)),
        "count": len(subject.rows),
        "at": positions.index(focus.position) if focus and focus.position in positions else opens,
        "name": None if focus is None else focus.name,
    }


def _rows(subject: Subject) -> Iterator[dict[str, Any]]:
    places = Places(subject.plan)
    for step in subject.steps:
        words = places.words(step.path)
        where = {} if words is None else {"where": words}
        yield {"row": step.row, "step": step.step, "path": step.path, "iteration": step.iteration, **where}


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
    values, before = subject.numbers[curve.name], subject.before[curve.name]
    return {
        "name": curve.name,
        "role": "value",
        "kind": kind_text(curve.column.shape, curve.column.dtype),
        "values": [number(values[position]) if position in values else None for position in subject.chosen.tolist()],
        "changed": [_UNKNOWN] * len(subject.chosen),
        "by": [
            _move(before[position], values[position]) if position in before else None
            for position in subject.chosen.tolist()
        ],
    }


def _constant(subject: Subject, name: str, value: Tensor) -> dict[str, Any]:
    count = len(subject.steps)
    kind = f"{kind_text(tuple(value.shape), value.dtype)}, constant"
    values = [written(value)] * count
    return {
        "name": name,
        "role": "value",
        "kind": kind,
        "values": values,
        "changed": [_SAME] * count,
        "by": [None] * count,
    }


def _move(before: float | None, now: float) -> str:
    """How much a number changed since the last row that has it."""
    if before is None:
        return "new"
    if before == now or (math.isnan(before) and math.isnan(now)):
        return "same"
    if not math.isfinite(now - before):
        return f"{number(before)} → {number(now)}"
    return f"{now - before:+.6g}"


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


def _graphs(subject: Subject, plan: Plan, found: Replays, constants: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    graphs = []
    for objective in list(plan.objectives)[:MOST_GRAPHS]:
        computation = extract(plan.lowered, [objective])
        nodes = nodes_of(plan, computation)
        if len(nodes) > MOST_NODES:
            graphs.append({"objective": objective, "nodes": [], "left": len(nodes), "flows": []})
            continue
        positions = subject.chosen.tolist()
        end = computation.results[0]
        flows = [flow_of(nodes, end, objective, found.flows.get(position)) for position in positions]
        usual = _usual(nodes, flows)
        origins = [None if flow is None else origin_of(nodes, flow) for flow in flows]
        graphs.append(
            {
                "objective": objective,
                "nodes": [node.to_json() | {"shape": shape} for node, shape in zip(nodes, usual, strict=True)],
                "left": 0,
                "flows": [
                    _recorded(subject, nodes, position, constants) if flow is None else _computed(usual, flow)
                    for flow, position in zip(flows, positions, strict=True)
                ],
                "states": [
                    _state(found, step, flow is not None) for step, flow in zip(subject.steps, flows, strict=True)
                ],
                "marks": [None if origin is None else origin.marks() for origin in origins],
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


def _usual(nodes: Sequence[Node], flows: Sequence[Texts | None]) -> list[str]:
    """The shape of each node in the first row that was computed again; without one, the one that was planned."""
    first = next((flow for flow in flows if flow is not None), None)
    if first is None:
        return [node.shape for node in nodes]
    return [_shape(value) or node.shape for node, (value, _) in zip(nodes, first, strict=True)]


def _shape(value: Any) -> str | None:
    return kind_text(tuple(value.shape), value.dtype) if isinstance(value, Tensor) else None


def _computed(usual: Sequence[str], flow: Texts) -> list[list[str | None]]:
    return [_texts(shape, *pair) for shape, pair in zip(usual, flow, strict=True)]


def _texts(usual: str, value: Any, gradient: Tensor | None) -> list[str | None]:
    """The value and the gradient of a node, and its shape in this row if that is not the usual one."""
    slope = None if gradient is None else written(gradient, zeros=False)
    if not isinstance(value, Tensor):
        return [number(value) if isinstance(value, (bool, int, float, complex)) else None, slope]
    shape = _shape(value)
    return [written(value), slope, *([] if shape == usual else [shape])]


def _recorded(
    subject: Subject, nodes: Sequence[Node], position: int, constants: Mapping[str, Tensor]
) -> list[list[str | None]]:
    """The recorded value of each node that has a name in the log, and `.grad` of each weight."""
    tensors = {tensor.of.name: tensor for tensor in subject.tensors}
    found: list[list[str | None]] = []
    for node in nodes:
        name = (node.name if node.kind == "operation" else node.label) or ""
        value = written(constants[name]) if name in constants else _of(tensors.get(name), position)
        if value is None and position in subject.numbers.get(name, ()):
            value = number(subject.numbers[name][position])
        left = _of(tensors.get(f"{name}.grad"), position) if node.kind == "weight" else None
        found.append([value, None if left is None else f".grad {left}"])
    return found


def _of(tensor: Measured | None, position: int) -> str | None:
    return written(tensor.values[position]) if tensor is not None and position in tensor.values else None
