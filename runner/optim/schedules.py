"""The schedules of `torch.optim.lr_scheduler` that depend on the step count only, in closed form.

Each closed form is a function of `t`, the optimizer's step count from 1, and returns the learning rate of that step.
torch has this rate after `t - 1` calls of `scheduler.step()`. Names and arguments are torch's, with the class name in
snake case. If torch takes the base rate from the optimizer, it is the first argument here.
"""

from __future__ import annotations

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from runner.language.text.arithmetic import Names, Scalar
from runner.language.text.faults import LanguageError, Place
from runner.language.text.scalars import RunningFunction, compile_scalar
from runner.optim.measured import STEP_COUNT

Schedule = Callable[..., float]


def step_lr(t: int, lr: float, step_size: int, gamma: float = 0.1) -> float:
    """`lr`, times `gamma` every `step_size` steps."""
    _positive(step_size=step_size)
    return lr * float(gamma) ** ((t - 1) // step_size)


def multi_step_lr(t: int, lr: float, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """`lr`, times `gamma` at each milestone."""
    return lr * float(gamma) ** bisect_right(sorted(milestones), t - 1)


def constant_lr(t: int, lr: float, factor: float = 1.0 / 3, total_iters: int = 5) -> float:
    """`lr * factor` for `total_iters` steps, then `lr`."""
    return lr * factor if t - 1 < total_iters else lr


def linear_lr(t: int, lr: float, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5) -> float:
    """From `lr * start_factor` to `lr * end_factor` in `total_iters` equal steps."""
    if not 0 < start_factor <= 1:
        raise ValueError(f"`start_factor` must be between 0 and 1, not {start_factor}")
    if not 0 <= end_factor <= 1:
        raise ValueError(f"`end_factor` must be between 0 and 1, not {end_factor}")
    _positive(total_iters=total_iters)
    return lr * (start_factor + (end_factor - start_factor) * min(total_iters, t - 1) / total_iters)


def exponential_lr(t: int, lr: float, gamma: float) -> float:
    """`lr`, times `gamma` every step."""
    return lr * float(gamma) ** (t - 1)


def polynomial_lr(t: int, lr: float, total_iters: int = 5, power: float = 1.0) -> float:
    """From `lr` to 0 in `total_iters` steps along a polynomial."""
    _positive(total_iters=total_iters)
    return lr * math.pow(1.0 - min(total_iters, t - 1) / total_iters, power)


def cosine_annealing_lr(t: int, lr: float, T_max: int, eta_min: float = 0.0) -> float:
    """From `lr` to `eta_min` and back along a cosine of half period `T_max` (Loshchilov and Hutter 2017, SGDR)."""
    _positive(T_max=T_max)
    return eta_min + (lr - eta_min) * (1 + math.cos(math.pi * (t - 1) / T_max)) / 2


def cosine_annealing_warm_restarts(t: int, lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> float:
    """A cosine from `lr` to `eta_min` that restarts after `T_0`, `T_0 * T_mult`, … steps."""
    _positive(T_0=T_0, T_mult=T_mult)
    if T_mult != int(T_mult):
        raise ValueError(f"`T_mult` must be an integer, not {T_mult}")
    since, period = t - 1, T_0
    if T_mult == 1:
        since %= period
    while since >= period:
        since -= period
        period *= T_mult
    return eta_min + (lr - eta_min) * (1 + math.cos(math.pi * since / period)) / 2


def cyclic_lr(
    t: int,
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> float:
    """Up and down between two rates (Smith 2017, Cyclical Learning Rates)."""
    scales: Mapping[str, Callable[[int], float]] = {
        "triangular": lambda cycle: 1.0,
        "triangular2": lambda cycle: math.ldexp(1.0, 1 - cycle),
        "exp_range": lambda cycle: float(gamma) ** (t - 1),
    }
    if mode not in scales:
        raise ValueError(f"`mode` must be one of {', '.join(scales)}, not {mode!r}")
    up = float(step_size_up)
    total = up + (up if step_size_down is None else float(step_size_down))
    _positive(step_size_up=up, step_size_down=total - up)
    cycle = math.floor(1 + (t - 1) / total)
    position = 1.0 + (t - 1) / total - cycle
    subgroup = up / total
    height = position / subgroup if position <= subgroup else (position - 1) / (subgroup - 1)
    return base_lr + (max_lr - base_lr) * height * scales[mode](cycle)


def one_cycle_lr(
    t: int,
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> float:
    """Up to `max_lr` and down again (Smith and Topin 2018, Super-Convergence)."""
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("give `total_steps`, or both `epochs` and `steps_per_epoch`")
        total_steps = epochs * steps_per_epoch
    _positive(total_steps=total_steps)
    if anneal_strategy not in _ANNEAL:
        raise ValueError(f"`anneal_strategy` must be one of {', '.join(_ANNEAL)}, not {anneal_strategy!r}")
    if t > total_steps:
        raise ValueError(f"step {t} is beyond `total_steps`, {total_steps}")
    first = max_lr / div_factor
    last = first / final_div_factor
    if three_phase:
        ends: tuple[float, ...] = (pct_start * total_steps - 1, 2 * pct_start * total_steps - 2, total_steps - 1)
        rates: tuple[float, ...] = (first, max_lr, first, last)
    else:
        ends, rates = (pct_start * total_steps - 1, total_steps - 1), (first, max_lr, last)
    start = 0.0
    for phase, end in enumerate(ends):
        if t - 1 <= end or phase == len(ends) - 1:
            return _ANNEAL[anneal_strategy](rates[phase], rates[phase + 1], (t - 1 - start) / (end - start))
        start = end
    raise AssertionError


def _cosine(start: float, end: float, subgroup: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * subgroup) + 1)


def _line(start: float, end: float, subgroup: float) -> float:
    return (end - start) * subgroup + start


_ANNEAL: Mapping[str, Callable[[float, float, float], float]] = {"cos": _cosine, "linear": _line}


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be above 0, not {value}")


_CLOSED_FORMS: tuple[Schedule, ...] = (
    step_lr,
    multi_step_lr,
    constant_lr,
    linear_lr,
    exponential_lr,
    polynomial_lr,
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    cyclic_lr,
    one_cycle_lr,
)

_MOMENTUM = "a schedule returns one number: write another one for `momentum` or `betas`"
_REFUSED_ARGUMENTS: Mapping[str, str] = {
    "base_momentum": _MOMENTUM,
    "cycle_momentum": _MOMENTUM,
    "max_momentum": _MOMENTUM,
    "last_epoch": "the count is `t`, from 1",
    "scale_fn": "multiply the schedule by an expression of `t`",
    "scale_mode": "multiply the schedule by an expression of `t`",
}
REFUSED: Mapping[str, str] = {
    "chained_scheduler": "multiply the schedules: `0.1 * linear_lr(1, total_iters=10) * exponential_lr(1, gamma=0.9)`",
    "lambda_lr": "write the expression itself: `0.1 * 0.95 ** (t - 1)`",
    "multiplicative_lr": "write the product itself: `0.1 * 0.95 ** (t - 1)`",
    "reduce_lr_on_plateau": "it is a step: `- reduce_lr_on_plateau: {rate: rate, on: valid.loss}`, with `lr: rate`",
}
"""Classes of `torch.optim.lr_scheduler` without a function here, each with what to write instead."""


def _closed_form(schedule: Schedule) -> RunningFunction:
    signature = inspect.signature(schedule)
    taken = [parameter for parameter in signature.parameters.values() if parameter.name != STEP_COUNT]
    kinds = {parameter.name: str(parameter.annotation) for parameter in taken}

    def call(values: Names, arguments: Mapping[str, Any]) -> float:
        given = {name: _argument(name, value, kinds[name], values) for name, value in arguments.items()}
        return schedule(values[STEP_COUNT], **given)

    required = frozenset(parameter.name for parameter in taken if parameter.default is parameter.empty)
    return RunningFunction(tuple(kinds), required, call, _REFUSED_ARGUMENTS)


_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "Sequence[int]": (tuple, "a list of integers"),
    "str": (str, "a word in quotes"),
    "int": ((int, float), "a number"),
    "float": ((int, float), "a number"),
    "bool": ((bool, int), "a condition, such as `1 > 0`"),
}


def _argument(name: str, argument: Any, kind: str, values: Names) -> Any:
    value = tuple(part(values) for part in argument) if isinstance(argument, tuple) else argument(values)
    if value is None and kind.endswith("None"):
        return None
    expected, described = _KINDS[kind.removesuffix(" | None")]
    if not isinstance(value, expected):
        raise TypeError(f"`{name}` must be {described}")
    return value


def _sequential(values: Names, arguments: Mapping[str, Any]) -> Any:
    """Schedules in sequence, each counting from its milestone; only the current one is evaluated."""
    schedules = arguments["schedulers"]
    milestones = _argument("milestones", arguments["milestones"], "Sequence[int]", values)
    if not isinstance(schedules, tuple):
        raise TypeError("`schedulers` must be a list of schedules")
    if len(schedules) != len(milestones) + 1:
        raise ValueError(f"there are {len(schedules)} schedules, and {len(milestones)} milestones between them")
    if list(milestones) != sorted(milestones):
        raise ValueError("`milestones` must be in ascending order")
    t = values[STEP_COUNT]
    current = bisect_right(milestones, t - 1)
    return schedules[current]({**values, STEP_COUNT: t - milestones[current - 1] if current else t})


SCHEDULES: Mapping[str, RunningFunction] = {
    **{function.__name__: _closed_form(function) for function in _CLOSED_FORMS},
    "sequential_lr": RunningFunction(
        ("schedulers", "milestones"), frozenset({"schedulers", "milestones"}), _sequential, _REFUSED_ARGUMENTS
    ),
}
"""The schedules by their names in configs."""


def compile_schedule(
    text: str, names: Names, measured: Mapping[str, Callable[[], Scalar]] = MappingProxyType({})
) -> Callable[[int], Scalar]:
    """Compile a hyperparameter to a function of `t`, the optimizer's step count from 1.

    Args:
        text: an expression of `t` that may call `SCHEDULES`, for instance ``min(1, t / 10) * step_lr(0.1, 30)``.
        names: scalar constants by name, and tuples for 1-d constants.
        measured: functions that return the current values of further names.
    Raises:
        LanguageError: the text has a fault. Each call raises one too, if the value is not finite.
    """
    compiled = compile_scalar(text, names, (STEP_COUNT, *measured), SCHEDULES, REFUSED)

    def at(t: int) -> Scalar:
        value = compiled({STEP_COUNT: t, **{name: read() for name, read in measured.items()}})
        if not math.isfinite(value):
            place = Place(1, 0, len(text.split("\n")[0]))
            raise LanguageError(f"this is {value}", "a hyperparameter must be finite in every step", place)
        return value

    return at
