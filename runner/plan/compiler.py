"""Config → Plan, in three stages.

    declare   names, tensors and data sources            → Declarations
    express   the expression, optimizers and the program → Program
    finish    log, snapshot, estimates, engine checks    → Plan

Each stage collects every problem that it finds; the next stage runs only if there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from runner.config import Config
from runner.errors import ConfigError, EngineError
from runner.faults import ConfigPath, Faults, KeyPath, PlacedFault, place
from runner.language.dtypes import DTYPES
from runner.language.graph.computation import forget_examples, undefined_at_times
from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import MAX_NODES, Bounds, Clock
from runner.language.inference.torch_warnings import hide_from_now_on
from runner.language.lowering.scope import Environment, declare_functions
from runner.language.text.faults import LanguageError
from runner.optim import OptimizerPlan, RuleContext, plan_optimizers, readable
from runner.plan.checks.advice import TORCH_WARNS, advise
from runner.plan.checks.device import prepare_device
from runner.plan.checks.mixed_precision import check_autocast, check_scaled, plan_loss_scaling
from runner.plan.checks.names import check_names, check_syntax, warn_of_replaced
from runner.plan.checks.objectives import check_objectives
from runner.plan.checks.overlaps import check_overlaps
from runner.plan.checks.unused import check_use
from runner.plan.data.batch_choice import Supply
from runner.plan.data.files import text_read_once
from runner.plan.data.reading.source_tables import class_counts
from runner.plan.data.sources import columns_read, plan_sources
from runner.plan.determinism import deterministic
from runner.plan.estimates import (
    Estimates,
    check_size,
    count_rows,
    data_bytes,
    gathered_bytes,
    row_bytes,
    state_bytes,
)
from runner.plan.memory import machine_memory
from runner.plan.plan import Plan
from runner.plan.program.demand import prepare
from runner.plan.program.expressions import Values
from runner.plan.program.instructions import Instruction
from runner.plan.program.planner import ProgramPlanner
from runner.plan.program.step_context import StepContext
from runner.plan.program.whole_expression import WholeExpression
from runner.plan.rows.columns import Column
from runner.plan.rows.health import HealthPlan, plan_health
from runner.plan.rows.log import LogPlan, columns_of, kept_columns, plan_log
from runner.plan.scalars import scalar_constants
from runner.plan.snapshots import plan_snapshot
from runner.plan.tensors.examples import (
    ROOM,
    Examples,
    Shapes,
    WrongInference,
    example_tensors,
    fits,
    infer_initial,
)
from runner.plan.tensors.fitting import fitted_values, sizes_of, with_fits
from runner.plan.tensors.from_run import FromRunPlan, plan_from_run
from runner.plan.tensors.from_run_state import plan_optimizer_starts
from runner.plan.tensors.initial_values import NOTHING, Drawings, InitialContext, is_table
from runner.plan.tensors.source_columns import Readings, columns_named, source_columns
from runner.plan.tensors.tensors import TensorPlan, plan_tensors

ANY_SIZE = 1 << 60
"""Bytes; larger than the memory of any machine."""

COMPILER_BYTES = 1 << 30
"""Bytes that torch's compiler itself may allocate in the process."""


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """Limits on the size of a config; most have a command-line flag."""

    nodes: int = MAX_NODES  # --max-nodes
    memory: int | None = None  # --max-memory, bytes; None: the memory of the machine
    seconds: float = 20  # --max-seconds, for planning
    spent: float = 0  # seconds of those already spent on reading the config
    runs: bool = True  # whether the plan runs on this machine; if not, it may exceed `memory`


def compile(
    config: Config,
    *,
    allowed: Iterable[Path] = (),
    limits: PlanLimits | None = None,
    fitted: Mapping[str, Tensor] = NOTHING,
) -> Plan:
    """Resolve a config into the plan that an engine runs.

    Args:
        config: a config, as `load` or `loads` returns it.
        allowed: folders from which data files may be read, in addition to the config's own.
        limits: limits on its size.
        fitted: the values of tensors that an earlier run computed from data, which are not computed again.
    Raises:
        ConfigError: the config is invalid; carries every problem found, with its place.
        EngineError: a `ConfigError`: the config is valid, but its engine does not support it.
    """
    limits = limits or PlanLimits()
    allowed = tuple(allowed)
    memory = limits.memory or machine_memory()
    readings = Readings(memory if limits.runs else ANY_SIZE)
    try:
        with text_read_once(columns_read(config)) as tables:
            config = with_fits(config, allowed, memory)
            request = _Request(config, allowed, limits, Faults(config.document), memory, fitted, readings)
            try:
                plan = _compile(request, None)
            except WrongInference as wrong:
                plan = _compile(replace(request, faults=Faults(config.document)), wrong.fake)
            return replace(plan, read=tables)
    except MemoryError as error:
        hint = "write fewer operations, or smaller tensors"
        problem = config.document.problem(
            ("expression",), "there is not enough memory to plan this config", hint, key=True
        )
        raise ConfigError([problem]) from error


