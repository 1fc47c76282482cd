"""The fully resolved form of a config: everything that can be decided before step 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from runner.config import Config
from runner.errors import Problem
from runner.language.dtypes import dtype_name
from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import readable_bytes
from runner.language.lowering.scope import Environment, Function
from runner.language.text.arithmetic import Scalar
from runner.optim import OptimizerPlan
from runner.plan.data.sources import BatchColumn, SourcePlan
from runner.plan.data.tables.text_cache import ReadTables
from runner.plan.estimates import Estimates
from runner.plan.program.instructions import Action, Instruction, LossScaling
from runner.plan.rows.columns import Column
from runner.plan.rows.health import HealthPlan
from runner.plan.rows.log import LogPlan
from runner.plan.snapshots import SnapshotPlan
from runner.plan.tensors.from_run import FromRunPlan
from runner.plan.tensors.from_run_state import OptimizerStart
from runner.plan.tensors.initial import Loaded
from runner.plan.tensors.initial_values import Drawings
from runner.plan.tensors.tensors import TensorPlan
from runner.text import Shown, Table


@dataclass(frozen=True, slots=True)
class Plan(Shown):
    """The input of an engine, which makes no decisions of its own."""

    config: Config
    name: str
    seed: int
    dtype: torch.dtype
    device: str
    scalars: Mapping[str, Scalar]
    tables: Mapping[str, tuple[Scalar, ...]]
    functions: Mapping[str, Function]
    tensors: Mapping[str, TensorPlan]
    lowered: Lowered = field(repr=False)
    objectives: Mapping[str, tuple[str, ...]]  # objective → the trainable parameters it depends on
    optimizers: Mapping[str, OptimizerPlan]
    program: tuple[Instruction, ...] = field(repr=False)
    log: LogPlan
    snapshot: SnapshotPlan
    estimates: Estimates
    warnings: tuple[Problem, ...]
    sources: Mapping[str, SourcePlan] = field(default_factory=dict)  # the sources that some step uses
    declared: Mapping[str, SourcePlan] = field(default_factory=dict)  # all sources of the config
    on_nonfinite: str = "stop"  # or warn, ignore
    health: HealthPlan = field(default_factory=HealthPlan)
    loss_scaling: LossScaling | None = None
    memory: int | None = None  # bytes that the run may allocate, where the system can limit them
    fitted: Mapping[str, Tensor] = field(default_factory=dict)  # the values of tensors that are computed from data
    fitted_from: tuple[BatchColumn, ...] = ()  # the columns of data sources that initial expressions name
    partial: frozenset[str] = frozenset()  # metrics that may be undefined: rows have null for NaN
    read: ReadTables = field(default_factory=ReadTables, repr=False, compare=False)  # text tables, until the run begins
    drawings: Drawings = field(default_factory=lambda: Drawings({}, {}), repr=False, compare=False)
    start: FromRunPlan | None = None  # the weights that parameters start from
    optimizer_starts: Mapping[str, OptimizerStart] = field(default_factory=dict)  # those that do not start anew
    engine_reason: str | None = None  # why `engine: auto` is this engine; None: the config names it

    @property
    def environment(self) -> Environment:
        """Everything except tensors that expressions can read."""
        return Environment(self.scalars, self.tables, self.functions, self.dtype, self.device)

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.log.columns

    @property
    def random(self) -> bool:
        """Whether any step draws random numbers."""
        rules = (optimizer.rule for optimizer in self.optimizers.values())
        drawing = any(rule is not None and rule.random for rule in rules)
        return drawing or any(isinstance(item, Action) and item.draws for item in self.program)

    @property
    def files(self) -> tuple[Path, ...]:
        """The data files that the run reads, with links resolved and without duplicates."""
        arrays = [tensor.init.array for tensor in self.tensors.values() if isinstance(tensor.init, Loaded)]
        arrays += [column.array for source in self.sources.values() for column in source.columns]
        arrays += [column.array for column in self.fitted_from]
        return tuple(dict.fromkeys(path for array in arrays for path in array.paths))

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name, tensor in self.tensors.items() if tensor.role == "parameter")

    @property
    def trainable(self) -> tuple[str, ...]:
        return tuple(filter(self.trains, self.tensors))

    def trains(self, name: str) -> bool:
        """Whether a name is that of a trainable parameter."""
        tensor = self.tensors.get(name)
        return tensor is not None and tensor.role == "parameter" and tensor.requires_grad

    def _tables(self) -> Iterator[Table]:
        size = self.estimates
        yield Table(
            [
                ("name", self.name),
                ("seed", self.seed),
                ("dtype", dtype_name(self.dtype)),
                ("device", self.device),
                ("engine", self.config.engine),
                *(() if self.engine_reason is None else (("engine: auto", self.engine_reason),)),
                ("rows", f"at most {size.rows:,}"),
                ("memory", readable_bytes(size.memory)),
                ("log", readable_bytes(size.log)),
                *(("warning", problem.message) for problem in self.warnings),
            ]
        )
        yield Table(
            [
                (name, tensor.role, list(tensor.shape), dtype_name(tensor.dtype), tensor.requires_grad)
                for name, tensor in self.tensors.items()
            ],
            ("tensor", "role", "shape", "dtype", "requires_grad"),
        )
        yield Table(
            [(name, ", ".join(parameters)) for name, parameters in self.objectives.items()],
            ("objective", "depends on"),
        )
        yield Table([(item.path,) for item in self.program if isinstance(item, Action)], ("step",))
