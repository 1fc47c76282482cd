"""Config → Plan, in three stages.

    declare   names, tensors and data sources            → Declarations
    express   the expression, optimizers and the program → Program
    finish    log, snapshot, estimates, engine checks    → Plan

Each stage collects every problem that it finds; the next stage runs only if there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from runner.config import Config
from runner.errors import ConfigError
from runner.faults import Faults
from runner.plan.checks.device import prepare_device
from runner.plan.data.files import text_read_once
from runner.plan.data.sources import columns_read
from runner.plan.memory import machine_memory
from runner.plan.plan import Plan
from runner.plan.stages.declare import declare
from runner.plan.stages.express import express
from runner.plan.stages.finish import finish
from runner.plan.stages.request import ANY_SIZE, PlanLimits, Request
from runner.plan.tensors.examples import WrongInference
from runner.plan.tensors.fitting import with_fits
from runner.plan.tensors.initial_values import NOTHING
from runner.plan.tensors.source_columns import Readings


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
            config, warned = with_fits(config, allowed, memory)
            faults = Faults(config.document, warnings=[*warned])
            request = Request(config, allowed, limits, faults, memory, fitted, readings)
            try:
                plan = _compile(request, None)
            except WrongInference as wrong:
                plan = _compile(replace(request, faults=Faults(config.document, warnings=[*warned])), wrong.fake)
            return replace(plan, read=tables)
    except MemoryError as error:
        hint = "write fewer operations, or smaller tensors"
        problem = config.document.problem(
            ("expression",), "there is not enough memory to plan this config", hint, key=True
        )
        raise ConfigError([problem]) from error


def _compile(request: Request, fake: bool | None) -> Plan:
    """One attempt to plan.

    Args:
        fake: whether to infer shapes on fake tensors, after the other way failed; None chooses by size.
    Raises:
        WrongInference: shapes must be inferred the other way.
    """
    prepare_device(request.config, request.faults)
    declared = declare(request)
    program = express(request, declared, fake)
    return finish(request, declared, program)


__all__ = ["ConfigError", "PlanLimits", "compile"]
