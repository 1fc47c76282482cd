"""Converts the declared parameters and constants of a config to frozen plans, without allocating them."""

from __future__ import annotations

import math
import warnings as python_warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path as FilePath
from typing import Literal

import torch
from torch import Tensor

from runner.config import Config, Document, TensorDeclaration
from runner.errors import Problem
from runner.faults import Faults, PlacedFault, sentence
from runner.language.dtypes import dtype_name
from runner.language.inference.inference import readable_bytes
from runner.language.text.arithmetic import Names
from runner.language.text.faults import LanguageError
from runner.optim import named_as_numbers
from runner.optim.plans import Path, broadcasts
from runner.plan.data.dtypes import Number, default_of_kind, has_gradient, misfit
from runner.plan.data.files import CastFault, FileFault
from runner.plan.data.reading.checking import Scan, check_values
from runner.plan.memory import machine_memory
from runner.plan.tensors.initial import Computed, Drawn, Evaluate, Fill, Initial, Listed, Loaded, draw, make
from runner.plan.tensors.origins import DeclarationContext, declared_shape, init_path, source_of

Role = Literal["parameter", "constant"]
Infer = Callable[[Computed, Mapping[str, "TensorPlan"]], tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One parameter or constant tensor: everything except its values."""

    name: str
    role: Role
    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool
    init: Initial
    path: Path

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    @property
    def stacked(self) -> int:
        """The number of leading dimensions whose slices are tensors of their own, such as the layers of a network."""
        return self.init.stacked if isinstance(self.init, Drawn) else 0


def materialise(plan: TensorPlan, evaluate: Evaluate) -> Tensor:
    """Compute the initial values of a plan: contiguous, on the CPU, without a gradient.

    Args:
        plan: a plan from `plan_tensors`.
        evaluate: returns the value of an initial expression. Call `materialise` in the order of `initial_order`,
            so that the tensors it reads exist.
    Raises:
        PlacedFault: a data file or an expression does not match the plan.
    """
    try:
        return make(plan.init, plan.shape, plan.dtype, evaluate)
    except CastFault as fault:
        at = plan.init.dtype_path if isinstance(plan.init, Loaded) else plan.path
        raise PlacedFault(at, fault.message, fault.hint) from fault
    except FileFault as fault:
        at = plan.init.path if isinstance(plan.init, Loaded) else (*plan.path, "file")
        raise PlacedFault(at, fault.message, fault.hint) from fault
    except (ValueError, RuntimeError) as error:
        raise PlacedFault((*plan.path, "init"), sentence(error), "change the declaration") from error


def initial_order(plans: Mapping[str, TensorPlan]) -> tuple[str, ...]:
    """Names in an order in which every initial expression follows the tensors it reads; otherwise as declared.

    Raises:
        PlacedFault: initial expressions form a cycle.
    """
    waiting = {
        name: set(plan.init.reads) & set(plans) for name, plan in plans.items() if isinstance(plan.init, Computed)
    }
    sorter = TopologicalSorter(waiting)
    try:
        computed = [name for name in sorter.static_order() if name in waiting]
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        message = f"the initial values depend on each other in a cycle: {' → '.join(circle)}"
        raise PlacedFault((*plans[circle[0]].path, "init"), message, "initialise one of them with numbers") from None
    return (*(name for name in plans if name not in waiting), *computed)


def plan_tensors(
    config: Config,
    scalars: Names,
    default_dtype: torch.dtype,
    problems: list[Problem],
    allowed: Iterable[FilePath] = (),
    *,
    infer: Infer | None = None,
    warnings: list[Problem] | None = None,
    limit: int | None = None,
) -> dict[str, TensorPlan]:
    """Every valid tensor of a config, parameters first, in the order of their declarations.

    Args:
        config: the config, whose `parameters`, `constants` and `seed` are read.
        scalars: scalar constants by name.
        default_dtype: the config's `dtype`.
        problems: the list to append every problem to.
        allowed: folders from which data may be read, in addition to the folder of the file with the path.
        infer: returns shape and dtype of an initial expression, given the tensors planned so far; raises
            `LanguageError`. Without it such a tensor has its declared shape, or none, and the default dtype.
        warnings: the list to append torch's warnings to.
        limit: maximum bytes of a tensor; the memory of the machine by default.
    """
    context = DeclarationContext(
        config.document,
        scalars,
        default_dtype,
        config.seed,
        tuple(allowed),
        machine_memory() if limit is None else limit,
        frozenset({*config.parameters, *config.constants}),
        named_as_numbers(config) if not config.device.startswith("mps") else frozenset(),  # which has no float64
        frozenset(f"{source}.{column}" for source, data in config.data.items() for column in data.columns),
    )
    faults, scan = Faults(config.document, problems), Scan()
    plans: dict[str, TensorPlan] = {}
    for name, role, declared in _declarations(config):
        with faults.collecting():
            plan = _plan(name, role, declared, context)
            _check_stacked(plan)
            found = _check_values(plan, config.document, context.limit, scan) if plan.elements else []
            plans[name] = plan
            for warning in found:
                place = init_path(plan.path, config.document)
                (warnings if warnings is not None else []).append(config.document.problem(place, warning))
    if infer is not None:
        _infer_all(config, plans, infer, context, faults)
    return {name: plans[name] for name, _, _ in _declarations(config) if name in plans}


def _declarations(config: Config) -> Iterator[tuple[str, Role, TensorDeclaration]]:
    yield from ((name, "parameter", declared) for name, declared in config.parameters.items())
    for name, declared in config.constants.items():
        if isinstance(declared, TensorDeclaration):
            yield name, "constant", declared


def _plan(name: str, role: Role, declared: TensorDeclaration, context: DeclarationContext) -> TensorPlan:
    path: Path = (f"{role}s", name)
    shape = None if declared.shape is None else declared_shape(declared.shape, (*path, "shape"), context.scalars)
    source = source_of(name, declared, path, context)
    if shape is not None and source.shape is not None and shape != source.shape:
        owner = str(source.init) if isinstance(source.init, Loaded) else "the list"
        message = f"the declared shape is {list(shape)}, and {owner} has shape {list(source.shape)}"
        raise PlacedFault((*path, "shape"), message, f"write `shape: {list(source.shape)}`, or leave it out")
    shape = shape if shape is not None else source.shape or ()
    dtype = _dtype(role, declared, source.kind, _default_dtype(name, declared, shape, context), path)
    requires_grad = _requires_grad(name, role, declared, dtype, path)
    plan = TensorPlan(name, role, shape, dtype, requires_grad, source.init, path)
    _check_size(plan, context.limit)
    return plan


def _default_dtype(
    name: str, declared: TensorDeclaration, shape: tuple[int, ...], context: DeclarationContext
) -> torch.dtype:
    """The dtype of a parameter that declares none: float64 for the numbers that optimizers read."""
    is_number = name in context.numbers and declared.requires_grad is False and shape == ()
    return torch.float64 if is_number else context.default_dtype


def _dtype(role: Role, declared: TensorDeclaration, kind: torch.dtype, default: torch.dtype, path: Path) -> torch.dtype:
    if declared.dtype is not None:
        found: torch.dtype = getattr(torch, declared.dtype)
        if kind.is_complex and not found.is_complex:
            message = f"its values are {dtype_name(kind)}, and {dtype_name(found)} would lose their imaginary part"
            raise PlacedFault((*path, "dtype"), message, "write a complex dtype")
        return found
    return default if role == "parameter" and not kind.is_complex else default_of_kind(kind, default)


def _requires_grad(name: str, role: Role, declared: TensorDeclaration, dtype: torch.dtype, path: Path) -> bool:
    if role == "constant" or declared.requires_grad is False:
        return False
    if not has_gradient(dtype):
        message = f"the parameter `{name}` is {dtype_name(dtype)}, and only floating and complex dtypes have gradients"
        at = (*path, "requires_grad") if declared.requires_grad else (*path, "dtype")
        raise PlacedFault(at, message, "write `requires_grad: false`, or declare it under `constants`")
    return True


def _check_size(plan: TensorPlan, limit: int) -> None:
    if plan.bytes > limit:
        kind, needed, available = dtype_name(plan.dtype), readable_bytes(plan.bytes), readable_bytes(limit)
        message = f"a tensor of shape {list(plan.shape)} and {kind} needs {needed}, but only {available} are available"
        raise PlacedFault((*plan.path, "shape"), message, "make it smaller")


def _check_values(plan: TensorPlan, document: Document, limit: int, scan: Scan) -> list[str]:
    """Check the source of a tensor's values against its dtype and shape; returns torch's warnings."""
    at = init_path(plan.path, document)
    match plan.init:
        case Loaded(array, dtype_path=dtype_path):
            try:
                check_values(array, plan.dtype, scan, limit)
            except FileFault as fault:
                raise PlacedFault(dtype_path, fault.message, fault.hint) from fault
        case Fill(value):
            _check_number(value, plan.dtype, at)
        case Listed(values):
            if any(misfit(value, plan.dtype) for value in set(values)):
                for position, value in enumerate(values):
                    _check_number(value, plan.dtype, (*at, *_index(position, plan.shape)))
        case Drawn():
            return _check_draw(plan, plan.init, at)
    return []


def _check_number(value: Number, dtype: torch.dtype, path: Path) -> None:
    reason = misfit(value, dtype)
    if reason is not None:
        raise PlacedFault(path, f"{value} {reason}", "write another number, or another `dtype`")


def _index(position: int, shape: tuple[int, ...]) -> Iterator[int]:
    """The index of an element at a position in row-major order."""
    for axis in range(len(shape)):
        below = math.prod(shape[axis + 1 :])
        yield position // below
        position %= below


def _check_stacked(plan: TensorPlan) -> None:
    init = plan.init
    if isinstance(init, Drawn) and init.stacked >= max(len(plan.shape), 1):
        message = f"`stacked: {init.stacked}` leaves no dimension of the shape {list(plan.shape)} to draw"
        raise PlacedFault((*plan.path, "stacked"), message, "make it smaller than the number of dimensions")


def _check_draw(plan: TensorPlan, init: Drawn, path: Path) -> list[str]:
    """Call the initialiser on a small stand-in, so that torch's own checks run before the tensor is allocated."""
    shape = _stand_in(plan.shape[init.stacked :], init.arguments.get("groups", 1))
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        try:
            draw(replace(init, stacked=0), shape, plan.dtype)
        except (ValueError, RuntimeError, ArithmeticError, TypeError) as error:
            message = (
                f"`{init.name}` does not fit {dtype_name(plan.dtype)} of shape {list(plan.shape)}: {sentence(error)}"
            )
            raise PlacedFault(path, message, "choose another initialiser, or change its arguments") from error
    return [sentence(warning.message) for warning in caught]


def _stand_in(shape: tuple[int, ...], groups: object) -> tuple[int, ...]:
    """A small shape that an initialiser accepts only if it accepts this one; `dirac` divides the first length."""
    if not shape:
        return ()
    first, *others = shape
    divisor = groups if isinstance(groups, int) and groups > 0 else 1
    small = first if first < divisor else first % divisor + divisor
    return (small, *(min(length, 1) for length in others))


def _infer_all(
    config: Config, plans: dict[str, TensorPlan], infer: Infer, context: DeclarationContext, faults: Faults
) -> None:
    """Replace the plans of initial expressions with their inferred shape and dtype; remove those with a problem."""
    declarations = {name: declared for name, _, declared in _declarations(config)}
    with faults.collecting():
        for name in initial_order(plans):
            init = plans[name].init
            if isinstance(init, Computed):
                plan = plans.pop(name)
                if plans.keys() >= declarations.keys() & set(init.reads):  # else a problem was already reported
                    with faults.collecting():
                        plans[name] = _inferred(plan, init, declarations[name], infer, plans, context)


def _inferred(
    plan: TensorPlan,
    init: Computed,
    declared: TensorDeclaration,
    infer: Infer,
    plans: Mapping[str, TensorPlan],
    context: DeclarationContext,
) -> TensorPlan:
    try:
        shape, kind = infer(init, plans)
    except LanguageError as error:
        raise PlacedFault.within(init.path, error) from None
    if declared.shape is None:
        plan = replace(plan, shape=tuple(shape))
    elif not broadcasts(shape, plan.shape):
        message = f"the expression has shape {list(shape)}, and {list(plan.shape)} is declared"
        raise PlacedFault(init.path, message, "leave `shape` out, or change the expression")
    dtype = _dtype(plan.role, declared, kind, _default_dtype(plan.name, declared, plan.shape, context), plan.path)
    plan = replace(plan, dtype=dtype, requires_grad=_requires_grad(plan.name, plan.role, declared, dtype, plan.path))
    _check_size(plan, context.limit)
    return plan
