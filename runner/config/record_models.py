"""The models of what a run starts from, measures, records, compares and reports."""

from typing import ClassVar

from pydantic import Field

from runner.config.fields import Expression, Flag, Names, Number, RunName, Text
from runner.config.frozen import Frozen, default, optional

BUDGET = 1024**3
"""The default limit on the size of a log, in bytes."""


class MetricDeclaration(Frozen):
    """A metric that says how its values of several batches are combined."""

    noun: ClassVar[str] = "a metric"
    sum: Expression | None = optional("Expression that is summed over all samples.")
    over: Expression | None = optional("Expression whose sum divides that of `sum`, both over all samples.")
    mean: Expression | None = optional("Expression whose mean over all samples is taken.")
    max: Expression | None = optional("Expression whose largest value over all samples is taken.")
    min: Expression | None = optional("Expression whose smallest value over all samples is taken.")
    whole: Expression | None = optional(
        "Expression that `evaluate` computes once, from values with an entry for each sample of the whole source."
    )

    @property
    def parts(self) -> dict[str, str]:
        """The expressions that the config writes, by key."""
        return {key: text for key in type(self).model_fields if (text := getattr(self, key)) is not None}


class ObjectiveDeclaration(Frozen):
    """An objective that is one sum over all samples, divided by another."""

    noun: ClassVar[str] = "an objective"
    sum: Expression = Field(description="Expression that is summed over all samples, and differentiated.")
    over: Expression = Field(description="Expression whose sum divides that of `sum`. It depends on no parameter.")

    @property
    def parts(self) -> dict[str, str]:
        """The expressions that the config writes, by key."""
        return {"sum": self.sum, "over": self.over}


class Log(Frozen):
    """What each row records."""

    noun: ClassVar[str] = "`log`"
    every: Number = default(1, "Iterations of the innermost loop between rows; the last has one too.")
    tensors: Text = default("full", "How to store larger tensors: `full` elements, `stats`, a `digest`, or `none`.")
    include: Names = optional("Names or globs of the columns to store. The default is all columns.")
    state: Flag = default(False, "Store optimizer state too.")
    weights: Flag = default(True, "Write the weights at the end of the run to `weights.safetensors`.")
    budget: Number = default(BUDGET, "Largest size of the log, in bytes or as `512MiB`. A larger log is an error.")


class FromRun(Frozen):
    """The run, or the weights file, that the parameters start from."""

    noun: ClassVar[str] = "`from_run`"
    run: Text = Field(
        description="Run directory, `…/latest` for the newest run there, or a .safetensors file. "
        "The path is relative to this config."
    )
    at: RunName = default("last", "Weights to take: `last`, `best`, or the tag of a checkpoint.")
    optimizer: Flag = default(False, "Take the state of the optimizers too, from a checkpoint of the run.")
    sha256: Text | None = optional(
        "Digest of the weights; with it, other weights are an error. The config of a recorded run has it."
    )


class ToleranceDeclaration(Frozen):
    """How far the tensors that a glob matches may differ from the snapshot."""

    noun: ClassVar[str] = "a tolerance"
    tolerance: Text | None = optional("`bitwise`, or `dtype`: five times what torch.testing allows.")
    rtol: Number | None = optional("Relative tolerance. It is 0 if only `atol` is given.")
    atol: Number | None = optional("Absolute tolerance. It is 0 if only `rtol` is given.")
    ulp: Number | None = optional("Largest difference in units in the last place.")


class UncertaintyDeclaration(Frozen):
    """How uncertainty is measured, and by how many times the uncertainty a run in another environment may differ."""

    noun: ClassVar[str] = "`uncertainty`"
    runs: Number = default(8, "Number of runs with perturbed rounding, 3 or more.")
    factor: Number = default(5, "How many times its uncertainty a tensor may differ in another environment.")


class SnapshotDeclaration(Frozen):
    """What a snapshot stores, and how `steprun check` compares it."""

    noun: ClassVar[str] = "`snapshot`"
    every: Number | None = optional("Iterations of the innermost loop between rows. The default is that of `log`.")
    include: Names = optional("Names or globs of the columns to store. The default is that of `log`.")
    tensors: Text = default("full", "How to store tensors of more than 64 elements: `full`, `stats` or `digest`.")
    exact: Flag = default(True, "Compare bit for bit in the environment of the snapshot, whatever the tolerance.")
    tolerance: Text | None = optional(
        "Tolerance elsewhere instead of the uncertainty: `bitwise`, or `dtype`, five times torch.testing's."
    )
    rtol: Number | None = optional("Relative tolerance. It is 0 if only `atol` is given.")
    atol: Number | None = optional("Absolute tolerance; for gradients, in units of their root mean square.")
    ulp: Number | None = optional("Largest difference in units in the last place.")
    restart: tuple[Number, ...] = default(
        (), "Rows whose state is stored. `steprun check` computes the next three steps from each."
    )
    uncertainty: UncertaintyDeclaration | None = Field(
        default_factory=UncertaintyDeclaration,
        description="How to measure the uncertainty of each number, the tolerance in other environments. "
        "`false` measures none and compares with `tolerance: dtype`.",
    )
    tolerances: dict[str, ToleranceDeclaration] = Field(
        default_factory=dict,
        description="Tolerance of the tensors that a name or glob matches; the first match counts.",
    )


class Health(Frozen):
    """Thresholds of warnings about gradients and updates. A threshold that the config does not set is off."""

    noun: ClassVar[str] = "`health`"
    vanishing_gradient: Number | None = optional(
        "Warn if the norm of a parameter's gradient is below this, such as 1e-7. Off by default."
    )
    exploding_gradient: Number | None = optional(
        "Warn if the norm of a parameter's gradient is above this, such as 1e3. Off by default."
    )
    unchanged: Number | None = optional(
        "Warn of a parameter that so many updates in a row did not change. Off by default."
    )
    update_ratio: tuple[Number, ...] | None = optional(
        "Warn if an update, relative to its parameter's norm, is outside [least, most]. Off by default."
    )
