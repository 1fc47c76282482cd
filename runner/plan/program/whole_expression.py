"""Lowers the `expression` of a config and its metrics for the batches of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from runner.config import Config
from runner.language.dtypes import DTYPES
from runner.language.graph.lowered import Lowered
from runner.language.inference.autocast import Autocast
from runner.language.lowering.lower import Measured, lower_statements, uses_grad
from runner.language.lowering.scope import Environment
from runner.plan.tensors.examples import Shapes
from runner.plan.tensors.tensors import TensorPlan

_MEASURES = re.compile(r"\b(shape|size|numel|nelement|len|dim|ndim)\b")


@dataclass(frozen=True, slots=True)
class WholeExpression:
    """The expression of a config, and everything it can read."""

    config: Config
    tensors: Mapping[str, TensorPlan]
    examples: Mapping[str, Tensor]
    environment: Environment
    shapes: Shapes

    def lower(self, batches: Mapping[str, Tensor], training: bool) -> Lowered:
        """Lower the expression for example batches, with `training` true or false.

        Raises:
            LanguageError: the expression is invalid.
        """
        roles: dict[str, str] = {name: tensor.role for name, tensor in self.tensors.items()}
        scope = self.environment.scope(
            {**self.examples, **batches},
            roles=roles | dict.fromkeys(batches, "batch column"),
            running={"iteration": 1},
            fixed={"training": training},
            elsewhere=dict.fromkeys(self.config.data, "a data source, of which `init` reads whole columns"),
        )
        text, metrics = self.config.expression, self.metrics
        objectives = [Measured(("objectives", name), each.parts) for name, each in self.config.objectives.items()]
        texts = [text, *(part for each in (*objectives, *metrics) for part in each.texts.values())]
        gradients = any(uses_grad(part, scope) for part in texts)
        return lower_statements(text, scope, self.shapes.inference(gradients), metrics, objectives, self.autocast)

    @property
    def metrics(self) -> list[Measured]:
        """The metrics of the config, each with its expressions."""
        declared = self.config.metrics.items()
        return [
            Measured(("metrics", name), {"": each} if isinstance(each, str) else each.parts) for name, each in declared
        ]

    @property
    def autocast(self) -> Autocast | None:
        """The context in which the expression runs."""
        declared = self.config.autocast
        if declared is None:
            return None
        return Autocast(self.config.device.partition(":")[0], DTYPES[declared.dtype])

    @property
    def scales_loss(self) -> bool:
        """Whether the config has a loss scaler."""
        return self.config.autocast is not None and self.config.autocast.loss_scale is not None

    @property
    def asks_lengths(self) -> bool:
        """Whether the expression may depend on the length of a batch."""
        config = self.config
        parts = [*(each.texts for each in self.metrics), *(each.parts for each in config.objectives.values())]
        texts = [config.expression, *config.functions.values(), *(text for each in parts for text in each.values())]
        return any(map(_MEASURES.search, texts))
