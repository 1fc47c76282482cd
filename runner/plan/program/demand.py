"""Finds what a program computes and reads before its steps are planned: the columns of rows depend on it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from runner.config import models
from runner.language.graph.computation import computed_with, inputs_of, loggable, scalar_dtype
from runner.language.text.faults import LanguageError
from runner.language.text.literals import expression_text
from runner.language.text.scalars import names_in
from runner.plan.data.sources import SourcePlan
from runner.plan.program.expressions import Values
from runner.plan.rows.columns import Column

NORM_COLUMN = "total_norm"
"""The column for the norm of a clipping step, named after the result of torch's `clip_grad_norm_`."""

SCALE_COLUMN = "loss_scale"
"""The column with the scale that a `train` step used."""


def prepare(values: Values, steps: tuple[models.Step, ...]) -> None:
    """Find what the program will compute and read, and set `values.columns` from it."""
    values.demanded |= {name for text in reads_of(steps) for name in _names(text) if name in values.lowered.values}
    wanted = {name for name in _objectives(steps, values.lowered.result) if loggable(values.lowered.values.get(name))}
    wanted |= {name for name in values.demanded if loggable(values.lowered.values[name])}
    computed = computed_with(values.lowered, sorted(wanted))
    supplied = values.metrics(computed)
    for sources in batchings(steps, values.supply.sources):
        values.find_varying(sources, [*computed, *supplied])
        if any(_accumulates(step) for step in _flat(steps)):
            _find_varying_in_micro_batches(values, sources, [*computed, *supplied])
    values.columns += [
        _value_column(name, values.lowered[name], name in values.varying) for name in (*computed, *supplied)
    ]
    values.columns += _evaluated_columns(values, steps)
    _check_metrics(values, supplied)
    if values.expression.scales_loss:
        _add_column(values, Column(SCALE_COLUMN, "value", torch.float32, ()), "that the loss scaler writes")
    if any(_clips_norm(step) for step in _flat(steps)):
        dtypes = [values.tensors[name].dtype.to_real() for name in values.trainable]
        dtype = functools.reduce(torch.promote_types, dtypes, values.environment.dtype.to_real())
        _add_column(values, Column(NORM_COLUMN, "norm", dtype, ()), "that clipping writes")


def _add_column(values: Values, column: Column, use: str) -> None:
    """Add a column that steps write; reports a problem if the config uses its name."""
    if column.name in {*values.lowered.values, *values.lowered.metrics, *values.tensors}:
        values.faults.add(("expression",), f"`{column.name}` is the column {use}", "choose another name")
    values.columns.append(column)


def _accumulates(step: models.Step) -> bool:
    return isinstance(step.argument, models.Train) and step.argument.accumulate != 1


def _find_varying_in_micro_batches(values: Values, preferred: Sequence[str], names: Sequence[str]) -> None:
    """Mark values with an entry per sample as varying: a row has the entries of all micro-batches."""
    from runner.language.pooling.pooling import Rows
    from runner.plan.program.pools import micro_outputs

    choice = values.supply.choose(preferred)
    used = list(dict.fromkeys(choice[name] for name in inputs_of(values.lowered, names) if name in choice))
    found = micro_outputs(values, used, choice, names)
    if found is not None:
        values.varying |= {name for name, state in zip(names, found.states, strict=True) if isinstance(state, Rows)}


def reads_of(steps: tuple[models.Step, ...]) -> list[str]:
    """Every expression in `assign`, `expect`, `when` and `gradient`, in the order of the file."""
    texts: list[str] = []
    for step in _flat(steps):
        if step.when is not None:
            texts.append(str(step.when))
        argument = step.argument
        if isinstance(argument, models.Assign):
            texts += [expression_text(value) for value in argument.values.values()]
        elif isinstance(argument, models.Expect):
            texts += [*argument.expectations]
            texts += [entry.value for entry in argument.expectations.values() if isinstance(entry.value, str)]
        elif isinstance(argument, models.Backward) and isinstance(argument.gradient, str):
            texts.append(argument.gradient)
    return texts


def evaluated(values: Values, argument: models.Evaluate) -> list[str]:
    """The names that an `evaluate` step computes: the objective and metrics."""
    metrics = argument.metrics or list(values.lowered.metrics)
    return list(dict.fromkeys([values.lowered.result, *(name for name in metrics if name in values.lowered.metrics)]))


