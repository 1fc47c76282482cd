"""`train` steps with a loss scaler, as `torch.amp.GradScaler`: steps whose gradients are not finite are skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from runner.engine.session import Session
from runner.engine.state import LossScale
from runner.engine.steps.autograd import Differentiate
from runner.engine.steps.optimizer_step import take_steps
from runner.engine.steps.step_code import StepCode
from runner.plan.program.demand import SCALE_COLUMN
from runner.plan.program.instructions import LossScaling, Train


class Scaled:
    """Differentiates a scaled objective, unscales the gradients, and guards the steps of optimizers."""

    def __init__(self, session: Session, argument: Train, scaling: LossScaling) -> None:
        binding = session.binding
        assert binding.state.loss_scale is not None
        self._scale: LossScale = binding.state.loss_scale
        self._scaling = scaling
        self._plain = Differentiate(binding.trained(argument.inputs))
        self._parameters = {
            name: list(binding.parameters(binding.plan.optimizers[name].parameters).values())
            for name in argument.optimizers
        }
        self._found: dict[str, Tensor] = {}

    def differentiate(self, value: Tensor, share: tuple[float, float] | None = None) -> None:
        """Accumulate the gradients of the scaled objective."""
        self._plain(value * self._scale.scale, share)

    def scale(self) -> Tensor:
        return self._scale.scale.clone()

    def unscale(self) -> None:
        """Divide the gradients of each optimizer by the scale, and find out whether all are finite."""
        inverse = self._scale.scale.double().reciprocal().float()
        for name, parameters in self._parameters.items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            found = self._found[name] = torch.zeros((), dtype=torch.float32, device=inverse.device)
            for group in _alike(gradients):
                torch._amp_foreach_non_finite_check_and_unscale_(group, found, inverse)

    def finite(self) -> bool:
        """Whether the gradients of all optimizers are finite."""
        return not any(found.item() for found in self._found.values())

    def guarded(self, name: str, take: Callable[[], None]) -> Callable[[], None]:
        """The step of an optimizer, which is skipped if one of its gradients is not finite."""

        def step() -> None:
            if not self._found[name].item():
                take()

        return step

    def update(self) -> None:
        """Shrink or grow the scale, after the steps of all optimizers."""
        found, scaling = sum(self._found.values()), self._scaling
        assert isinstance(found, Tensor)
        torch._amp_update_scale_(
            self._scale.scale,
            self._scale.growth,
            found,
            scaling.growth_factor,
            scaling.backoff_factor,
            scaling.growth_interval,
        )


def _alike(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Gradients in groups of one dtype, as torch's function takes them."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        groups.setdefault(gradient.dtype, []).append(gradient)
    return list(groups.values())


def scale_into_row(session: Session, step: StepCode, scaled: Scaled) -> None:
    """Put the scale of a step into its row."""
    column = session.binding.position(SCALE_COLUMN)
    if column is not None:
        step.put(column, scaled.scale)


def finish(session: Session, step: StepCode, argument: Train, scaled: Scaled, results: Sequence[str]) -> None:
    """Add the steps of the optimizers that are not skipped, and the update of the scale."""
    look = session.watch.updated(session.binding, argument.optimizers)
    take_steps(session, step, argument.optimizers, look, results, scaled.guarded)
    step.call(scaled.update, "update_scale")
