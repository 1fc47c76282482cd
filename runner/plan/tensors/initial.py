"""Initial values of tensors: their plans, and their computation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.optim.plans import Path
from runner.plan.data.casting import first_misfit
from runner.plan.data.dtypes import Number
from runner.plan.data.files import ArrayFile, cast, read


@dataclass(frozen=True, slots=True)
class Fill:
    """All elements have one value."""

    value: Number

    def __str__(self) -> str:
        return str(self.value).lower() if isinstance(self.value, bool) else repr(self.value)


@dataclass(frozen=True, slots=True)
class Listed:
    """The numbers of a nested list, in row-major order."""

    values: tuple[Number, ...]

    def __str__(self) -> str:
        return "list"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A function of `torch.nn.init`, random or not, with its own random stream."""

    name: str  # "normal"
    function: str  # "normal_"
    arguments: Mapping[str, Number | str]
    stacked: int  # number of leading dimensions, whose slices are drawn separately, in order
    seed: int

    def __str__(self) -> str:
        inside = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.name}({inside})" if inside else self.name


@dataclass(frozen=True, slots=True)
class Computed:
    """An expression over other tensors' initial values."""

    text: str
    path: Path
    reads: tuple[str, ...]  # tensors that must be computed first

    def __str__(self) -> str:
        return self.text.strip()


@dataclass(frozen=True, slots=True)
class Loaded:
    """An array in a data file."""

    array: ArrayFile
    path: Path
    dtype_path: Path  # the path of the declared dtype, or `path`

    def __str__(self) -> str:
        return self.array.name


Initial = Fill | Listed | Drawn | Computed | Loaded
Evaluate = Callable[[Computed], Tensor]


def make(init: Initial, shape: tuple[int, ...], dtype: torch.dtype, evaluate: Evaluate) -> Tensor:
    """The initial value of a tensor, on the CPU, in its own memory.

    Args:
        init: the plan of the value.
        shape, dtype: shape and dtype of the result.
        evaluate: returns the value of an expression over the initial values computed so far.
    Raises:
        FileFault: a data file has changed since planning, or its values cannot be read.
        ValueError: an expression or a file does not have the planned shape, or an expression has a value that the
            dtype cannot represent.
        RuntimeError: torch does not support the dtype.
    """
    match init:
        case Fill(value):
            return _filled(value, shape, dtype)
        case Listed(values):
            return torch.tensor(values, dtype=dtype).reshape(shape)
        case Drawn():
            with warnings.catch_warnings(action="ignore"):  # planning already reported them
                return draw(init, shape, dtype)
        case Computed():
            computed = _expanded(evaluate(init).detach(), shape)
            _check_fits(computed, dtype)
            return computed.to(dtype).clone(memory_format=torch.contiguous_format)
        case Loaded(array):
            tensor = read(array)
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{array.name} has shape {tuple(tensor.shape)} now, and had {shape} when the run was planned"
                )
            return cast(tensor, dtype, array)


def draw(init: Drawn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Fill an empty tensor by calling the function after `torch.manual_seed(init.seed)`; restores the global stream.

    With `stacked`, the function is called on each leading slice in order, with one stream.
    """
    tensor = torch.empty(shape, dtype=dtype)
    function = getattr(torch.nn.init, init.function)
    slices = tensor.flatten(0, init.stacked - 1) if init.stacked else tensor.unsqueeze(0)
    with _seeded(init.seed):
        for part in slices if tensor.numel() else ():
            function(part, **init.arguments)
    return tensor


def _filled(value: Number, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype.itemsize == 1 and dtype.is_floating_point:  # torch cannot fill float8
        return torch.full(shape, value, dtype=torch.float32).to(dtype)
    return torch.full(shape, value, dtype=dtype)


def _expanded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return tensor.expand(shape)
    except RuntimeError as error:
        raise ValueError(f"the expression has shape {tuple(tensor.shape)}, and {shape} is declared") from error


def _check_fits(value: Tensor, dtype: torch.dtype) -> None:
    if value.dtype.is_complex and not dtype.is_complex:
        raise ValueError(f"the expression is {dtype_name(value.dtype)}, and {dtype_name(dtype)} has no imaginary part")
    found = first_misfit(value, dtype)
    if found is not None:
        index, number, reason = found
        at = f" at {list(index)}" if index else ""
        raise ValueError(f"the expression gives {number}{at}, which does not fit {dtype_name(dtype)}: it {reason}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    generator = torch.default_generator  # not every initialiser uses a generator that it is given
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