def _evaluated_columns(values: Values, steps: tuple[models.Step, ...]) -> list[Column]:
    """A column for each result of the `evaluate` steps; `values.results` gets an example for later steps to read."""
    for step in _flat(steps):
        argument = step.argument
        if not isinstance(argument, models.Evaluate) or argument.data not in values.supply.sources:
            continue
        source = values.supply.sources[argument.data]
        if not all(column in source for column in values.reads(evaluated(values, argument))):
            continue
        lengths = {argument.data: source.batch_size}
        lowered = values.lowered_for(values.supply.choose([argument.data]), lengths, training=False)
        for name in [] if lowered is None else evaluated(values, argument):
            assert lowered is not None
            value = lowered[name]
            example = value.meta["example"] if isinstance(value, fx.Node) else value
            if isinstance(example, (bool, int, float)):
                example = torch.tensor(example, dtype=torch.float64)
            if not isinstance(example, Tensor):
                continue
            dtype = example.dtype if example.is_floating_point() or example.is_complex() else values.environment.dtype
            values.results[f"{argument.data}.{name}"] = example.detach().to(dtype)
    return [Column(name, "value", value.dtype, tuple(value.shape)) for name, value in values.results.items()]


def batchings(steps: tuple[models.Step, ...], sources: Mapping[str, SourcePlan]) -> list[tuple[str, ...]]:
    """The preferred sources of the steps of a program, without duplicates: a step's own, then its loops'."""
    if not sources:
        return []
    found: dict[tuple[str, ...], None] = {}
    kinds = (models.Forward, models.Backward, models.Train)

    def collect(block: tuple[models.Step, ...], enclosing: tuple[str, ...]) -> None:
        for step in block:
            argument = step.argument
            if isinstance(argument, models.ForEach):
                collect(argument.steps, (argument.data or next(iter(sources)), *enclosing))
            elif isinstance(argument, models.Repeat):
                collect(argument.steps, enclosing)
            elif isinstance(argument, kinds):
                found[(*(() if argument.data is None else (argument.data,)), *enclosing)] = None
            elif step.kind == "step":
                found[enclosing] = None

    collect(steps, ())
    return list(found)


def _value_column(name: str, value: Any, varies: bool = False) -> Column:
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if isinstance(example, Tensor):
        assert isinstance(value, fx.Node)
        varies = varies or value.meta.get("dynamic", False)
        return Column(name, "value", example.dtype, None if varies else tuple(example.shape))
    return Column(name, "value", scalar_dtype(example), ())


def _check_metrics(values: Values, supplied: Sequence[str]) -> None:
    for name in values.lowered.metrics:
        path = ("metrics", name)
        tensor = values.tensors.get(name)
        owner = "a named value" if name in values.lowered.values else ""
        if tensor is not None and tensor.role == "parameter":
            owner = "a parameter"
        if owner:
            message = f"the metric `{name}` and {owner} would share a column"
            values.faults.add(path, message, "rename one of them", key=True)
        elif name not in supplied and not any(result.endswith(f".{name}") for result in values.results):
            message = f"no step computes what the metric `{name}` reads"
            values.faults.warn(path, message, "compute it: `forward`, or remove the metric", key=True)


def _flat(steps: tuple[models.Step, ...]) -> Iterator[models.Step]:
    for step in steps:
        yield step
        if isinstance(step.argument, (models.Repeat, models.ForEach)):
            yield from _flat(step.argument.steps)


def _objectives(steps: tuple[models.Step, ...], default: str) -> set[str]:
    kinds = (models.Forward, models.Backward, models.Train)
    found = {step.argument.objective or default for step in _flat(steps) if isinstance(step.argument, kinds)}
    return found | ({default} if any(step.kind == "step" for step in _flat(steps)) and not found else set())


def _clips_norm(step: models.Step) -> bool:
    return step.kind == "clip_grad_norm" or (
        isinstance(step.argument, models.Train) and step.argument.clip_grad_norm is not None
    )


def _names(text: str) -> frozenset[str]:
    try:
        return names_in(text)
    except LanguageError:
        return frozenset()
