"""Declares the names, tensors and data sources of a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

from runner.config import Config, TensorDeclaration
from runner.language.dtypes import DTYPES
from runner.language.inference.inference import Bounds, Clock
from runner.language.lowering.scope import Environment, declare_functions
from runner.plan.checks.mixed_precision import check_autocast
from runner.plan.checks.names import check_names, check_syntax, warn_of_replaced
from runner.plan.data.batch_choice import Supply
from runner.plan.data.reading.source_tables import class_counts
from runner.plan.data.sources import plan_sources
from runner.plan.scalars import scalar_constants
from runner.plan.stages.request import Request, warn
from runner.plan.tensors.examples import infer_initial
from runner.plan.tensors.fitting import fitted_values, sizes_of
from runner.plan.tensors.from_run import FromRunPlan, plan_from_run
from runner.plan.tensors.initial_values import InitialContext
from runner.plan.tensors.source_columns import columns_named, source_columns
from runner.plan.tensors.tensors import TensorPlan, plan_tensors


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


def declare(request: Request) -> Declarations:
    """The declarations of a config; raises ConfigError if one is not valid."""
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
    elif not sound and (columns_named(config) or _reads_sizes(config)):  # else their readers would be reported too
        check_syntax(config, faults)
        faults.stop()
    environment = Environment(scalars, {}, functions, DTYPES[config.dtype], config.device)
    bounds = Bounds(limits.nodes, request.most, Clock(limits.seconds, limits.spent))
    columns = source_columns(sources, request.readings)
    context = InitialContext(config.seed, environment, bounds, partial(warn, faults), columns, dict(request.fitted))
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


def _reads_sizes(config: Config) -> bool:
    """Whether a scalar constant or a shape reads a data source, as in `train.x.shape[1]`."""
    tensors = (*config.parameters.values(), *config.constants.values())
    shapes = [value.shape or () for value in tensors if isinstance(value, TensorDeclaration)]
    texts = [value for value in (*tensors, *chain.from_iterable(shapes)) if isinstance(value, str)]
    return any(f"{source}." in text for source in config.data for text in texts)
