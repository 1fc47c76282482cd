"""What a run computes, at the top of its page: optimizers, data and checks; of a few scalars the formula too."""

from __future__ import annotations

from collections.abc import Iterator

from runner.optim.plans import OptimizerPlan, Scheduled
from runner.report.markup import Markup, coded, joined, story, tag, text
from runner.report.run.numbers import number, written
from runner.report.run.stepping.checks import checks_of
from runner.report.run.stepping.program import lines_of
from runner.report.run.stepping.small import constants_of, is_small
from runner.report.run.subject import Subject
from runner.text import counted, shortened

MOST_LISTED = 12
"""The most optimizers, sources or values that the top of a page lists."""

LONGEST = 200


def story_of(subject: Subject) -> Markup:
    """The formula and the starting values of a small run, then optimizers, data, results and checks."""
    return story(_facts(subject))


def _facts(subject: Subject) -> Iterator[tuple[str, Markup]]:
    plan = subject.plan
    if plan is None:
        return
    if is_small(subject):
        yield "formula", joined([tag("pre", text(plan.config.expression.strip()))])
        yield from _values(subject)
    for name, optimizer in list(plan.optimizers.items())[:MOST_LISTED]:
        yield "optimizer" if plan.config.single_optimizer else f"optimizer {name}", coded(_optimizer(optimizer))
    for name, source in list(plan.sources.items())[:MOST_LISTED]:
        size = counted(source.samples, "sample")
        batches = f"{source.batches:,} batch{'es' if source.batches != 1 else ''} of {source.batch_size:,}"
        rest = source.samples % source.batch_size
        if rest and not source.drop_last and source.batches > 1:
            batches += f", the last of {rest:,}"
        yield f"data {name}", text(f"{size}, {batches}{', shuffled' if source.shuffle else ''}")
    for curve in subject.curves:
        if curve.name in plan.objectives and curve.count:
            first, last = (f"{number(float(curve.values[at]))} in row {int(curve.rows[at]):,}" for at in (0, -1))
            yield curve.name, text(first if first == last else f"{first}, {last}")
    checks = checks_of(subject, lines_of(plan, subject.steps)).words()
    if checks is not None:
        yield "checks", text(checks)


def _values(subject: Subject) -> Iterator[tuple[str, Markup]]:
    """The starting values and the constants of a small run."""
    assert subject.plan is not None
    first = {
        tensor.of.name: written(tensor.values[0])
        for tensor in subject.tensors
        if tensor.of.role == "weight" and 0 in tensor.values
    }
    if first:
        yield "starts at", text(_listed(first))
    constants = {name: written(value) for name, value in constants_of(subject).items()}
    constants |= {name: number(value) for name, value in subject.plan.scalars.items()}
    if constants:
        yield "constants", text(_listed(constants))


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in list(values.items())[:MOST_LISTED])


def _optimizer(optimizer: OptimizerPlan) -> str:
    options = [f"{name} {shortened(_option(value), LONGEST)}" for name, value in optimizer.options.items()]
    said = f"{optimizer.kind}{', ' if options else ''}{', '.join(options)}"
    return f"{said}: `w ← w − lr · w.grad`" if optimizer.kind == "sgd" and set(optimizer.options) == {"lr"} else said


def _option(value: object) -> str:
    if isinstance(value, (bool, int, float)):
        return number(value)
    return f"`{value.text}`" if isinstance(value, Scheduled) else str(value)
