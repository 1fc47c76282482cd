"""Config → Plan: scalars, tensors, the expression, optimizers, the program, and what it will all take."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.config import Config
from runner.errors import ConfigError, EngineError
from runner.language.dtypes import DTYPES
from runner.language.graph.computation import forget_examples
from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import MAX_NODES, Bounds, Clock, Inference
from runner.language.lowering.diagnosis import AllocationError
from runner.language.lowering.lower import lower_statements, uses_grad
from runner.language.lowering.scope import Function, Scope, declare_functions
from runner.language.text.faults import LanguageError, place_of
from runner.language.text.parse import assigned_names, parse_statements
from runner.language.text.scalars import Scalar
from runner.optim import OptimizerPlan, RuleSurroundings, plan_optimizers
from runner.optim.faults import PlacedFault
from runner.plan.checks.advice import advise, leave_to_advice, torch_quiet
from runner.plan.checks.unused import check_use
from runner.plan.data.batch_choice import Supply
from runner.plan.data.files import text_read_once
from runner.plan.data.sources import columns_read, plan_sources
from runner.plan.determinism import configure, deterministic
from runner.plan.estimates import Estimates, check_size, count_rows, data_bytes, row_bytes, state_bytes
from runner.plan.faults import Faults
from runner.plan.memory import bounded_memory, machine_memory
from runner.plan.plan import Plan
from runner.plan.program.demand import prepare
from runner.plan.program.expressions import Values
from runner.plan.program.instructions import Instruction
from runner.plan.program.planner import ProgramPlanner
from runner.plan.rows.health import plan_health
from runner.plan.rows.log import LogPlan, columns_of, kept_columns, plan_log
from runner.plan.scalars import scalar_constants
from runner.plan.snapshots import plan_snapshot
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.initial_values import Drawings, Surroundings, computed_value, initial_values, is_table, tables
from runner.plan.tensors.tensors import TensorPlan, plan_tensors

_MEASURES = re.compile(r"\b(shape|size|numel|nelement|len|dim|ndim)\b")

SMALL = 64 << 20
"""Bytes of declared tensors up to which shapes are inferred on the tensors themselves."""

ROOM = 192 << 20
"""Bytes that inference on real tensors may take besides; what wants more is inferred without allocating."""


ANY_SIZE = 1 << 60
"""More bytes than any machine has."""

COMPILER = 1 << 30
"""Bytes that torch's compiler may take in a process besides what it compiles."""


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """How large a config may become; each has a flag of the command line."""

    nodes: int = MAX_NODES  # --max-nodes
    memory: int | None = None  # --max-memory, bytes; what the machine has unless given
    seconds: float = 20  # --max-seconds, of planning
    spent: float = 0  # of these, on reading the config
    runs: bool = True  # whether the plan is run, here: one that is only looked at may be larger than `memory`


def compile(config: Config, *, allowed: Iterable[Path] = (), limits: PlanLimits | None = None) -> Plan:
    """Resolve a config into the plan that an engine follows.

    Args:
        config: as `load` or `loads` gives it.
        allowed: folders from which data files may be read, besides the config's own.
        limits: how large it may become.
    Raises:
        ConfigError: the config is not valid; every fault found, each at its place.
        EngineError: a `ConfigError`: the config is valid, and its engine cannot do what it asks.
    """
    limits = limits or PlanLimits()
    allowed = tuple(allowed)
    try:
        with text_read_once(columns_read(config)):
            try:
                return _Compiler(config, allowed, limits).compile()
            except _Again as again:
                return _Compiler(config, allowed, limits, fake=again.fake).compile()
    except MemoryError as error:
        hint = "write fewer operations, or smaller tensors"
        problem = config.document.problem(("expression",), "there is not enough memory to plan this", hint, key=True)
        raise ConfigError([problem]) from error


class _Again(Exception):
    """Shapes have to be inferred the other way: without allocating, or on the tensors themselves."""

    def __init__(self, fake: bool) -> None:
        super().__init__()
        self.fake = fake


def _unfakeable() -> tuple[type[BaseException], ...]:
    """What fake tensors raise where a shape depends on data, or where torch has no rule for it."""
    from torch._subclasses import fake_tensor

    return (
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.DataDependentOutputException,
        fake_tensor.UnsupportedOperatorException,
        NotImplementedError,
    )


