"""Plans the log, the snapshot and the checks of a run, estimates its size, and makes the plan."""

from __future__ import annotations

from collections.abc import Mapping

from runner.config import Config
from runner.config.keys import AUTO
from runner.errors import EngineError
from runner.faults import Faults
from runner.language.graph.computation import forget_examples, undefined_at_times
from runner.plan.checks.mixed_precision import check_scaled, plan_loss_scaling
from runner.plan.estimates import (
    Estimates,
    check_size,
    count_rows,
    data_bytes,
    gathered_bytes,
    row_bytes,
    state_bytes,
)
from runner.plan.plan import Plan
from runner.plan.rows.health import HealthPlan, plan_health
from runner.plan.rows.log import LogPlan, plan_log
from runner.plan.snapshots import plan_snapshot
from runner.plan.stages.declare import Declarations
from runner.plan.stages.express import Program
from runner.plan.stages.request import Request
from runner.plan.tensors.from_run_state import plan_optimizer_starts
from runner.plan.tensors.tensors import TensorPlan

COMPILER_BYTES = 1 << 30
"""Bytes that a compiler itself may allocate in the process: torch's, or XLA."""


def finish(request: Request, declared: Declarations, program: Program) -> Plan:
    """The plan of a run; raises ConfigError if it is too large, or if its engine cannot do what it says."""
    config, faults, supply = request.config, request.faults, declared.supply
    environment, instructions, scalars = program.environment, program.instructions, program.environment.scalars
    snapshot = plan_snapshot(config, program.possible, instructions, scalars, faults)
    log = plan_log(config.log, program.columns, scalars, faults)
    health = plan_health(config.health, scalars, declared.tensors, faults)
    scaling = plan_loss_scaling(config, scalars, faults)
    named = "eager" if config.engine == AUTO else config.engine  # what `auto` is depends on all the rest
    check_scaled(scaling, instructions, program.optimizers, declared.tensors, named, faults)
    starts = plan_optimizer_starts(config, declared.start, program.optimizers, faults)
    estimates = _estimate(request, declared, program, log)
    faults.stop()
    if config.engine not in ("xla", AUTO):
        _check_engine(config, declared.tensors, program, health)
    check_size(estimates, request.memory, log.budget, faults, runs=request.limits.runs)
    faults.stop()
    reason = None
    if config.engine == "xla":  # computes each step once, so its size is checked before
        _check_engine(config, declared.tensors, program, health)
    elif config.engine == AUTO:
        from runner.plan.checks.engines.choice import choose_engine  # a named engine does not need it

        config, reason = choose_engine(config, instructions, program.optimizers, declared.tensors, health, scaling)
        if config.engine == "xla":
            _check_device(request.config)
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
        memory=_memory_limit(config, request.memory),
        partial=undefined_at_times(program.lowered) | _of_all_samples(config),
        drawings=program.drawings,
        fitted=declared.context.fitted,
        fitted_from=tuple(supply.sources[source][name] for source, name in sorted(supply.fitted)),
        start=declared.start,
        optimizer_starts=starts,
        engine_reason=reason,
    )


def _of_all_samples(config: Config) -> frozenset[str]:
    """The metrics that are declared with `whole`; a batch may be too small for them."""
    return frozenset(name for name, each in config.metrics.items() if not isinstance(each, str) and each.whole)


def _estimate(request: Request, declared: Declarations, program: Program, log: LogPlan) -> Estimates:
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
        from runner.plan.checks.engines.capturable import check_capturable  # other engines do not need it

        check_capturable(program.instructions, tensors, refusals)
    elif config.engine == "compile":
        from runner.plan.checks.engines.compilable import check_compilable

        check_compilable(program.instructions, program.optimizers, health, refusals)
    elif config.engine == "xla":
        from runner.plan.checks.engines.translatable import check_translatable

        trainable = [name for name, tensor in tensors.items() if tensor.requires_grad]
        check_translatable(program.instructions, program.optimizers, trainable, health, refusals)
        refusals.stop(EngineError)
        _check_device(config)
    refusals.stop(EngineError)


def _check_device(config: Config) -> None:
    """Check that JAX has the device of a config whose engine is `xla`, or `auto` that chose `xla`.

    Raises:
        EngineError: it does not.
    """
    from runner.plan.checks.engines.translatable import check_device

    refusals = Faults(config.document)
    check_device(config.device, refusals, config.engine)
    refusals.stop(EngineError)


def _memory_limit(config: Config, memory: int) -> int | None:
    """Bytes that the run may allocate on the CPU; None on other devices, where only the estimate is checked."""
    if config.device != "cpu":
        return None
    return memory + (COMPILER_BYTES if config.engine in ("compile", "xla") else 0)
