"""The program of a run as lines of text, and the line of each row."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.plan import Plan
from runner.plan.program.instructions import Action, Break, Evaluate, Instruction, LoopEnd, LoopStart
from runner.report.reading.rows import Step
from runner.report.run.stepping.replaying import pattern_of

START = "start"

MOST_LINES = 300
"""The most steps of a program that a page lists."""


@dataclass(frozen=True, slots=True)
class Line:
    """One step of the program."""

    text: str  # with the number that it has in paths of rows, if it has one: "2. train"
    depth: int
    pattern: str | None  # of the paths of its rows; None: it has none


def lines_of(plan: Plan | None, steps: Sequence[Step]) -> list[Line]:
    """The lines of the program, the first for the row `start`; without a plan, the paths of the rows."""
    first = Line(f"{START}: the initial weights", 0, START)
    if plan is not None:
        lines = list(itertools.islice(_lines(plan.program), MOST_LINES + 1))
        more = [Line("…", 0, None)] if len(lines) > MOST_LINES else []
        return [first, *lines[:MOST_LINES], *more]
    paths = dict.fromkeys(re.sub(r"\[\d+\]", "[{0}]", step.path) for step in steps if step.path != START)
    return [first, *(Line(path.replace("[{0}]", "[…]"), 0, pattern_of(path)) for path in paths)]


def line_of(lines: Sequence[Line], step: Step) -> int | None:
    """The place of the line of a row."""
    for place, line in enumerate(lines):
        if line.pattern is not None and re.fullmatch(line.pattern, step.path):
            return place
    return None


def _lines(program: Sequence[Instruction]) -> Iterator[Line]:
    beside = Counter(each.config_path[:-1] for each in program if not isinstance(each, LoopEnd))
    depth = 0
    for instruction in program:
        if isinstance(instruction, LoopEnd):
            depth -= 1
            continue
        *above, place = instruction.config_path
        number = f"{place + 1}. " if isinstance(place, int) and beside[tuple(above)] > 1 else ""
        match instruction:
            case LoopStart(times=times, source=None):
                yield Line(f"{number}repeat {times:,} times", depth, None)
                depth += 1
            case LoopStart(times=times, source=source):
                yield Line(f"{number}for each of {times:,} batches of {source}", depth, None)
                depth += 1
            case Break():
                kind = "stop" if instruction.patience is None else "patience"
                yield Line(f"{number}{kind}{_condition(instruction)}", depth, None)
            case Action():
                text = f"{number}{instruction.kind}{_details(instruction)}{_condition(instruction)}"
                yield Line(text, depth, pattern_of(instruction.path) if instruction.rows else None)


def _details(action: Action) -> str:
    argument = action.argument
    said = []
    evaluation = getattr(argument, "evaluation", None)
    if isinstance(argument, Evaluate):
        said.append(argument.source)
    elif evaluation is not None and evaluation.objective is not None:
        said.append(evaluation.computation.outputs[evaluation.objective].name)
    for name in ("optimizers", "targets", "sources"):
        found = getattr(argument, name, None)
        if found:
            said.append(f"{'with ' if name == 'optimizers' else ''}{', '.join(found)}")
    expectations = getattr(argument, "expectations", None)
    if expectations:
        said.append(", ".join(expectation.text for expectation in expectations))
    return f" {' '.join(said)}" if said else ""


def _condition(instruction: Action | Break) -> str:
    every = f", every {instruction.every:,}" if instruction.every is not None else ""
    return every + (", when a condition holds" if instruction.when is not None else "")
