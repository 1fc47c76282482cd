"""Lowers the expression of a config, and plans its optimizers and its program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch

from runner.faults import Faults, PlacedFault
from runner.language.graph.computation import forget_examples
from runner.language.graph.lowered import Lowered
from runner.language.inference.torch_warnings import hide_from_now_on
from runner.language.lowering.scope import Environment
from runner.language.text.faults import LanguageError
from runner.optim import OptimizerPlan, RuleContext, plan_optimizers, readable
from runner.plan.checks.advice import TORCH_WARNS, advise
from runner.plan.checks.gradients import check_gradients
from runner.plan.checks.measured import check_measured
from runner.plan.checks.objectives import check_objectives
from runner.plan.checks.overlaps import check_overlaps
from runner.plan.checks.unused import check_use
from runner.plan.data.batch_choice import Supply
from runner.plan.determinism import deterministic
from runner.plan.program.demand import prepare
from runner.plan.program.expressions import Values
from runner.plan.program.instructions import Instruction
from runner.plan.program.planner import ProgramPlanner
from runner.plan.program.step_context import StepContext
from runner.plan.program.whole_expression import WholeExpression
from runner.plan.rows.columns import Column
from runner.plan.rows.log import columns_of, kept_columns
from runner.plan.stages.declare import Declarations
from runner.plan.stages.request import Request, warn
from runner.plan.tensors.examples import (
    ROOM,
    Examples,
    Shapes,
    example_tensors,
    fits,
)
from runner.plan.tensors.initial_values import Drawings, is_table


@dataclass(frozen=True, slots=True)
class Program:
    """The computations of a config, step by step."""

    environment: Environment
    drawings: Drawings
    lowered: Lowered
    optimizers: Mapping[str, OptimizerPlan]
    objectives: Mapping[str, tuple[str, ...]]
    instructions: tuple[Instruction, ...]
    possible: tuple[Column, ...]  # all columns that rows can have
    columns: tuple[Column, ...]  # the columns that the log keeps
    value_bytes: int  # bytes of all values of one evaluation


def express(request: Request, declared: Declarations, fake: bool | None) -> Program:
    """The computations of a config; raises ConfigError if one is not valid.

    Args:
        fake: whether to infer shapes on fake tensors, after the other way failed; None chooses by size.
    Raises:
        WrongInference: shapes must be inferred the other way.
    """
    config, faults, tensors, supply = request.config, request.faults, declared.tensors, declared.supply
    small = fits(tensors, supply.example_bytes())
    shapes = Shapes(declared.context.bounds, config.device, not small if fake is None else fake, fake is not None)
    memory = min(request.memory, ROOM) if small else request.memory
    with deterministic(config.device), _examples(request, declared, shapes, memory) as examples:
        environment = replace(declared.environment, tables=examples.tables)
        expression = WholeExpression(config, tensors, examples.tensors, environment, shapes)
        lowered = _lower(expression, supply, faults)
        optimizers = _plan_optimizers(expression, lowered, faults)
        if lowered is None:
            faults.stop()
            raise AssertionError
        values = Values(
            faults=faults,
            lowered=lowered,
            tensors=tensors,
            examples=examples.tensors,
            environment=environment,
            optimizers=optimizers,
            declared_optimizers=frozenset(config.optimizers),
            shapes=shapes,
            supply=supply,
            expression=expression,
        )
        values.read.update(name for optimizer in optimizers.values() for name in optimizer.reads)
        check_objectives(config.objectives, lowered, values.trainable, faults)
        prepare(values, config.steps)
        possible = columns_of(values.columns, tensors, optimizers, state=config.log.state)
        values.columns = kept_columns(config.log, possible, faults)
        steps = StepContext(values)
        instructions = ProgramPlanner(steps).plan(config.steps)
        pairs = advise(lowered, instructions, tensors, faults)
        for other in values.other_lowered():
            forget_examples(other)
    for path, text, error in shapes.warned:
        if pairs and text.startswith(TORCH_WARNS):
            hide_from_now_on(TORCH_WARNS)  # `advise` has reported it
        else:
            warn(faults, path, text, error)
    check_use(config, values, steps.objectives, steps.stepped)
    check_overlaps(instructions, supply.sources, config.data, faults, request.memory)
    check_measured(instructions, faults)
    check_gradients(instructions, faults)
    return Program(
        environment,
        examples.drawings,
        lowered,
        optimizers,
        steps.objectives,
        instructions,
        tuple(possible),
        tuple(values.columns),
        shapes.bytes,
    )


@contextmanager
def _examples(request: Request, declared: Declarations, shapes: Shapes, memory: int) -> Iterator[Examples]:
    """Provides the example tensors of a config; raises if an initial value cannot be computed."""
    faults = request.faults
    with ExitStack() as stack:
        try:
            made = example_tensors(declared.tensors, declared.context, fake=shapes.fake, memory=memory)
            examples = stack.enter_context(made)
        except PlacedFault as fault:
            faults.problems.append(fault.problem(faults.document))
            faults.stop()
            raise AssertionError from fault
        yield examples


def _lower(expression: WholeExpression, supply: Supply, faults: Faults) -> Lowered | None:
    """The expression lowered for full training batches; None after its problems were collected."""
    try:
        return expression.lower(supply.examples(supply.choose(), {}), True)
    except LanguageError as error:
        expression.shapes.retry(error)
        faults.language(("expression",), error)
    return None


def _plan_optimizers(expression: WholeExpression, lowered: Lowered | None, faults: Faults) -> dict[str, OptimizerPlan]:
    environment, shapes = expression.environment, expression.shapes
    parameters = {name: tensor for name, tensor in expression.tensors.items() if tensor.role == "parameter"}
    constants = {name: tensor for name, tensor in expression.tensors.items() if tensor.role == "constant"}
    elsewhere = {
        **dict.fromkeys(lowered.values if lowered else (), "a named value"),
        **dict.fromkeys(parameters, "a parameter"),
        **dict.fromkeys((name for name in constants if name not in environment.tables), "a tensor"),
    }
    numbers = readable(parameters)
    return plan_optimizers(
        expression.config,
        parameters,
        {**environment.tables, **environment.scalars},
        faults.problems,
        faults.warnings,
        constants=constants,
        rules=RuleContext(
            environment.scope(expression.examples, elsewhere=elsewhere),
            {name: _number_like(parameters[name].dtype) for name in parameters if name in numbers},
            shapes.inference,
            shapes.retry,
        ),
        unread=[name for name, tensor in constants.items() if not is_table(tensor.shape, tensor.dtype)],
    )


def _number_like(dtype: torch.dtype) -> bool | int | float:
    """An example of the Python number that a tensor of one element becomes."""
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
