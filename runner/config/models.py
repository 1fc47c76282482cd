"""The models of a config after its short forms are expanded: frozen values, independent of torch.

Each default and description is written only here; the schema, the documentation and messages take them from here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from runner.config.data_models import DataDeclaration, Dialect
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
    Rate,
    Result,
    RunName,
    Seed,
    Statements,
    Text,
    TextOrNull,
)
from runner.config.frozen import Documented, Frozen, default, optional
from runner.config.record_models import (
    FromRun,
    Health,
    Log,
    MetricDeclaration,
    ObjectiveDeclaration,
    SnapshotDeclaration,
)
from runner.config.sweep_models import SweepDeclaration

ConfigPath = tuple[str | int, ...]


class InitCall(Frozen):
    """An initialiser of `torch.nn.init` with its arguments."""

    name: str = Field(description="Initialiser of torch.nn.init, without its trailing underscore.")
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Its arguments by name. Text is an expression, or a word such as `fan_in`.",
    )


class InitExpression(Frozen):
    """Initial values from an expression, which may read other tensors' initial values."""

    noun: ClassVar[str] = "an `init` expression"
    expression: Expression = Field(
        description="Expression for the values. It may read initial values of other tensors."
    )


if TYPE_CHECKING:
    Init = int | float | bool | str | tuple[Any, ...] | InitCall | InitExpression
    Metric = str | MetricDeclaration
else:
    Init = Metric = Any  # `sections` checks them


class TensorDeclaration(Dialect):
    """A parameter or a tensor constant."""

    noun: ClassVar[str] = "a tensor"
    shape: tuple[Number, ...] | None = optional(
        "Sizes, each a number or an expression. The default is the shape of the list or file, else `[]`."
    )
    init: Init | None = optional(
        "Initial values: a number, a list, an initialiser or `{expression: …}`. A constant defaults to zeros."
    )
    dtype: Dtype | None = optional(
        "Dtype of this tensor. The default is the config's; constants of integers or booleans keep theirs."
    )
    requires_grad: Flag | None = optional(
        "`false` freezes a parameter. The default is `true` for parameters; constants have no gradient."
    )
    file: Text | None = optional(
        "File with the values: .npy, .npz#key, .csv, .tsv, .parquet or .safetensors#key, relative to this config."
    )
    columns: Columns = optional(
        "Columns of a .csv, .tsv or .parquet file. One name gives a 1-d tensor, a list a column for each name."
    )
    stacked: Number = default(0, "Number of leading dimensions whose slices are initialised and measured one by one.")


class GroupDeclaration(Frozen):
    """Parameters of an optimizer with hyperparameters of their own."""

    noun: ClassVar[str] = "a parameter group"
    parameters: tuple[str, ...] = Field(description="Names or globs of the parameters in this group.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Hyperparameters that differ in this group.")


class RuleDeclaration(Frozen):
    """An optimizer written as equations, applied to each parameter that has a gradient."""

    noun: ClassVar[str] = "a rule"
    state: dict[str, Assigned] = Field(
        default_factory=dict,
        description="Initial value of each state that the rule keeps: a number, or an expression over `param`.",
    )
    update: Statements = Field(
        description="Statements that assign `param`. They read it, `grad`, the step count `t`, state and constants."
    )


class OptimizerDeclaration(Frozen):
    """An optimizer of `torch.optim` or a rule, with its arguments, parameters, groups and initial state."""

    noun: ClassVar[str] = "an optimizer"
    kind: str = Field(description="Class of torch.optim in lower case, or `rule`.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Arguments of the class by name.")
    parameters: tuple[str, ...] | None = optional(
        "Names or globs of its parameters. A single `optimizer` holds all trainable ones by default."
    )
    groups: tuple[GroupDeclaration, ...] = default((), "Parameter groups with hyperparameters of their own.")
    state: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Initial state by parameter and name, such as `exp_avg`: a number, or an expression.",
    )
    rule: RuleDeclaration | None = optional("The equations of a rule.")
    path: ConfigPath = default((), "Place of the declaration in the config.")


