"""A plan as plain values: the content of `steprun show`, as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, fx

from runner.cli.output.source_summary import values_in
from runner.config import ForEach, Repeat, Step
from runner.language.dtypes import dtype_name
from runner.language.graph.computation import extract
from runner.language.inference.runtime import gradient
from runner.optim import OptimizerPlan
from runner.optim.plans import Option, Scheduled
from runner.plan.checks.engines.compilable import most_at_once
from runner.plan.checks.engines.translatable import most_translated_at_once
from runner.plan.data.sources import BatchColumn, SourcePlan
from runner.plan.data.tables.columns import names_in
from runner.plan.data.tables.conversions import Conversion
from runner.plan.estimates import PROCESS_BYTES
from runner.plan.plan import Plan
from runner.plan.program import instructions as program
from runner.plan.rows.columns import Column, pieces
from runner.plan.tensors.from_run import FromRunPlan
from runner.plan.tensors.tensors import TensorPlan

_AT_ONCE = {"compile": most_at_once, "xla": most_translated_at_once}
"""The most iterations of a loop that an engine runs in one call."""


def describe(plan: Plan) -> dict[str, Any]:
    """Everything that a plan decides, as strings, numbers, lists and mappings."""
    estimates = plan.estimates
    return {
        "name": plan.name,
        "description": plan.config.description,
        "seed": plan.seed,
        "dtype": dtype_name(plan.dtype),
        "device": plan.device,
        "engine": plan.config.engine,
        "engine_reason": plan.engine_reason,
        "autocast": _autocast(plan),
        "at_once": _AT_ONCE[plan.config.engine](plan.program) if plan.config.engine in _AT_ONCE else 1,
        "tensors": [_tensor(tensor) for tensor in plan.tensors.values()],
        "from_run": None if plan.start is None else _from_run(plan.start),
        "data": [_source(source) for source in plan.sources.values()],
        "scalars": dict(plan.scalars),
        "objectives": {
            objective: {"reached_by": list(reached), "graph": _graph(plan, objective)}
            for objective, reached in plan.objectives.items()
        },
        "optimizers": [_optimizer(plan, optimizer) for optimizer in plan.optimizers.values()],
        "program": _program(plan),
        "log": {
            "every": plan.log.every,
            "columns": [_column(column) for column in plan.columns],
            "budget": plan.log.budget,
        },
        "memory_bytes": {
            "tensors": estimates.tensors,
            "gradients": estimates.gradients,
            "state": estimates.state,
            "values": estimates.values,
            "data": estimates.data,
            "total": estimates.memory,
            "rows": estimates.waiting,
            "process": PROCESS_BYTES,
            "peak": estimates.peak,
        },
        "lanes": None if plan.config.sweep is None else _lanes(plan),
        "log_bytes": {"rows": estimates.rows, "row": estimates.row, "total": estimates.log},
        "warnings": [warning.to_json() for warning in plan.warnings],
    }


def _lanes(plan: Plan) -> dict[str, Any]:
    """How points of a sweep run as lanes, if they differ only in what lanes may differ in."""
    from runner.plan.checks.engines.stackable import unstackable
    from runner.sweep.lanes.grouping import FEWEST, LARGE, lane_bytes, lanes_at_once, room_of

    found, most = unstackable(plan), lanes_at_once(plan, room_of(plan))
    obstacle = found.reason if found is not None else LARGE if most < FEWEST else None
    return {
        "bytes": lane_bytes(plan),
        "fewest": FEWEST,
        "at_once": 0 if obstacle is not None else most,
        "obstacle": obstacle,
    }


def _autocast(plan: Plan) -> dict[str, Any] | None:
    declared = plan.config.autocast
    if declared is None:
        return None
    return {"dtype": declared.dtype, "loss_scale": None if plan.loss_scaling is None else asdict(plan.loss_scaling)}


def _tensor(tensor: TensorPlan) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "role": tensor.role,
        "shape": list(tensor.shape),
        "dtype": dtype_name(tensor.dtype),
        "requires_grad": tensor.requires_grad,
        "init": str(tensor.init),
        "bytes": tensor.bytes,
    }


def _from_run(start: FromRunPlan) -> dict[str, Any]:
    return {
        "run": str(start.run),
        "at": start.at,
        "file": start.weights.name,
        "optimizer": start.optimizer,
        "taken": list(start.taken),
        "own": list(start.own),
        "unused": list(start.unused),
    }


def _source(source: SourcePlan) -> dict[str, Any]:
    return {
        "name": source.name,
        "samples": source.samples,
        "rows": source.rows,
        "batch_size": source.batch_size,
        "batches": source.batches,
        "shuffle": source.shuffle,
        "order": _order(source),
        "streams": source.streams,
        "classes": [{"class": each.name, "selected": each.selected, "rows": each.total} for each in source.spread],
        "columns": [
            {
                "name": column.name,
                "shape": list(column.shape),
                "dtype": dtype_name(column.dtype),
                "file": column.array.name,
                "columns": _columns_of(column),
                "taken": list(column.taken),
                "classes": {name: list(each.classes) for name, each in _conversions(column) if each.classes},
                "fill": {name: each.fill for name, each in _conversions(column) if each.fill is not None},
                **values_in(source, column),
            }
            for column in source.columns
        ],
    }


def _order(source: SourcePlan) -> str:
    """How the samples of a pass are ordered."""
    if not source.shuffle:
        return "file"
    if len(source.row_groups) > 1:
        return "shuffled row groups"
    return "computed" if source.computes_order else "shuffled"


def _columns_of(column: BatchColumn) -> list[str] | None:
    """The columns of the file that a batch column reads; None if the file is no table or all are read."""
    return list(names_in(column.array.columns)) or None


def _conversions(column: BatchColumn) -> Iterator[tuple[str, Conversion]]:
    """Each column of the file, or the array, that a batch column reads, and how its cells become numbers."""
    array = column.array
    for name in names_in(array.columns) if array.is_table else (array.column,):
        yield name, array.reading.of(name)


def _column(column: Column) -> dict[str, Any]:
    shape = None if column.shape is None else list(column.shape)
    found = pieces(column)
    return {
        "name": column.name,
        "role": column.role,
        "shape": shape,
        "dtype": dtype_name(column.dtype),
        "kept": column.kept,
        "whole": any(piece.number is None for piece in found),
        "slices": [piece.name for piece in found if piece.number is not None],
    }


# --- graphs


def _graph(plan: Plan, objective: str) -> list[dict[str, Any]]:
    """The operations that compute an objective, in order, each with the name of its value."""
    names = {id(node.meta): name for name, node in plan.lowered.values.items() if isinstance(node, fx.Node)}
    nodes = []
    for node in extract(plan.lowered, [objective]).graph.nodes:
        if node.op not in ("output", "placeholder"):
            nodes.append(
                {
                    "node": node.name,
                    "operation": _operation(node),
                    "arguments": [_argument(argument, names) for argument in node.args]
                    + [f"{key}={_argument(argument, names)}" for key, argument in node.kwargs.items()],
                    "value": names.get(id(node.meta)),
                    **_example(node),
                }
            )
    return nodes


def _operation(node: fx.Node) -> str:
    if node.op == "call_method":
        return f".{node.target}"
    target = node.target
    return "grad" if target is gradient else str(getattr(target, "__name__", target))


def _argument(argument: Any, names: Mapping[int, str]) -> str:
    if isinstance(argument, fx.Node):
        return str(argument.meta.get("input") or names.get(id(argument.meta), argument.name))
    if isinstance(argument, (tuple, list)):
        return f"[{', '.join(_argument(item, names) for item in argument)}]"
    if isinstance(argument, slice):
        ends = (argument.start, argument.stop, *(() if argument.step is None else (argument.step,)))
        return ":".join("" if end is None else _argument(end, names) for end in ends)
    return "..." if argument is Ellipsis else repr(argument).removeprefix("torch.")


def _example(node: fx.Node) -> dict[str, Any]:
    example = node.meta.get("example")
    if isinstance(example, Tensor):
        return {"shape": None if node.meta.get("dynamic") else list(example.shape), "dtype": dtype_name(example.dtype)}
    return {"shape": None, "dtype": type(example).__name__}


# --- optimizers and program


def _optimizer(plan: Plan, optimizer: OptimizerPlan) -> dict[str, Any]:
    rule = plan.config.optimizers[optimizer.name].rule
    return {
        "name": optimizer.name,
        "kind": optimizer.kind,
        "options": {name: _option(option) for name, option in optimizer.options.items()},
        "groups": [
            {
                "parameters": list(group.parameters),
                "options": {
                    name: _option(option)
                    for name, option in group.options.items()
                    if name not in optimizer.options or optimizer.options[name] != option
                },
            }
            for group in optimizer.groups
        ],
        "update": None if rule is None else rule.update.strip().split("\n"),
        "state": sorted({entry.name for entries in optimizer.state.values() for entry in entries}),
    }


def _option(option: Option) -> Any:
    if isinstance(option, Scheduled):
        return option.text
    return [_option(element) for element in option] if isinstance(option, tuple) else option


def _program(plan: Plan) -> list[dict[str, Any]]:
    """The steps as in the file, with nested loops."""
    conditions = {step.path: str(step.when) for step in _flat(plan.config.steps) if step.when is not None}
    return _block(plan.program, 0, conditions)[0]


def _flat(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        if isinstance(step.argument, (Repeat, ForEach)):
            yield from _flat(step.argument.steps)


def _block(
    instructions: tuple[program.Instruction, ...], position: int, conditions: Mapping[tuple[str | int, ...], str]
) -> tuple[list[dict[str, Any]], int]:
    """The steps from `position` to the end of their loop, and the position after it."""
    steps: list[dict[str, Any]] = []
    while position < len(instructions):
        instruction = instructions[position]
        position += 1
        if isinstance(instruction, program.LoopEnd):
            break
        if isinstance(instruction, program.LoopStart):
            inside, position = _block(instructions, position, conditions)
            loop: dict[str, Any] = {"step": "repeat", "times": instruction.times}
            if instruction.source is not None:
                loop = {
                    "step": "for_each",
                    "data": instruction.source,
                    "epochs": instruction.times // instruction.pass_length,
                    "times": instruction.times,
                }
            steps.append({**loop, "steps": inside})
            continue
        conditions_of_step: dict[str, Any] = {}
        if instruction.every is not None:
            conditions_of_step["every"] = instruction.every
        if instruction.when is not None:
            conditions_of_step["when"] = conditions[instruction.when.config_path[:-1]]
        if isinstance(instruction, program.Break):
            steps.append({**_leaving(instruction.patience), **conditions_of_step})
        else:
            steps.append(
                {
                    "step": instruction.kind,
                    **_details(instruction.argument),
                    **conditions_of_step,
                    "row": instruction.rows,
                }
            )
    return steps, position


def _leaving(patience: program.Patience | None) -> dict[str, Any]:
    if patience is None:
        return {"step": "stop"}
    followed = patience.followed
    return {"step": "patience", "on": followed.result, "mode": followed.mode, "evaluations": patience.evaluations}


def _details(argument: program.Argument) -> Mapping[str, Any]:
    """What a step computes and uses: objective, values, data sources, optimizers, parameters, expectations."""
    found: dict[str, Any] = {}
    evaluation = getattr(argument, "evaluation", None)
    if evaluation is not None:
        outputs = evaluation.computation.outputs
        if evaluation.objective is not None:
            found["objective"] = outputs[evaluation.objective].name
        found["computes"] = [output.name for output in outputs]
        if evaluation.sources:
            found["data"] = list(evaluation.sources)
    for name in ("optimizers", "parameters", "targets", "sources"):
        value = getattr(argument, name, None)
        if value:
            found[name] = list(value)
    if isinstance(argument, program.Checkpoint) and argument.tag is not None:
        found["tag"] = argument.tag
    if isinstance(argument, program.KeepBest):
        found["tag"] = "best"
    if isinstance(argument, program.Plateau):
        found["rate"] = argument.rate
    followed = getattr(argument, "followed", None)
    if followed is not None:
        found |= {"on": followed.result, "mode": followed.mode}
    if isinstance(argument, program.Expect):
        found["expectations"] = [expectation.text for expectation in argument.expectations]
    return found
