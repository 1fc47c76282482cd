"""What a config holds once its short forms are written out: frozen values that know nothing of torch.

A field's default and description stand here alone; the schema, the documentation and the error texts derive from them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from runner.config.fields import (
    Assigned,
    Columns,
    Device,
    Dtype,
    Expression,
    Flag,
    FloatingDtype,
    Gradient,
    Names,
    Number,
    RunName,
    Seed,
    Text,
    TextOrNull,
)

if TYPE_CHECKING:
    from runner.config.document import Document

BUDGET = 1024**3
"""Bytes that a log may take unless said otherwise."""

ConfigPath = tuple[str | int, ...]


class Frozen(BaseModel):
    """A part of a config; `noun` is what error texts call it."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())
    noun: ClassVar[str] = "this"


class InitCall(Frozen):
    """An initialiser of `torch.nn.init` with its arguments."""

    name: str = Field(description="initialiser of torch.nn.init, without its trailing underscore")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="its arguments by name; text is an expression, or a word such as `fan_in`"
    )


class InitExpression(Frozen):
    """Initial values from an expression, which may read other tensors' initial values."""

    noun: ClassVar[str] = "an `init` expression"
    expression: Expression = Field(
        description="expression for the initial values; it may read other tensors' initial values"
    )


if TYPE_CHECKING:
    Init = int | float | bool | str | tuple[Any, ...] | InitCall | InitExpression
else:
    Init = Any  # checked where the short forms are written out


class TensorDeclaration(Frozen):
    """A parameter or a tensor constant."""

    noun: ClassVar[str] = "a tensor"
    shape: tuple[Number, ...] | None = Field(
        default=None, description="sizes, each a number or an expression; that of the list or file, else []"
    )
    init: Init | None = Field(
        default=None,
        description="initial values: a number, a nested list, an initialiser, or {expression: …}; zeros for constants",
    )
    dtype: Dtype | None = Field(
        default=None, description="dtype of this tensor; that of the config unless said otherwise"
    )
    requires_grad: Flag | None = Field(
        default=None, description="false freezes a parameter; true unless said otherwise, and never for constants"
    )
    file: Text | None = Field(
        default=None,
        description="data file: .npy, .npz#key, .csv, .tsv, .parquet, .safetensors#key; relative to this config",
    )
    columns: Columns = Field(default=None, description="columns of a .csv, .tsv or .parquet file")
    stacked: Number = Field(default=0, description="leading dimensions whose slices are initialised one by one")


class DataDeclaration(Frozen):
    """Samples in files, drawn batch by batch."""

    noun: ClassVar[str] = "a data source"
    file: Text | None = Field(
        default=None,
        description="data file that the columns are in: .npz, .csv, .tsv, .parquet, .safetensors; relative to this "
        "config. Without it each column names a file of its own",
    )
    columns: dict[str, Any] = Field(
        description="name in the expression → array or column of the file, several columns to stack, or a file such "
        "as images.npy; the first dimension counts samples"
    )
    batch_size: Number | None = Field(
        default=None, description="samples in a batch; the whole source unless said otherwise"
    )
    shuffle: Flag = Field(default=False, description="draw the samples of each pass in an order of its own")
    drop_last: Flag = Field(default=False, description="leave out a last batch that is shorter than the others")
    dtype: dict[str, Dtype] = Field(default_factory=dict, description="name in the expression → dtype of its batches")


class GroupDeclaration(Frozen):
    """Parameters of an optimizer with hyperparameters of their own."""

    noun: ClassVar[str] = "a parameter group"
    parameters: tuple[str, ...] = Field(description="names or globs of the parameters in this group")
    arguments: dict[str, Any] = Field(default_factory=dict, description="hyperparameters that differ in this group")


class RuleDeclaration(Frozen):
    """An optimizer written as equations, applied to each parameter that has a gradient."""

    noun: ClassVar[str] = "a rule"
    state: dict[str, Assigned] = Field(
        default_factory=dict, description="state name → what it starts from: a number, or an expression over `param`"
    )
    update: Expression = Field(
        description="statements over `param`, `grad`, `t`, the state and scalar constants; they assign `param`"
    )