class Forward(Frozen):
    """Compute an objective without gradients."""

    noun: ClassVar[str] = "`forward`"
    objective: Text | None = optional("Named value to compute. The default is the last value of `expression`.")
    data: Text | None = optional(
        "Data source whose current batch is used. The default is that of the loop, else the first that fits."
    )


class Backward(Frozen):
    """Compute an objective, and add its gradients to those that are there."""

    noun: ClassVar[str] = "`backward`"
    objective: Text | None = optional("Named value to differentiate. The default is the last value of `expression`.")
    gradient: Gradient | None = optional("Gradient of the objective, if it has more than one element.")
    parameters: Names = optional(
        "Names or globs of the parameters to differentiate with respect to. The default is all trainable ones."
    )
    data: Text | None = optional(
        "Data source whose current batch is used. The default is that of the loop, else the first that fits."
    )


class OptimizerStep(Frozen):
    """Run one `optimizer.step()` for each optimizer."""

    noun: ClassVar[str] = "`step`"
    optimizers: Names = Field(
        default=None,
        alias="optimizer",
        description="Names of the optimizers that take a step. The default is all optimizers.",
    )


class ZeroGrad(Frozen):
    """Remove the gradients, or fill them with zeros."""

    noun: ClassVar[str] = "`zero_grad`"
    optimizers: Names = Field(
        default=None,
        alias="optimizer",
        description="Names of the optimizers whose gradients are cleared. The default is all optimizers.",
    )
    set_to_none: Flag = default(True, "`true` removes the gradients; `false` fills them with zeros.")


class Train(Frozen):
    """Run one training step: `zero_grad`, `backward`, clipping and `step`."""

    noun: ClassVar[str] = "`train`"
    objective: Text | None = optional("Named value to differentiate. The default is the last value of `expression`.")
    optimizers: Names = Field(
        default=None,
        alias="optimizer",
        description="Names of the optimizers that take a step. The default is all, from one backward pass.",
    )
    accumulate: Number = default(1, "Number of micro-batches whose gradients are averaged into one step.")
    clip_grad_norm: Number | None = optional("Largest norm of all gradients together. Off by default.")
    clip_grad_value: Number | None = optional("Largest absolute value of a gradient element. Off by default.")
    data: TextOrNull = optional(
        "Data source of the next batch; `null` keeps the current one. The default is that of the loop."
    )

    @property
    def keeps_batch(self) -> bool:
        """Whether the step sets `data: null`, which keeps the batch. Without the key `data`, its default applies."""
        return self.data is None and "data" in self.model_fields_set


class ClipGradNorm(Frozen):
    """Scale gradients so that their norm is at most `max_norm`."""

    noun: ClassVar[str] = "`clip_grad_norm`"
    max_norm: Number = Field(description="Largest norm of all gradients together.")
    norm_type: Number = default(2.0, "Order of the norm; `inf` takes the largest element.")
    parameters: Names = optional("Names or globs of the clipped parameters. The default is all.")


class ClipGradValue(Frozen):
    """Clamp each element of each gradient."""

    noun: ClassVar[str] = "`clip_grad_value`"
    clip_value: Number = Field(description="Largest absolute value of a gradient element.")


class Assign(Frozen):
    """Write new values to parameters or gradients. All values are computed before any is written."""

    noun: ClassVar[str] = "`assign`"
    values: dict[str, Assigned] = Field(description="Expression for each parameter, or for its gradient (`x.grad`).")


class Expectation(Frozen):
    """The value that an expression must have, and its tolerance."""

    noun: ClassVar[str] = "an expectation"
    value: Any = Field(description="Number, nested list, `true`, `false`, expression, or `null` for no gradient.")
    rtol: Number | None = optional("Relative tolerance. Defaults to torch.testing's, or to 0 if `atol` is given.")
    atol: Number | None = optional("Absolute tolerance. Defaults to torch.testing's, or to 0 if `rtol` is given.")


class Expect(Frozen):
    """Stop the run unless each expression has its expected value."""

    noun: ClassVar[str] = "`expect`"
    expectations: dict[str, Expectation] = Field(description="Expected value of each expression.")


class Next(Frozen):
    """Draw the next batch of data sources."""

    noun: ClassVar[str] = "`next`"
    data: tuple[str, ...] = Field(description="Names of the data sources that draw their next batch.")


