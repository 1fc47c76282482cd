"""The program of a run as lines of text, and the line of each row."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.config import models
from runner.plan import Plan
from runner.plan.program.instructions import (
    Action,
    Break,
    ConfigPath,
    Evaluate,
    Expect,
    LoopEnd,
    LoopStart,
    Step,
    Train,
)
from runner.report.reading import rows
from runner.report.run.stepping.replaying import pattern_of
from runner.text import shortened

START = "start"

LONGEST = 80
"""The most characters of a condition or an expected value."""

MOST_LINES = 300
"""The most steps of a program that a page lists."""


@dataclass(frozen=True, slots=True)
class Line:
    """One step of the program."""

    text: str
    depth: int
    pattern: str | None  # of the paths of its rows; None: it has none
    number: int | None = None  # of the step among those of its list, as in paths; None: paths do not number it
    action: Action | None = None  # the step, if it is one


def lines_of(plan: Plan | None, steps: Sequence[rows.Step]) -> list[Line]:
    """The lines of the program, the first for the row `start`; without a plan, the paths of the rows."""
    first = Line(f"{START}: the initial weights", 0, START)
    if plan is not None:
        lines = list(itertools.islice(_lines(plan), MOST_LINES + 1))
        more = [Line("…", 0, None)] if len(lines) > MOST_LINES else []
        return [first, *lines[:MOST_LINES], *more]
    paths = dict.fromkeys(re.sub(r"\[\d+\]", "[{0}]", step.path) for step in steps if step.path != START)
    return [first, *(Line(path.replace("[{0}]", "[…]"), 0, pattern_of(path)) for path in paths)]


def line_of(lines: Sequence[Line], step: rows.Step) -> int | None:
    """The place of the line of a row."""
    for place, line in enumerate(lines):
        if line.pattern is not None and re.fullmatch(line.pattern, step.path):
            return place
    return None


def _lines(plan: Plan) -> Iterator[Line]:
    depth = 0
    program, written = plan.program, _written(plan.config.steps)
    for place, instruction in enumerate(program):
        match instruction:
            case LoopStart():
                text = f"{_loop(instruction)}{_condition(instruction, written)}"
                yield Line(text, depth, None, _number(_path_within(program[place:]), depth))
                depth += 1
            case LoopEnd():
                depth -= 1
            case Break():
                yield Line(
                    f"{'stop' if instruction.patience is None else 'patience'}{_condition(instruction, written)}",
                    depth,
                    None,
                )
            case Action():
                said = _details(instruction, written.get(instruction.config_path), plan)
                text = f"{instruction.kind}{said}{_condition(instruction, written)}"
                pattern = pattern_of(instruction.path) if instruction.rows else None
                yield Line(text, depth, pattern, _number(instruction.path, depth), instruction)


def _loop(loop: LoopStart) -> str:
    if loop.source is None:
        return f"repeat {loop.times:,} times"
    said = f"for each of {loop.times:,} batches of {loop.source}"
    if loop.pass_length < 1 or loop.times <= loop.pass_length or loop.times % loop.pass_length:
        return said
    return f"{said}: {loop.times // loop.pass_length:,} epochs of {loop.pass_length:,}"


def _written(steps: Iterable[models.Step]) -> dict[ConfigPath, models.Step]:
    """The steps as the config has them, by their place in it."""
    found = {}
    for step in steps:
        found[step.path] = step
        found.update(_written(getattr(step.argument, "steps", ())))
    return found


def _path_within(program: Sequence[object]) -> str:
    """The path of the first step in a loop; empty if it has none."""
    return next((instruction.path for instruction in program if isinstance(instruction, Action)), "")


def _number(path: str, depth: int) -> int | None:
    """The number of a step in the list at a depth: 5 for `5.backward`, 2 for `1.repeat[{0}].2.train` in the loop."""
    number: int | None = None
    for part in path.split("."):
        if part.isdecimal():
            number = int(part)
        elif depth == 0:
            return number
        else:
            depth, number = depth - 1, None
    return None


def _details(action: Action, written: models.Step | None, plan: Plan) -> str:
    argument = action.argument
    said = []
    evaluation = getattr(argument, "evaluation", None)
    if isinstance(argument, Evaluate):
        said.append(argument.source)
    elif evaluation is not None and evaluation.objective is not None:
        said.append(evaluation.computation.outputs[evaluation.objective].name)
    if isinstance(argument, (Step, Train)) and argument.optimizers:
        said.append(f"with {_optimizers(argument.optimizers, plan)}")
    for name in ("targets", "sources"):
        if getattr(argument, name, None):
            said.append(", ".join(getattr(argument, name)))
    if isinstance(argument, Expect):
        values = {} if written is None else written.argument.expectations
        said.append(", ".join(_expected(each.text, values.get(each.text)) for each in argument.expectations))
    return f" {' '.join(said)}" if said else ""


def _optimizers(names: Sequence[str], plan: Plan) -> str:
    """The optimizers of a step and their kinds: `optimizer (sgd)`, `optimizer network (sgd)`."""
    said = []
    for name in names:
        own = name if plan.config.single_optimizer else f"optimizer {name}"
        said.append(f"{own} ({plan.optimizers[name].kind})")
    return ", ".join(said)


def _expected(name: str, expectation: models.Expectation | None) -> str:
    if expectation is None:
        return name
    value = "none" if expectation.value is None else shortened(str(expectation.value), LONGEST)
    return f"{name} = {value}"


def _condition(instruction: Action | Break | LoopStart, written: Mapping[ConfigPath, models.Step]) -> str:
    every = f", every {instruction.every:,}" if instruction.every is not None else ""
    if instruction.when is None:
        return every
    step = written.get(instruction.config_path)
    condition = "a condition holds" if step is None or step.when is None else f"`{shortened(step.when, LONGEST)}`"
    return f"{every}, when {condition}"