def _compile(request: _Request, fake: bool | None) -> Plan:
    """One attempt to plan.

    Args:
        fake: whether to infer shapes on fake tensors, after the other way failed; None chooses by size.
    Raises:
        WrongInference: shapes must be inferred the other way.
    """
    prepare_device(request.config, request.faults)
    declared = _declare(request)
    program = _express(request, declared, fake)
    return _finish(request, declared, program)


@dataclass(frozen=True, slots=True)
class _Request:
    """The config to plan, and its limits."""

    config: Config
    allowed: tuple[Path, ...]
    limits: PlanLimits
    faults: Faults  # the problems that the stages find
    memory: int  # bytes that the run may allocate
    fitted: Mapping[str, Tensor]  # recorded values of tensors that are computed from data
    readings: Readings  # of data sources by initial expressions

    @property
    def most(self) -> int:
        """Maximum bytes of one value."""
        return self.memory if self.limits.runs else ANY_SIZE


@dataclass(frozen=True, slots=True)
class Declarations:
    """The tensors and data sources that a config declares."""

    context: InitialContext
    tensors: Mapping[str, TensorPlan]
    start: FromRunPlan | None
    supply: Supply

    @property
    def environment(self) -> Environment:
        return self.context.environment


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


# declare


def _declare(request: _Request) -> Declarations:
    config, faults, limits = request.config, request.faults, request.limits
    counts = dict(class_counts(config.data))
    scalars = scalar_constants(config, faults, counts)
    if faults.problems:  # further checks would also report every reader of these constants
        check_syntax(config, faults)
        faults.stop()
    functions, wrong = declare_functions(config.functions)
    for declaration, head, error in wrong:
        faults.language(("functions", declaration), error, key=head)
    warn_of_replaced(functions, faults)
    before = len(faults.problems)
    sources = plan_sources(config.data, scalars, DTYPES[config.dtype], faults, request.allowed, request.memory)
    sound = len(faults.problems) == before  # else what reads a source with a problem would be reported too
    sizes = sizes_of(sources)
    if sound and config.data:
        scalars = scalar_constants(config, faults, counts, sizes)
        if len(faults.problems) > before:
            faults.stop()
    environment = Environment(scalars, {}, functions, DTYPES[config.dtype], config.device)
    bounds = Bounds(limits.nodes, request.most, Clock(limits.seconds, limits.spent))
    columns = source_columns(sources, request.readings)
    context = InitialContext(config.seed, environment, bounds, partial(_warn, faults), columns, dict(request.fitted))
    tensors: Mapping[str, TensorPlan] = plan_tensors(
        config,
        {**scalars, **sizes},
        environment.dtype,
        faults.problems,
        request.allowed,
        infer=partial(infer_initial, context=context) if sound else None,
        warnings=faults.warnings,
        limit=request.most,
    )
    start, tensors = plan_from_run(config, tensors, request.allowed, faults)
    if sound and faults.problems:
        check_syntax(config, faults)
        faults.stop()
    check_names(config, faults)
    check_autocast(config, tensors, sources, faults)
    faults.stop()
    with faults.collecting():
        context = fitted_values(tensors, context, start)
    faults.stop()
    return Declarations(context, tensors, start, Supply(sources, config.device, fitted=columns_named(config)))


# express


def _express(request: _Request, declared: Declarations, fake: bool | None) -> Program:
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
            _warn(faults, path, text, error)
    check_use(config, values, steps.objectives, steps.stepped)
    check_overlaps(instructions, supply.sources, config.data, faults, request.memory)
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


def _warn(faults: Faults, path: ConfigPath, text: str, error: LanguageError) -> None:
    """Report a warning of torch at its place, and hide it from now on."""
    hide_from_now_on(text)
    problem = place(faults.document, path, error, key=isinstance(path, KeyPath))
    if problem not in faults.warnings:
        faults.warnings.append(problem)