class Evaluate(Frozen):
    """Compute the objective and the metrics over a whole data source, without gradients."""

    noun: ClassVar[str] = "`evaluate`"
    data: Text = Field(description="Data source, each batch of which is used once, in the order of its file.")
    metrics: Names = optional("Names of the metrics to compute. The default is all metrics.")


class ForEach(Frozen):
    """Run steps for each batch of a data source."""

    noun: ClassVar[str] = "`for_each`"
    data: Text | None = optional("Data source to loop over. The default is the first source that the config declares.")
    epochs: Number = default(1, "Number of passes over the source.")
    steps: tuple["Step", ...] = Field(description="Steps to run for each batch.")


class Checkpoint(Frozen):
    """Save the full state of the run, so that `steprun resume` can go on from here."""

    noun: ClassVar[str] = "`checkpoint`"
    tag: RunName = optional(
        "Name; a later checkpoint of the same name replaces this one. Without a name the two newest are kept."
    )
    best: Result | None = optional(
        "Result of `evaluate`, such as `valid.loss`. Save only if it is the best so far, under the name `best`."
    )
    mode: Text = default("min", "Whether lower results are better (`min`) or higher ones (`max`).")


class Patience(Frozen):
    """Leave the innermost loop after several evaluations in a row that are not better."""

    noun: ClassVar[str] = "`patience`"
    on: Result = Field(description="Result of `evaluate`, such as `valid.loss`. A source alone means its objective.")
    evaluations: Number = Field(description="Number of evaluations in a row that are not better.")
    mode: Text = default("min", "Whether lower results are better (`min`) or higher ones (`max`).")
    min_delta: Number = default(0, "A result must be better than the best so far by more than this.")


class ReduceLROnPlateau(Frozen):
    """Reduce a learning rate when a result stops improving, as torch's `ReduceLROnPlateau`."""

    noun: ClassVar[str] = "`reduce_lr_on_plateau`"
    rate: Rate = Field(description="Frozen parameter of shape `[]` that hyperparameters read, as in `lr: rate`.")
    on: Result = Field(description="Result of `evaluate`, such as `valid.loss`. A source alone means its objective.")
    mode: Text = default("min", "Whether lower results are better (`min`) or higher ones (`max`).")
    factor: Number = default(0.1, "The rate is multiplied by this, which is below 1.")
    patience: Number = default(10, "Number of evaluations without improvement that are allowed.")
    threshold: Number = default(1e-4, "A result must be better than the best so far by more than this.")
    threshold_mode: Text = default("rel", "Whether `threshold` is relative to the best (`rel`) or absolute (`abs`).")
    cooldown: Number = default(0, "Number of evaluations to wait after a reduction.")
    min_lr: Number = default(0, "Lowest rate.")
    eps: Number = default(1e-8, "A reduction of no more than this is left out.")


class Epochs(Frozen):
    """The short form of a training loop: one `train` for each batch of the first source."""

    noun: ClassVar[str] = "`steps`"
    epochs: Number = Field(description="Number of passes over the source.")
    evaluate: Text | None = optional("Data source to evaluate after each pass. The best weights are kept.")
    patience: Number | None = optional(
        "Number of evaluations in a row that are not better, after which the loop ends. Needs `evaluate`."
    )


class LossScale(Frozen):
    """The loss scaler of float16, as `torch.amp.GradScaler`."""

    noun: ClassVar[str] = "`loss_scale`"
    init_scale: Number = default(65536.0, "The first scale, by which the objective is multiplied.")
    growth_factor: Number = default(2.0, "The scale grows by this factor.")
    backoff_factor: Number = default(0.5, "The scale shrinks by this factor after gradients that are not finite.")
    growth_interval: Number = default(2000, "Number of steps in a row with finite gradients before the scale grows.")


class Autocast(Frozen):
    """Mixed precision: `torch.autocast` around the expression."""

    noun: ClassVar[str] = "`autocast`"
    dtype: Text = Field(description="The narrower dtype: `bfloat16` or `float16`.")
    loss_scale: LossScale | None = optional(
        "Scales the objective so that small gradients stay above 0; skips steps whose gradients are not finite."
    )