class OptimizerDeclaration(Frozen):
    """An optimizer of `torch.optim` or a rule, its arguments and what it holds."""

    noun: ClassVar[str] = "an optimizer"
    kind: str = Field(description="class of torch.optim in lower case, or `rule`")
    arguments: dict[str, Any] = Field(default_factory=dict, description="arguments of the class by name")
    parameters: tuple[str, ...] | None = Field(
        default=None,
        description="names or globs of the parameters it holds; all trainable ones for the single optimizer",
    )
    groups: tuple[GroupDeclaration, ...] = Field(
        default=(), description="parameter groups with hyperparameters of their own"
    )
    state: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="parameter → state name → tensor that the state starts from"
    )
    rule: RuleDeclaration | None = Field(default=None, description="the equations of a rule")
    path: ConfigPath = Field(default=(), description="where the config declares it")


class Forward(Frozen):
    """Compute an objective, no gradient."""

    noun: ClassVar[str] = "`forward`"
    objective: Text | None = Field(
        default=None, description="named value to compute; the last one of `expression` unless said otherwise"
    )
    data: Text | None = Field(default=None, description="data source whose current batch is used")


class Backward(Frozen):
    """Compute an objective, then its gradients, which accumulate."""

    noun: ClassVar[str] = "`backward`"
    objective: Text | None = Field(
        default=None, description="named value to differentiate; the last one of `expression` unless said otherwise"
    )
    gradient: Gradient | None = Field(default=None, description="gradient of an objective with more than one element")
    parameters: Names = Field(default=None, description="names or globs whose gradients are computed; torch's `inputs`")
    data: Text | None = Field(default=None, description="data source whose current batch is used")


class OptimizerStep(Frozen):
    """One `optimizer.step()`."""

    noun: ClassVar[str] = "`step`"
    optimizers: Names = Field(default=None, alias="optimizer", description="optimizer names; all unless said otherwise")


class ZeroGrad(Frozen):
    """Gradients become none, or zeros."""

    noun: ClassVar[str] = "`zero_grad`"
    optimizers: Names = Field(default=None, alias="optimizer", description="optimizer names; all unless said otherwise")
    set_to_none: Flag = Field(default=True, description="false fills gradients with zeros instead of removing them")


class Train(Frozen):
    """One training step: zero_grad, backward, clip, step."""

    noun: ClassVar[str] = "`train`"
    objective: Text | None = Field(
        default=None, description="named value to differentiate; the last one of `expression` unless said otherwise"
    )
    optimizers: Names = Field(
        default=None, alias="optimizer", description="optimizer names; all, from one backward, unless said otherwise"
    )
    accumulate: Number = Field(default=1, description="micro-batches whose gradients are averaged into one step")
    clip_grad_norm: Number | None = Field(default=None, description="largest norm of all gradients together")
    clip_grad_value: Number | None = Field(default=None, description="largest absolute value of a gradient element")
    data: TextOrNull = Field(
        default=None, description="data source to draw the next batch from; null keeps the current batch"
    )

    @property
    def keeps_batch(self) -> bool:
        """Whether it says `data: null`, which is not the same as saying nothing."""
        return self.data is None and "data" in self.model_fields_set


class ClipGradNorm(Frozen):
    """Scale gradients so that their norm is at most `max_norm`."""

    noun: ClassVar[str] = "`clip_grad_norm`"
    max_norm: Number = Field(description="largest norm of all gradients together")
    norm_type: Number = Field(default=2.0, description="order of the norm; .inf for the largest element")
    parameters: Names = Field(
        default=None, description="names or globs of the parameters that are clipped; all unless said otherwise"
    )


class ClipGradValue(Frozen):
    """Clamp each element of each gradient."""

    noun: ClassVar[str] = "`clip_grad_value`"
    clip_value: Number = Field(description="largest absolute value of a gradient element")


class Assign(Frozen):
    """New values for parameters or gradients, all computed before any is written."""

    noun: ClassVar[str] = "`assign`"
    values: dict[str, Assigned] = Field(description="parameter, or its `.grad` → expression")


class Expectation(Frozen):
    """What an expression must be, and how nearly."""

    noun: ClassVar[str] = "an expectation"
    value: Any = Field(description="number, nested list, true, false, expression, or null for no gradient")
    rtol: Number | None = Field(
        default=None, description="relative tolerance; torch.testing's for the dtype, or 0 where atol is given"
    )
    atol: Number | None = Field(
        default=None, description="absolute tolerance; torch.testing's for the dtype, or 0 where rtol is given"
    )


class Expect(Frozen):
    """Stop the run unless each expression holds its value."""

    noun: ClassVar[str] = "`expect`"
    expectations: dict[str, Expectation] = Field(description="expression → what it must be")


