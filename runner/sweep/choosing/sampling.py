"""Samplers of Optuna: the next points depend on the objective of earlier ones.

Points are asked for and told in batches, by index. So the points are the same with any number of processes, and a
resumed sweep asks the same questions again and gets the same points.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.config.sections.sweep import DISTRIBUTIONS
from runner.config.sweep_models import SweepDeclaration
from runner.errors import Problem, UsageError, did_you_mean
from runner.language.text.arithmetic import Scalar
from runner.language.text.scalars import evaluate
from runner.sweep.choosing.objective import Objective
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.space import Point
from runner.sweep.points.values import values_of

SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "random": "RandomSampler"}
"""The class of each sampler in `optuna.samplers`; experimental ones are left out."""


@dataclass(slots=True)
class Sampler:
    """Asks a sampler for points, and reports their objectives to it.

    Args:
        trials: the number of points.
        batch: the number of points to ask for at once.
    """

    study: Any
    distributions: Mapping[str, Any]
    choices: Mapping[str, list[Any]]  # the values of each choice, by path
    objective: Objective
    trials: int
    batch: int
    asked: list[Any] = field(default_factory=list)
    told: int = 0

    def next(self, outcomes: Mapping[int, Outcome]) -> list[Point]:
        """The next points; empty after the last.

        Args:
            outcomes: those of all points so far, by index.
        """
        for trial in self.asked[self.told :]:
            outcome = outcomes.get(trial.number)
            value = None if outcome is None else self.objective.of(outcome)
            if value is None or math.isnan(value):
                self.study.tell(trial, state=_failed())
            else:
                self.study.tell(trial, value)
        self.told = len(self.asked)
        points = []
        for _ in range(min(self.batch, self.trials - self.told)):
            trial = self.study.ask(dict(self.distributions))
            self.asked.append(trial)
            points.append(Point(trial.number, {path: self._value(path, value) for path, value in trial.params.items()}))
        return points

    def _value(self, path: str, value: Any) -> Any:
        return self.choices[path][value] if path in self.choices else value


def sampler_of(
    name: str,
    sweep: SweepDeclaration | None,
    objective: Objective | None,
    scalars: Mapping[str, Scalar],
    trials: int,
    batch: int,
) -> Sampler:
    """The sampler of a sweep.

    Args:
        sweep: its distributions are valid: `space_of` checks them.
    Raises:
        UsageError: Optuna is not installed, or the sweep does not suit a sampler.
    """
    if name not in SAMPLERS:
        raise UsageError(
            Problem(
                f"there is no sampler `{name}`", did_you_mean(name, SAMPLERS, f"samplers are {', '.join(SAMPLERS)}")
            )
        )
    draw = None if sweep is None else sweep.random
    if sweep is None or draw is None or sweep.grid or sweep.zip or sweep.points or sweep.union:
        hint = "write `sweep: {random: {samples: 50, draw: {learning_rate: {log_uniform: [1e-5, 1e-1]}}}}` alone"
        raise UsageError(Problem("a sampler draws from `random`, without other axes", hint))
    ignored = next((key for key in ("where", "halving") if getattr(sweep, key) is not None), None)
    if ignored is not None:
        raise UsageError(Problem(f"--sampler cannot be used with `{ignored}`", "remove it, or leave --sampler out"))
    if objective is None:
        raise UsageError(Problem("a sampler needs an objective", "write `objective: {minimize: valid.loss}`"))
    optuna = _import_optuna()
    distributions: dict[str, Any] = {}
    choices: dict[str, list[Any]] = {}
    for path, written in draw.draw.items():
        ((kind, _),) = written.items()
        arguments = _arguments(path, written, scalars)
        distributions[path] = _DISTRIBUTIONS[kind](optuna.distributions, arguments)
        if kind == "choice":
            choices[path] = arguments
    direction = "minimize" if objective.minimize else "maximize"
    sampler = getattr(optuna.samplers, SAMPLERS[name])(seed=sweep.seed)
    study = optuna.create_study(direction=direction, sampler=sampler)
    return Sampler(study, distributions, choices, objective, trials, batch)


def _arguments(path: str, written: Mapping[str, Any], scalars: Mapping[str, Scalar]) -> list[Any]:
    """The ends of a distribution, or the values of a choice.

    Raises:
        UsageError: a sampler cannot draw from it.
    """
    ((kind, given),) = written.items()
    if kind not in _DISTRIBUTIONS:
        hint = f"write one of {', '.join(_DISTRIBUTIONS)}"
        raise UsageError(Problem(f"a sampler cannot draw `{path}` from `{kind}`", hint))
    if kind == "choice":
        values = values_of(given, scalars)
        if any(map(_draws, values)):
            message = f"a sampler cannot draw inside the `choice` of `{path}`"
            raise UsageError(Problem(message, "write numbers, words or blocks of them"))
        return values
    low, high = (evaluate(each, scalars) if isinstance(each, str) else each for each in given)
    if not math.isfinite(high - low):
        message = f"a sampler cannot draw `{path}` from {low:g} to {high:g}"
        raise UsageError(Problem(message, "write numbers that are closer"))
    return [low, high]


_DISTRIBUTIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "uniform": lambda optuna, ends: optuna.FloatDistribution(*ends),
    "log_uniform": lambda optuna, ends: optuna.FloatDistribution(*ends, log=True),
    "randint": lambda optuna, ends: optuna.IntDistribution(int(ends[0]), int(ends[1]) - 1),
    "choice": lambda optuna, values: optuna.CategoricalDistribution(range(len(values))),
}


def _draws(value: Any) -> bool:
    """Whether a value has a distribution in it."""
    if isinstance(value, dict):
        return (len(value) == 1 and next(iter(value)) in DISTRIBUTIONS) or any(map(_draws, value.values()))
    return isinstance(value, list) and any(map(_draws, value))


def _import_optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise UsageError(Problem("--sampler needs Optuna", "install it: `pip install 'steprun[optuna]'`")) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _failed() -> Any:
    return importlib.import_module("optuna").trial.TrialState.FAIL
