"""The health rules of a config: thresholds for warnings during a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from runner.config.record_models import Health
from runner.faults import Faults
from runner.language.text.arithmetic import Scalar
from runner.plan.rows.slices import leading, slice_names
from runner.plan.scalars import integer, number
from runner.plan.tensors.tensors import TensorPlan


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """The thresholds of the health rules; None turns a rule off."""

    vanishing_gradient: float | None = None  # norm of a gradient
    exploding_gradient: float | None = None
    unchanged: int | None = None  # number of consecutive updates
    update_ratio: tuple[float, float] | None = None  # minimum and maximum of ‖Δw‖ / ‖w‖
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # stacked parameter → its slices, row-major

    @property
    def of_gradients(self) -> bool:
        return self.vanishing_gradient is not None or self.exploding_gradient is not None

    @property
    def of_updates(self) -> bool:
        return self.unchanged is not None or self.update_ratio is not None


def plan_health(
    written: Health, scalars: Mapping[str, Scalar], tensors: Mapping[str, TensorPlan], faults: Faults
) -> HealthPlan:
    """The thresholds of a config as numbers, and the slices that they apply to; reports each that is invalid."""
    unchanged = None
    if written.unchanged is not None:
        unchanged = integer(written.unchanged, ("health", "unchanged"), scalars, faults, least=1)
    plan = HealthPlan(
        _threshold(written.vanishing_gradient, "vanishing_gradient", scalars, faults),
        _threshold(written.exploding_gradient, "exploding_gradient", scalars, faults),
        unchanged,
        _range(written.update_ratio, scalars, faults),
    )
    return replace(plan, slices=_slices(tensors)) if plan.of_gradients or plan.of_updates else plan


def _slices(tensors: Mapping[str, TensorPlan]) -> dict[str, tuple[str, ...]]:
    trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
    found = {tensor.name: slice_names(tensor.name, leading(tensor.shape, tensor.stacked)) for tensor in trained}
    return {name: names for name, names in found.items() if names}


def _threshold(value: object, rule: str, scalars: Mapping[str, Scalar], faults: Faults) -> float | None:
    if value is None:
        return None
    path = ("health", rule)
    found = number(value, path, scalars, faults)
    if found is not None and not found > 0:
        faults.add(path, f"expected a number above 0, found {found!r}", "write a positive number, or remove the rule")
    return found


def _range(
    written: tuple[object, ...] | None, scalars: Mapping[str, Scalar], faults: Faults
) -> tuple[float, float] | None:
    if written is None:
        return None
    path = ("health", "update_ratio")
    hint = "write the least and the most that is healthy: `[1e-6, 1e-1]`"
    if len(written) != 2:
        faults.add(path, f"expected two numbers, found {len(written)}", hint)
        return None
    least, most = (number(value, (*path, place), scalars, faults) for place, value in enumerate(written))
    if least is None or most is None:
        return None
    if not 0 <= least < most:
        faults.add(path, f"expected 0 <= least < most, found {least!r} and {most!r}", hint)
    return least, most