class Next(Frozen):
    """Draw the next batch of data sources."""

    noun: ClassVar[str] = "`next`"
    data: tuple[str, ...] = Field(description="data sources, each of which draws its next batch")


class Evaluate(Frozen):
    """Compute the objective and metrics over a whole data source, no gradient."""

    noun: ClassVar[str] = "`evaluate`"
    data: Text = Field(description="data source, every batch of which is used once, in the order of its file")
    metrics: Names = Field(default=None, description="metrics to compute; all unless said otherwise")


class ForEach(Frozen):
    """A loop over the batches of a data source."""

    noun: ClassVar[str] = "`for_each`"
    data: Text | None = Field(default=None, description="data source; the first declared unless said otherwise")
    epochs: Number = Field(default=1, description="passes over the source")
    steps: tuple["Step", ...] = Field(description="steps for each batch")


class Checkpoint(Frozen):
    """Save the full state of the run, so that it can be resumed from here."""

    noun: ClassVar[str] = "`checkpoint`"
    tag: RunName = Field(None, description="name; a later checkpoint of the same name replaces this one")


class Repeat(Frozen):
    """A loop over steps."""

    noun: ClassVar[str] = "`repeat`"
    times: Number = Field(description="how often the steps run")
    steps: tuple["Step", ...] = Field(description="steps of one iteration")


class Stop(Frozen):
    """Leave the innermost loop."""

    noun: ClassVar[str] = "`stop`"


class Step(Frozen):
    """One step of the program."""

    noun: ClassVar[str] = "a step"
    kind: str = Field(description="what the step does")
    argument: Any = Field(description="its argument, a model for each kind")
    every: Number | None = Field(default=None, description="runs on iterations n, 2n, … of the innermost loop")
    when: Expression | None = Field(default=None, description="condition read just before the step")
    path: ConfigPath = Field(default=(), description="where the config says it")


class Log(Frozen):
    """What each row records."""

    noun: ClassVar[str] = "`log`"
    every: Number = Field(
        default=1, description="iterations of the innermost loop between rows; the last one is always kept"
    )
    tensors: Text = Field(
        default="full",
        description="full (every element), stats or digest of what has more than one element, or none of it",
    )
    include: Names = Field(
        default=None, description="names or globs of the columns that are kept; all unless said otherwise"
    )
    state: Flag = Field(default=False, description="record optimizer state too")
    budget: Number = Field(
        default=BUDGET, description="bytes that the log may take; a larger one is refused before the run"
    )


class ToleranceDeclaration(Frozen):
    """How far the tensors that a glob matches may be from a snapshot."""

    noun: ClassVar[str] = "a tolerance"
    tolerance: Text | None = Field(
        default=None, description="bitwise, or dtype: five times what torch.testing allows for the dtype"
    )
    rtol: Number | None = Field(default=None, description="relative tolerance; 0 where only atol is given")
    atol: Number | None = Field(default=None, description="absolute tolerance; 0 where only rtol is given")
    ulp: Number | None = Field(default=None, description="units in the last place")


class UncertaintyDeclaration(Frozen):
    """How the uncertainty of a snapshot is measured, and how many times it a run elsewhere may be apart."""

    noun: ClassVar[str] = "`uncertainty`"
    runs: Number = Field(default=8, description="runs with perturbed rounding, 3 or more; 8 unless said otherwise")
    factor: Number = Field(
        default=5, description="times its uncertainty that a tensor may be apart in another environment"
    )


class SnapshotDeclaration(Frozen):
    """What a snapshot keeps, and how nearly `steprun check` holds it."""

    noun: ClassVar[str] = "`snapshot`"
    every: Number | None = Field(
        default=None, description="iterations of the innermost loop between rows; that of `log` unless said otherwise"
    )
    include: Names = Field(
        default=None, description="names or globs of the columns that are kept; those of `log` unless said otherwise"
    )
    tensors: Text = Field(
        default="full",
        description="how tensors of more than 64 elements are kept: full, stats or digest",
    )
    exact: Flag = Field(
        default=True, description="compare bit for bit in the environment of the snapshot, whatever the tolerance"
    )
    tolerance: Text | None = Field(
        default=None,
        description="in other environments, instead of the uncertainty: dtype, five times what torch.testing allows, "
        "or bitwise",
    )
    rtol: Number | None = Field(default=None, description="relative tolerance; 0 where only atol is given")
    atol: Number | None = Field(
        default=None,
        description="absolute tolerance, in units of their root mean square for gradients; 0 where only rtol is given",
    )
    ulp: Number | None = Field(default=None, description="units in the last place")
    restart: tuple[Number, ...] = Field(
        default=(),
        description="numbers of rows whose state is stored, from which `steprun check` starts the next three steps",
    )
    uncertainty: UncertaintyDeclaration | None = Field(
        default_factory=UncertaintyDeclaration,
        description="how the uncertainty of each number is measured, which decides in other environments; false "
        "measures none, and leaves `tolerance: dtype`",
    )
    tolerances: dict[str, ToleranceDeclaration] = Field(
        default_factory=dict, description="name or glob → tolerance of the tensors it matches; the first that does"
    )