@contextmanager
def _examples(request: _Request, declared: Declarations, shapes: Shapes, memory: int) -> Iterator[Examples]:
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
    return plan_optimizers(
        expression.config,
        parameters,
        {**environment.tables, **environment.scalars},
        faults.problems,
        faults.warnings,
        constants=constants,
        rules=RuleContext(
            environment.scope(expression.examples, elsewhere=elsewhere),
            {name: _number_like(parameters[name].dtype) for name in parameters if name in readable(parameters)},
            shapes.inference,
            shapes.retry,
        ),
        unread=[name for name, tensor in constants.items() if not is_table(tensor.shape, tensor.dtype)],
    )


def _number_like(dtype: torch.dtype) -> bool | int | float:
    """An example of the Python number that a tensor of one element becomes."""
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1


# finish


def _finish(request: _Request, declared: Declarations, program: Program) -> Plan:
    config, faults, supply = request.config, request.faults, declared.supply
    environment, instructions, scalars = program.environment, program.instructions, program.environment.scalars
    snapshot = plan_snapshot(config, program.possible, instructions, scalars, faults)
    log = plan_log(config.log, program.columns, scalars, faults)
    health = plan_health(config.health, scalars, declared.tensors, faults)
    scaling = plan_loss_scaling(config, scalars, faults)
    check_scaled(scaling, instructions, program.optimizers, declared.tensors, config.engine, faults)
    starts = plan_optimizer_starts(config, declared.start, program.optimizers, faults)
    estimates = _estimate(request, declared, program, log)
    faults.stop()
    _check_engine(config, declared.tensors, program, health)
    check_size(estimates, request.memory, log.budget, faults, runs=request.limits.runs)
    faults.stop()
    forget_examples(program.lowered)
    return Plan(
        config=config,
        name=config.name or "config",
        seed=config.seed,
        dtype=environment.dtype,
        device=config.device,
        scalars=scalars,
        tables=environment.tables,
        functions=environment.functions,
        tensors=declared.tensors,
        lowered=program.lowered,
        objectives=program.objectives,
        optimizers=program.optimizers,
        program=instructions,
        log=log,
        snapshot=snapshot,
        estimates=estimates,
        warnings=tuple(faults.warnings),
        sources={name: source for name, source in supply.sources.items() if name in supply.drawn},
        declared=supply.sources,
        on_nonfinite=config.on_nonfinite,
        health=health,
        loss_scaling=scaling,
        memory=_memory_limit(request),
        partial=undefined_at_times(program.lowered) | _of_all_samples(config),
        drawings=program.drawings,
        fitted=declared.context.fitted,
        fitted_from=tuple(supply.sources[source][name] for source, name in sorted(supply.fitted)),
        start=declared.start,
        optimizer_starts=starts,
    )


def _of_all_samples(config: Config) -> frozenset[str]:
    """The metrics that are declared with `whole`; a batch may be too small for them."""
    return frozenset(name for name, each in config.metrics.items() if not isinstance(each, str) and each.whole)


def _estimate(request: _Request, declared: Declarations, program: Program, log: LogPlan) -> Estimates:
    tensors, supply = declared.tensors.values(), declared.supply
    return Estimates(
        tensors=sum(tensor.bytes for tensor in tensors),
        gradients=sum(tensor.bytes for tensor in tensors if tensor.requires_grad),
        state=state_bytes(program.optimizers.values()),
        values=program.value_bytes,
        row=row_bytes(log),
        rows=count_rows(program.instructions, log.every),
        data=data_bytes(source for name, source in supply.sources.items() if name in supply.drawn)
        + sum(declared.context.columns[f"{source}.{name}"].bytes for source, name in request.readings.held)
        + gathered_bytes(program.instructions),
    )


def _check_engine(config: Config, tensors: Mapping[str, TensorPlan], program: Program, health: HealthPlan) -> None:
    """Check that the engine supports the config.

    Raises:
        EngineError: it does not.
    """
    refusals = Faults(config.document)
    if config.engine == "cudagraph":
        from runner.plan.checks.capturable import check_capturable  # other engines do not need it

        check_capturable(program.instructions, tensors, refusals)
    elif config.engine == "compile":
        from runner.plan.checks.compilable import check_compilable

        check_compilable(program.instructions, program.optimizers, health, refusals)
    refusals.stop(EngineError)


def _memory_limit(request: _Request) -> int | None:
    """Bytes that the run may allocate on the CPU; None on other devices, where only the estimate is checked."""
    if request.config.device != "cpu":
        return None
    return request.memory + (COMPILER_BYTES if request.config.engine == "compile" else 0)


__all__ = ["ConfigError", "PlanLimits", "compile"]
