"""Plans the steps that act on what `evaluate` measured: `patience`, `reduce_lr_on_plateau` and the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runner.config import models
from runner.config.keys import MODES, THRESHOLD_MODES
from runner.errors import did_you_mean, listing
from runner.faults import ConfigPath
from runner.language.dtypes import dtype_name
from runner.optim import unreadable
from runner.plan.program.demand import evaluated
from runner.plan.program.expressions import Values
from runner.plan.program.instructions import Checkpoint, Followed, KeepBest, Patience, Plateau
from runner.plan.scalars import integer, number
from runner.plan.tensors.run_files import LAST


def note_measurements(values: Values, steps: Iterable[models.Step]) -> None:
    """Record which steps measure each result, so that later ones can be checked."""
    for step in steps:
        argument = step.argument
        if isinstance(argument, models.Evaluate):
            for name in evaluated(values, argument):
                values.measured.setdefault(f"{argument.data}.{name}", []).append(step.path)
        note_measurements(values, getattr(argument, "steps", ()))


def checkpoint(values: Values, step: models.Step, argument: models.Checkpoint) -> Checkpoint | KeepBest | None:
    path = (*step.path, "checkpoint")
    if argument.tag == LAST:
        short = values.faults.document.node((*path, "tag")) is None
        message = f"`{LAST}` is the tag of the state that every finished run keeps"
        values.faults.add(path if short else (*path, "tag"), message, "choose another tag, such as `latest`")
    if argument.best is None:
        return Checkpoint(argument.tag)
    followed = _followed(values, step, argument.best, argument.mode, path, key="best")
    return None if followed is None else KeepBest(followed)


def patience(values: Values, step: models.Step, argument: models.Patience) -> Patience | None:
    path = (*step.path, "patience")
    followed = _followed(values, step, argument.on, argument.mode, path, min_delta=argument.min_delta)
    evaluations = _integer(values, argument.evaluations, (*path, "evaluations"), 1)
    return None if followed is None or evaluations is None else Patience(followed, evaluations)


def plateau(values: Values, step: models.Step, argument: models.ReduceLROnPlateau) -> Plateau | None:
    path = (*step.path, "reduce_lr_on_plateau")
    before = len(values.faults.problems)
    _check_rate(values, argument.rate, (*path, "rate"))
    _check_choice(values, argument.threshold_mode, THRESHOLD_MODES, (*path, "threshold_mode"))
    followed = _followed(
        values,
        step,
        argument.on,
        argument.mode,
        path,
        threshold=argument.threshold,
        relative=argument.threshold_mode == "rel",
    )
    factor = _number(values, argument.factor, (*path, "factor"))
    if factor is not None and not 0 <= factor < 1:
        message = f"a rate is reduced by a factor from 0 to below 1, and this is {factor!r}"
        values.faults.add((*path, "factor"), message, "write for instance 0.1")
    counts = [_integer(values, getattr(argument, name), (*path, name), 0) for name in ("patience", "cooldown")]
    floors = [_not_negative(values, getattr(argument, name), (*path, name)) for name in ("min_lr", "eps")]
    if followed is None or factor is None or len(values.faults.problems) > before:
        return None
    values.read.add(argument.rate)
    return Plateau(argument.rate, followed, factor, counts[0] or 0, counts[1] or 0, floors[0] or 0, floors[1] or 0)


def _check_rate(values: Values, name: str, path: ConfigPath) -> None:
    tensor = values.tensors.get(name)
    if tensor is None or tensor.role != "parameter":
        known = [
            each for each, plan in values.tensors.items() if plan.role == "parameter" and unreadable(each, plan) is None
        ]
        what = "is a constant" if tensor is not None or name in values.environment.scalars else "is not a parameter"
        hint = did_you_mean(name, known, f"declare it: `{_example(name)}: {{init: 0.1, requires_grad: false}}`")
        values.faults.add(path, f"`{name}` {what}, and a rate is a frozen parameter of shape []", hint)
        return
    reason = unreadable(name, tensor)
    if reason is not None:
        values.faults.add(path, *reason)
    elif not tensor.dtype.is_floating_point:
        message = f"`{name}` is {dtype_name(tensor.dtype)}, and a rate is floating-point"
        values.faults.add(path, message, "write `dtype: float64` in its declaration")
    elif not any(name in optimizer.reads for optimizer in values.optimizers.values()) and not values.faults.problems:
        values.faults.warn(path, f"no optimizer reads `{name}`", f"write `lr: {name}`")


def _example(name: str) -> str:
    return name if name.isidentifier() else "rate"


def _followed(
    values: Values,
    step: models.Step,
    on: str,
    mode: str,
    path: ConfigPath,
    *,
    key: str = "on",
    threshold: Any = 0.0,
    min_delta: Any = None,
    relative: bool = False,
) -> Followed | None:
    """The result that a step follows; None after reporting a problem."""
    before = len(values.faults.problems)
    _check_choice(values, mode, MODES, (*path, "mode"))
    at = (*path, key)
    result = on if "." in on else f"{on}.{values.lowered.result}"
    if result not in values.measured:
        values.faults.add(at, *_not_measured(values, on))
    elif not any(_comes_first(found, step.path) for found in values.measured[result]):
        message = f"`{result}` is measured only after this step"
        values.faults.add(at, message, f"put `evaluate: {result.partition('.')[0]}` before it")
    elif result in values.results:
        example = values.results[result]
        if example.numel() != 1:
            message = f"`{result}` has shape {tuple(example.shape)}, and only one number can be followed"
            values.faults.add(at, message, "reduce it in `metrics`, for instance with `.mean()`")
        elif example.dtype.is_complex:
            values.faults.add(at, f"`{result}` is {dtype_name(example.dtype)}", "follow its `.abs()`, as a metric")
    if min_delta is not None:
        delta = _not_negative(values, min_delta, (*path, "min_delta"))
    else:
        delta = _number(values, threshold, (*path, "threshold"))
    if delta is None or len(values.faults.problems) > before:
        return None
    return Followed(result, mode, float(delta), relative)


def _not_measured(values: Values, on: str) -> tuple[str, str]:
    """What is wrong with the name of a result that no step measures, and a hint."""
    source, _, value = on.partition(".")
    known = sorted(values.measured)
    if source in values.supply.sources:
        if any(name.startswith(f"{source}.") for name in known):
            own = [name for name in known if name.startswith(f"{source}.")]
            return f"`{on}` is not measured", did_you_mean(on, own, f"results are {listing(own, 6)}") or ""
        return f"no step evaluates `{source}`", f"put `evaluate: {source}` before it"
    nearest = did_you_mean(on, known)
    if nearest is not None:
        return f"no step measures `{on}`", nearest
    sources = list(values.supply.sources)
    if known:
        return f"no step measures `{on}`", f"results are {listing(known, 6)}"
    if sources and value:
        hint = did_you_mean(source, sources, f"sources are {listing(sources, 6)}")
        return f"there is no data source `{source}`", hint or ""
    if sources:
        return f"no step measures `{on}`", f"put `evaluate: {sources[-1]}` before it, and follow `{sources[-1]}`"
    return f"no step measures `{on}`", "declare a source under `data:`, and put an `evaluate` of it before"


def _comes_first(measuring: ConfigPath, step: ConfigPath) -> bool:
    """Whether a step can run before another one: it comes first in the file, or is in a loop with it."""
    return measuring[:2] == step[:2] or _places(measuring) < _places(step)


def _places(path: ConfigPath) -> tuple[int, ...]:
    return tuple(part for part in path if isinstance(part, int))


def _check_choice(values: Values, written: str, choices: tuple[str, ...], path: ConfigPath) -> None:
    if written not in choices:
        hint = f"write {' or '.join(f'`{choice}`' for choice in choices)}"
        values.faults.add(path, f"there is no {str(path[-1]).replace('_', ' ')} `{written}`", hint)


def _integer(values: Values, written: Any, path: ConfigPath, least: int) -> int | None:
    return integer(written, path, values.environment.scalars, values.faults, least)


def _number(values: Values, written: Any, path: ConfigPath) -> float | None:
    found = number(written, path, values.environment.scalars, values.faults)
    if found is not None and found != found:
        values.faults.add(path, "expected a number, found nan", "write a number")
        return None
    return found


def _not_negative(values: Values, written: Any, path: ConfigPath) -> float | None:
    found = _number(values, written, path)
    if found is not None and found < 0:
        values.faults.add(path, f"expected 0 or more, found {found!r}", "write 0 or more")
        return None
    return found