class Health(Frozen):
    """Rules of health, each a warning with its threshold; one that is not written is off."""

    noun: ClassVar[str] = "`health`"
    vanishing_gradient: Number | None = Field(
        default=None, description="warn of a parameter whose gradient has a norm below this, such as 1e-7"
    )
    exploding_gradient: Number | None = Field(
        default=None, description="warn of a parameter whose gradient has a norm above this, such as 1e3"
    )
    unchanged: Number | None = Field(
        default=None, description="warn of a parameter that so many updates in a row did not change, such as 10"
    )
    update_ratio: tuple[Number, ...] | None = Field(
        default=None,
        description="warn of a parameter whose update, relative to its own norm, is outside of [least, most], "
        "such as [1e-6, 1e-1]",
    )


class Config(Frozen):
    """A whole config, `extends` and overrides applied, short forms written out."""

    noun: ClassVar[str] = "a config"
    name: RunName = Field(
        default=None,
        description="run and snapshot name; letters, digits, - and _; the file's stem unless said otherwise",
    )
    description: Text | None = Field(default=None, description="one line for people")
    seed: Seed = Field(default=0, description="every random stream derives from it")
    dtype: FloatingDtype = Field(
        default="float32", description="of parameters, of a number as init, of floating constants and columns"
    )
    device: Device = Field(default="cpu", description="cpu, cuda, cuda:1 or mps")
    engine: Text = Field(default="eager", description="what executes the steps")
    parameters: dict[str, TensorDeclaration] = Field(description="name → tensor that is trained")
    constants: dict[str, Any] = Field(default_factory=dict, description="name → scalar, or tensor without a gradient")
    data: dict[str, DataDeclaration] = Field(default_factory=dict, description="name → batched data source")
    functions: dict[str, Expression] = Field(
        default_factory=dict, description="name(arguments) → body in the expression language"
    )
    expression: Expression = Field(description="statements; the last one's value is the objective")
    metrics: dict[str, Expression] = Field(
        default_factory=dict, description="name → expression, computed with the objective, no gradient"
    )
    optimizers: dict[str, OptimizerDeclaration] = Field(default_factory=dict, description="name → optimizer")
    single_optimizer: bool = Field(default=False, description="whether the config writes one `optimizer`")
    steps: tuple[Step, ...] = Field(description="the program")
    log: Log = Field(description="what each row records")
    snapshot: SnapshotDeclaration = Field(description="what a snapshot keeps, and how nearly it is held")
    on_nonfinite: Text = Field(
        default="stop",
        description="what a value, gradient or weight that is nan or infinite does: stop (the run ends as failed), "
        "warn (once), or ignore (nothing is looked at)",
    )
    health: Health = Field(description="rules of health, told as warnings; all off unless written")
    _document: "Document | None" = PrivateAttr(default=None)

    @property
    def document(self) -> "Document":
        """Where each value was written, for errors and for the resolved text."""
        assert self._document is not None
        return self._document

    def __eq__(self, other: object) -> bool:
        """Whether two configs say the same, wherever it was written."""
        return isinstance(other, Config) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


STEP_MODELS: Mapping[str, type[Frozen]] = {
    "forward": Forward,
    "backward": Backward,
    "step": OptimizerStep,
    "zero_grad": ZeroGrad,
    "train": Train,
    "clip_grad_norm": ClipGradNorm,
    "clip_grad_value": ClipGradValue,
    "assign": Assign,
    "expect": Expect,
    "next": Next,
    "evaluate": Evaluate,
    "checkpoint": Checkpoint,
    "repeat": Repeat,
    "for_each": ForEach,
    "stop": Stop,
}
"""Step kinds and the arguments they take."""