_DEVICE_COUNTS: Mapping[str, Callable[[], int]] = {
    "cpu": lambda: 1,
    "cuda": lambda: torch.cuda.device_count(),
    "mps": lambda: int(torch.backends.mps.is_available()),
}


class _Compiler:
    def __init__(self, config: Config, allowed: tuple[Path, ...], limits: PlanLimits, fake: bool | None = None) -> None:
        self.decided = fake  # how shapes are inferred, where the first way has failed
        self.config = config
        self.allowed = allowed
        self.faults = Faults(config.document)
        self.memory = limits.memory or machine_memory()
        self.runs = limits.runs
        self.most = self.memory if limits.runs else ANY_SIZE
        self.bounds = Bounds(limits.nodes, self.most, Clock(limits.seconds, limits.spent))
        self.dtype = DTYPES[config.dtype]
        self.inferences: list[Inference] = []
        self.drawings = Drawings({}, {})

    def compile(self) -> Plan:
        config, faults = self.config, self.faults
        self.check_device()
        scalars = scalar_constants(config, faults)
        if faults.problems:  # whatever reads these constants would be reported too
            self.check_syntax()
            faults.stop()
        functions, wrong = declare_functions(config.functions)
        for declaration, head, error in wrong:
            faults.language(("functions", declaration), error, key=head)
        self.around = Surroundings(config.seed, scalars, functions, self.dtype, self.bounds)
        tensors = plan_tensors(
            config,
            scalars,
            self.dtype,
            faults.problems,
            self.allowed,
            infer=self.infer_initial,
            warnings=faults.warnings,
            limit=self.most,
        )
        if faults.problems:
            self.check_syntax()
            faults.stop()
        self.check_names()
        sources = plan_sources(config.data, scalars, self.dtype, faults, self.allowed, self.memory)
        self.supply = Supply(sources, config.device)
        faults.stop()
        with deterministic(config.device), torch_quiet(), self.examples(tensors) as examples:
            batches = self.supply.examples(self.supply.choose(), {})
            lowered = self.lower(tensors, examples, scalars, functions, batches)
            optimizers = self.optimizers(tensors, examples, scalars, functions, lowered)
            if lowered is None:
                faults.stop()
                raise AssertionError
            bodies = config.functions.values()
            values = Values(
                faults=faults,
                lowered=lowered,
                tensors=tensors,
                examples=examples,
                scalars=scalars,
                tables=self.tables,
                functions=functions,
                dtype=self.dtype,
                device=config.device,
                optimizers=optimizers,
                declared_optimizers=frozenset(config.optimizers),
                infer=self.inference,
                infer_again=self.infer_again,
                supply=self.supply,
                lower_again=functools.partial(self.lower_for, tensors, examples, scalars, functions),
                measures=any(map(_MEASURES.search, (config.expression, *config.metrics.values(), *bodies))),
            )
            prepare(values, config.steps)
            possible = columns_of(values.columns, tensors, optimizers, state=config.log.state)
            values.columns = kept_columns(config.log, possible, faults)
            planner = ProgramPlanner(values)
            program = planner.plan(config.steps)
            pairs = advise(lowered, program, tensors, faults)
            for besides in values.lowered_besides():
                forget_examples(besides)
        if pairs:
            leave_to_advice()
        check_use(config, values, planner.objectives, planner.stepped)
        snapshot = plan_snapshot(config, possible, program, scalars, faults)
        log = plan_log(config.log, values.columns, scalars, faults)
        health = plan_health(config.health, scalars, faults)
        estimates = self.estimate(tensors, optimizers, program, log)
        faults.stop()
        refusals = Faults(config.document)
        if config.engine == "cudagraph":
            from runner.plan.checks.capturable import check_capturable  # not for the engines that need nothing of it

            check_capturable(program, tensors, refusals)
        elif config.engine == "compile":
            from runner.plan.checks.compilable import check_compilable

            check_compilable(program, optimizers, health, refusals)
        refusals.stop(EngineError)
        check_size(estimates, self.memory, log.budget, faults, runs=self.runs)
        faults.stop()
        forget_examples(lowered)
        return Plan(
            config=config,
            name=config.name or "config",
            seed=config.seed,
            dtype=self.dtype,
            device=config.device,
            scalars=scalars,
            tables=self.tables,
            functions=functions,
            tensors=tensors,
            lowered=lowered,
            objectives=planner.objectives,
            optimizers=optimizers,
            program=program,
            log=log,
            snapshot=snapshot,
            estimates=estimates,
            warnings=tuple(faults.warnings),
            sources={name: source for name, source in sources.items() if name in self.supply.drawn},
            on_nonfinite=config.on_nonfinite,
            health=health,
            memory=self.room(),
            drawings=self.drawings,
        )

    def room(self) -> int | None:
        """What the run may allocate: on the CPU as much as `memory`; a device's own is bounded by the estimate."""
        if self.config.device != "cpu":
            return None
        return self.memory + (COMPILER if self.config.engine == "compile" else 0)

    def check_device(self) -> None:
        device = self.config.device
        if self.config.engine == "cudagraph":
            from runner.plan.checks.capturable import check_device

            check_device(device, self.faults)
        kind, _, index = device.partition(":")
        if int(index or 0) >= _DEVICE_COUNTS[kind]():
            self.faults.add(("device",), f"this machine has no device `{device}`", "write `device: cpu`")
        self.faults.stop()
        configure(device)

    def check_syntax(self) -> None:
        """Faults elsewhere keep the expression from being lowered; what is wrong with its text alone is told."""
        try:
            parse_statements(self.config.expression)
        except LanguageError as error:
            self.faults.language(("expression",), error)

    def check_names(self) -> None:
        """Named values share a namespace with parameters and constants."""
        text, config = self.config.expression, self.config
        try:
            statements = parse_statements(text)
        except LanguageError:
            return
        columns = [
            (f"batch column of `{source}`", ("data", source, "columns", name), name)
            for source, declared in config.data.items()
            for name in declared.columns
        ]
        for node in (node for statement in statements for node in ast.walk(statement)):
            for name in assigned_names(node, text) if isinstance(node, ast.Assign) else ():
                for key, declared in (("parameters", config.parameters), ("constants", config.constants)):
                    if name.id in declared:
                        role = key.removesuffix("s")
                        first = config.document.mark((key, name.id), key=True)
                        hint = f"the {role} is at {first}; rename one of them"
                        error = LanguageError(f"`{name.id}` is a {role} already", hint, place_of(name, text))
                        self.faults.language(("expression",), error)
                for role, path, column in columns:
                    if name.id == column:
                        hint = f"it is declared at {config.document.mark(path, key=True)}; rename one of them"
                        error = LanguageError(f"`{name.id}` is a {role} already", hint, place_of(name, text))
                        self.faults.language(("expression",), error)
                        break

    # shapes

    def inference(self, gradients: bool = False) -> Inference:
        made = Inference(self.bounds, gradients, self.config.device)
        self.inferences.append(made)
        return made

    def infer_initial(
        self, computed: Computed, tensors: Mapping[str, TensorPlan]
    ) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of an initial expression."""
        if sum(tensors[name].bytes for name in computed.reads if name in tensors) > SMALL:
            raise LanguageError(
                "this initial expression reads more than 64 MiB", "declare its shape, or initialise it otherwise"
            )
        values = initial_values(tensors, self.around, computed.reads)
        with bounded_memory(ROOM):
            value = computed_value(computed, "shape", values, self.around)
        return tuple(value.shape), value.dtype

    @contextmanager
    def examples(self, tensors: Mapping[str, TensorPlan]) -> Iterator[dict[str, Tensor]]:
        """Example tensors to infer shapes on: the initial values of a small config, else tensors without memory."""
        declared = sum(tensor.bytes for tensor in tensors.values()) + self.supply.example_bytes()
        is_small = declared <= SMALL
        self.fake = not is_small if self.decided is None else self.decided
        if not self.fake:
            try:
                values = initial_values(tensors, self.around)
            except PlacedFault as fault:
                self.faults.problems.append(fault.problem(self.faults.document))
                self.faults.stop()
            self.drawings = Drawings(tensors, values)
            self.tables = tables({name: value for name, value in values.items() if tensors[name].role == "constant"})
            examples = {name: self.example(value, tensors[name]) for name, value in values.items()}
            with bounded_memory(min(self.memory, ROOM) if is_small else self.memory):
                yield examples
            return
        from torch._subclasses.fake_tensor import FakeTensorMode

        small = [
            name
            for name, tensor in tensors.items()
            if tensor.role == "constant" and len(tensor.shape) == 1 and tensor.bytes < SMALL
        ]
        self.tables = tables(initial_values(tensors, self.around, small)) if small else {}
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield {
                name: self.example(torch.empty(tensor.shape, dtype=tensor.dtype, device=self.config.device), tensor)
                for name, tensor in tensors.items()
            }

    def example(self, value: Tensor, tensor: TensorPlan) -> Tensor:
        return value.to(self.config.device).requires_grad_(tensor.requires_grad)

    # the expression

    def lower(
        self,
        tensors: Mapping[str, TensorPlan],
        examples: Mapping[str, Tensor],
        scalars: Mapping[str, Scalar],
        functions: Mapping[str, Function],
        batches: Mapping[str, Tensor],
    ) -> Lowered | None:
        """The expression for full batches, while training; None after its fault was told."""
        try:
            return self.lower_for(tensors, examples, scalars, functions, batches, True)
        except LanguageError as error:
            self.infer_again(error)
            self.faults.language(("expression",), error)
        return None

    def lower_for(
        self,
        tensors: Mapping[str, TensorPlan],
        examples: Mapping[str, Tensor],
        scalars: Mapping[str, Scalar],
        functions: Mapping[str, Function],
        batches: Mapping[str, Tensor],
        training: bool,
    ) -> Lowered:
        """The expression and the metrics for some batches, with `training` or without.

        Raises:
            LanguageError: it has a fault.
        """
        roles: dict[str, str] = {name: tensor.role for name, tensor in tensors.items()}
        scope = Scope(
            tensors={**examples, **batches},
            roles=roles | dict.fromkeys(batches, "batch column"),
            scalars=scalars,
            tables=self.tables,
            running={"iteration": 1},
            fixed={"training": training},
            functions=functions,
            dtype=self.dtype,
            device=self.config.device,
        )
        text = self.config.expression
        metrics: dict[Hashable, str] = {("metrics", name): metric for name, metric in self.config.metrics.items()}
        gradients = any(uses_grad(part, scope) for part in (text, *metrics.values()))
        return lower_statements(text, scope, self.inference(gradients), metrics)

    def infer_again(self, error: LanguageError) -> None:
        """Start over where the fault is of inference: no room for real tensors, or nothing that torch can fake."""
        if self.decided is not None:
            return
        if isinstance(error, AllocationError) and not self.fake and (error.bytes or 0) <= self.most:
            raise _Again(fake=True)
        if self.fake and isinstance(error.__cause__, _unfakeable()):
            raise _Again(fake=False)

    def optimizers(
        self,
        tensors: Mapping[str, TensorPlan],
        examples: Mapping[str, Tensor],
        scalars: Mapping[str, Scalar],
        functions: Mapping[str, Function],
        lowered: Lowered | None,
    ) -> dict[str, OptimizerPlan]:
        parameters = {name: tensor for name, tensor in tensors.items() if tensor.role == "parameter"}
        constants = {name: tensor for name, tensor in tensors.items() if tensor.role == "constant"}
        elsewhere = {
            **dict.fromkeys(lowered.values if lowered else (), "a named value"),
            **dict.fromkeys(parameters, "a parameter"),
            **dict.fromkeys((name for name in constants if name not in self.tables), "a tensor"),
        }
        scope = Scope(
            tensors=examples,
            scalars=scalars,
            tables=self.tables,
            functions=functions,
            dtype=self.dtype,
            device=self.config.device,
            elsewhere=elsewhere,
        )
        return plan_optimizers(
            self.config,
            parameters,
            {**self.tables, **scalars},
            self.faults.problems,
            self.faults.warnings,
            constants=constants,
            rules=RuleSurroundings(scope, self.inference, self.infer_again),
            unread=[name for name, tensor in constants.items() if not is_table(tensor.shape, tensor.dtype)],
        )

    def estimate(
        self,
        tensors: Mapping[str, TensorPlan],
        optimizers: Mapping[str, OptimizerPlan],
        program: tuple[Instruction, ...],
        log: LogPlan,
    ) -> Estimates:
        return Estimates(
            tensors=sum(tensor.bytes for tensor in tensors.values()),
            gradients=sum(tensor.bytes for tensor in tensors.values() if tensor.requires_grad),
            state=state_bytes(optimizers.values()),
            values=max((inference.bytes for inference in self.inferences), default=0),
            row=row_bytes(log),
            rows=count_rows(program, log.every),
            data=data_bytes(source for name, source in self.supply.sources.items() if name in self.supply.drawn),
        )


__all__ = ["ConfigError", "PlanLimits", "compile"]