class Repeat(Frozen):
    """Run steps several times."""

    noun: ClassVar[str] = "`repeat`"
    times: Number = Field(description="Number of iterations.")
    steps: tuple["Step", ...] = Field(description="Steps of one iteration.")


class Stop(Frozen):
    """Leave the innermost loop."""

    noun: ClassVar[str] = "`stop`"


class Step(Frozen):
    """One step of the program."""

    noun: ClassVar[str] = "a step"
    kind: str = Field(description="Kind of the step.")
    argument: Any = Field(description="Argument of the step, a model for each kind.")
    every: Number | None = optional("Run the step in iterations n, 2n, … of the innermost loop only.")
    when: Expression | None = optional("Run the step only if this scalar condition holds just before it.")
    path: ConfigPath = default((), "Place of the step in the config.")


class Config(Documented):
    """A whole config, after `extends`, overrides and the expansion of short forms."""

    noun: ClassVar[str] = "a config"
    name: RunName = optional(
        "Name of the run: letters, digits, `-` and `_`. The default is the file's name without its extension."
    )
    description: Text | None = optional("One line that says what the config is for.")
    seed: Seed = default(0, "Seed from which every random stream derives, 0 or more.")
    dtype: FloatingDtype = default("float32", "Dtype of parameters, of floating constants and of data columns.")
    device: Device = default("cpu", "Device that the tensors are on: `cpu`, `cuda`, `cuda:1` or `mps`.")
    engine: Text = default(
        "eager",
        "What runs the steps: `eager` one by one, `compile`, `xla` as compiled code, `cudagraph` as a CUDA graph; "
        "`auto` is `xla` where compiling pays, else `eager`.",
    )
    autocast: Autocast | None = optional(
        "Mixed precision: `bfloat16` or `float16` around the expression, or `{dtype, loss_scale}`."
    )
    parameters: dict[str, TensorDeclaration] = Field(description="Tensors that are trained, by name; at least one.")
    constants: dict[str, Any] = Field(
        default_factory=dict,
        description="Scalars, expressions over them, and tensors without a gradient, by name.",
    )
    from_run: FromRun | None = optional("A recorded run, or a weights file, whose weights the parameters start from.")
    data: dict[str, DataDeclaration] = Field(default_factory=dict, description="Sources of batches by name.")
    functions: dict[str, Statements] = Field(
        default_factory=dict, description="Functions: `name(arguments)` and the body of each."
    )
    expression: Statements = Field(description="Statements, one a line; the value of the last one is the objective.")
    objectives: dict[str, ObjectiveDeclaration] = Field(
        default_factory=dict,
        description="Objectives by name, each one sum over samples divided by another. The first is the default.",
    )
    metrics: dict[str, Metric] = Field(
        default_factory=dict,
        description="Expressions by name, computed with the objective, or mappings that say how to combine batches.",
    )
    optimizers: dict[str, OptimizerDeclaration] = Field(
        default_factory=dict, description="Optimizers by name, each with its `parameters`."
    )
    single_optimizer: bool = default(False, "Whether the config writes one `optimizer`.")
    steps: tuple[Step, ...] = Field(
        description="A list of steps, a number of `train` steps, or `{epochs: n}`. The default is one `backward`."
    )
    log: Log = Field(description="What each row of the log stores.")
    snapshot: SnapshotDeclaration = Field(description="What a snapshot stores, and how `steprun check` compares it.")
    on_nonfinite: Text = default(
        "stop", "If a value, gradient or weight is NaN or infinite: `stop`, `warn` once, or `ignore` it."
    )
    health: Health = Field(description="Thresholds of warnings about gradients and updates. All are off by default.")
    sweep: SweepDeclaration | None = optional("Many points of this config, for `steprun sweep`.")

    def __eq__(self, other: object) -> bool:
        """Whether two configs have equal values; the places of the values may differ."""
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
    "reduce_lr_on_plateau": ReduceLROnPlateau,
    "patience": Patience,
    "repeat": Repeat,
    "for_each": ForEach,
    "stop": Stop,
}
"""The model of the arguments of each kind of step."""
