"""The top of the page of a failed run: where it failed, what it comes from, and how to go on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from runner.config.files.run_paths import CONFIG_FILE, SWEEP_MANIFEST, is_run
from runner.config.files.safe_files import Folder
from runner.language.graph.computation import extract
from runner.report.listing import CONFIG_BYTES, PREFIX, line_link
from runner.report.markup import Markup, coded, joined, story, tag, text
from runner.report.run.focus import problems_of
from runner.report.run.numbers import number, written
from runner.report.run.stepping.graph import MOST_NODES, Node, nodes_of
from runner.report.run.stepping.origin import Texts, flow_of, origin_of
from runner.report.run.stepping.places import Places
from runner.report.run.subject import Subject
from runner.text import steprun_command

MOST_SIGNS = 5
"""The most rows before the failure whose values are listed."""

MOST_LINKS = 8
"""The most operations of a chain that are listed."""

_QUOTED = re.compile(r"`([^`]+)`")


def failure_of(subject: Subject) -> Markup | None:
    """What is known of the row that went wrong; None if none did."""
    if subject.focus is None:
        return None
    return story(_facts(subject))


def failing_line(subject: Subject) -> int | None:
    """The line of the run's `config.yaml` that the failure is about; None if it cannot be told."""
    problems = problems_of(subject.run.manifest)
    if not problems or subject.plan is None:
        return None
    try:
        with Folder(subject.run.path) as folder, folder.open(CONFIG_FILE) as file:
            lines = file.read(CONFIG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    for quoted in reversed(_QUOTED.findall(problems[0]["message"])):
        places = [place for place, line in enumerate(lines, 1) if quoted in line and not quoted.isidentifier()]
        if len(places) == 1:
            return places[0]
    path = tuple(int(part) if part.isdecimal() else part for part in str(problems[0].get("path") or "").split("."))
    return subject.plan.config.document.mark(path).line if path != ("",) else None


def _facts(subject: Subject) -> Iterator[tuple[str, Markup]]:
    assert subject.focus is not None
    manifest, position = subject.run.manifest, subject.focus.position
    for problem in problems_of(manifest)[:1]:
        if problem.get("source") and problem.get("line"):
            place = f"{problem['source']}:{problem['line']}:{problem.get('column', 1)}"
            line, shown = failing_line(subject), [coded(f"`{place}`")]
            link = line_link(PREFIX, line, f"line {line} of the config below")
            yield "where", joined([*shown, text("; "), link] if line is not None else shown)
    step = next((each for each in subject.steps if each.position == position), None)
    if step is not None:
        words = Places(subject.plan).words(step.path)
        said = f"row {step.row:,}, `{step.path}`{f': {words}' if words else ''}; "
        yield "when", joined([coded(said), tag("a", text("step by step"), href="#steps")])
    yield from _origin(subject, position)
    yield from _before(subject, position)
    yield "weights", coded(_weights(subject))
    if problems_of(manifest):
        yield from _commands(subject)


def _origin(subject: Subject, position: int) -> Iterator[tuple[str, Markup]]:
    """The chain of operations from the first value that is not finite, and the values before the failure."""
    found, plan = subject.replayed.flows.get(position), subject.plan
    if found is None or plan is None:
        return
    computation = extract(plan.lowered, [found.objective])
    nodes = nodes_of(plan, computation)
    if len(nodes) > MOST_NODES:
        return
    flow = flow_of(nodes, computation.results[0], found.objective, found)
    origin = None if flow is None else origin_of(nodes, flow)
    if origin is None or flow is None:
        return
    causes = [place for place in origin.causes if nodes[place].kind == "operation"] or list(origin.causes)
    chain = [*causes[:1], *(origin.chain or (origin.place,))]
    yield "origin", coded(" → ".join(_link(nodes[place], flow[place], not origin.chain) for place in _shortened(chain)))
    signs = list(_signs(subject, nodes, computation.results[0], causes[0], position)) if causes else []
    if signs:
        yield f"{_name(nodes[causes[0]])} before it", coded("; ".join(signs))


def _shortened(chain: list[int]) -> list[int]:
    return chain if len(chain) <= MOST_LINKS else [*chain[: MOST_LINKS - 1], chain[-1]]


def _name(node: Node) -> str:
    return node.name or node.label


def _link(node: Node, pair: tuple[object, Tensor | None], alone: bool) -> str:
    value, gradient = pair
    if not isinstance(value, Tensor):
        return f"`{_name(node)}` {value}"
    said = f"`{_name(node)}` {_zeros(value) or written(value).partition(';')[0]}"
    if alone and gradient is not None:
        said += f", its gradient {written(gradient).partition(';')[0]}"
    return said


def _zeros(value: Tensor) -> str | None:
    """How many elements are 0, if some of a larger finite tensor are."""
    zeros = int((value == 0).sum())
    if not zeros or not bool(value.isfinite().all()) or value.numel() < 2:
        return None
    return f"{zeros:,} of {value.numel():,} are 0"


def _signs(subject: Subject, nodes: tuple[Node, ...], end: object, place: int, position: int) -> Iterator[str]:
    """The range of a node in the rows before the failure."""
    rows = [each for each in subject.replayed.flows if each < position][-MOST_SIGNS:]
    for each in rows:
        found = subject.replayed.flows[each]
        flow: Texts | None = flow_of(nodes, end, found.objective, found)
        value = None if flow is None else flow[place][0]
        if isinstance(value, Tensor) and value.numel() and value.dtype != torch.bool and not value.dtype.is_complex:
            row = int(subject.rows.numbers[each])
            low, high = float(value.detach().min()), float(value.detach().max())
            yield f"row {row:,} {number(low)}" + ("" if low == high else f" to {number(high)}")


def _broken(subject: Subject) -> list[int]:
    """The first position of each quantity that is not finite somewhere."""
    found = [curve.broken for curve in subject.curves] + [tensor.broken for tensor in subject.tensors]
    return [position for position in found if position is not None]


def _before(subject: Subject, position: int) -> Iterator[tuple[str, Markup]]:
    """The last row whose numbers are all finite, with its numbers; and the last results of `evaluate`."""
    broken = _broken(subject)
    last = min([position + 1, *broken]) - 1
    if last < 0:
        return
    rows = subject.rows.numbers
    numbers = {name: values[last] for name, values in subject.numbers.items() if last in values}
    shown = ", ".join(f"{name} {number(value)}" for name, value in list(numbers.items())[:MOST_SIGNS])
    yield "last finite row" if broken else "last row", text(f"row {int(rows[last]):,}{f': {shown}' if shown else ''}")
    results = [
        (curve.name, float(curve.values[-1]), int(curve.rows[-1]))
        for curve in subject.curves
        if "." in curve.name and curve.count and curve.name not in numbers
    ]
    if results:
        shown = ", ".join(f"{name} {number(value)} (row {row:,})" for name, value, row in results[:MOST_SIGNS])
        yield "last results", text(shown)


def _checkpoint(subject: Subject) -> str | None:
    """The name of the newest checkpoint; None if there is none."""
    try:
        with Folder(subject.run.path) as folder, folder.folder("checkpoints") as files:
            return max(files.names(".safetensors"), default=None)
    except OSError:
        return None


def _weights(subject: Subject) -> str:
    said = []
    if any(tensor.of.role == "weight" and tensor.of.column is not None for tensor in subject.tensors):
        said.append("the log (`rows/`) has them in each of its rows")
    newest = _checkpoint(subject)
    none = "there is no checkpoint; `steprun run --checkpoint-every ROWS` saves some"
    said.append(none if newest is None else f"the newest checkpoint is `checkpoints/{newest}`")
    return "; ".join(said)


def _commands(subject: Subject) -> Iterator[tuple[str, Markup]]:
    path = subject.run.path
    sweep = path.parent.parent
    if is_run(sweep, SWEEP_MANIFEST):
        yield "run it again", coded(f"`{steprun_command('run', f'{_named(sweep)}#{path.name}')}`")
        retry = steprun_command("resume", _named(sweep), "--retry", "failed")
        yield "go on", coded(f"`{retry}` runs the points that failed")
        return
    command = subject.run.manifest.get("command") or []
    if command:
        yield "run it again", coded(f"`{shlex.join(command[:1000])}`")
    start = "begins at row 0" if _checkpoint(subject) is None else "goes on from the newest checkpoint"
    again = "; the same numbers come again, so it ends in the same place" if _broken(subject) else ""
    yield "go on", coded(f"`{steprun_command('resume', _named(path))}` {start}{again}")


def _named(path: Path) -> str:
    """A run or a sweep by the last parts of its path: `runs/NAME/STAMP`."""
    return "/".join(path.parts[-3:])
