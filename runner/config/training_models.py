"""The models of steps that act on what is measured, of the short form of `steps`, and of mixed precision."""

from typing import ClassVar

from pydantic import Field

from runner.config.fields import Number, Rate, Result, Text
from runner.config.frozen import Frozen, default, optional


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
