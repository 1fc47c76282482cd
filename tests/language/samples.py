"""PyTorch's operator database as expressions: a sample input becomes text and the tensors that it names."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.catalogue import check_call, find_attribute, find_method, find_operation

UNREACHABLE = dict(
    line.split(": ", 1)
    for line in Path(__file__).with_name("unreachable_operations.txt").read_text(encoding="utf-8").splitlines()
)
"""The database's functions that the language cannot say, and why."""

OPERATORS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "__radd__": ("+", operator.add),
    "__rdiv__": ("/", operator.truediv),
    "__rmul__": ("*", operator.mul),
    "__rmatmul__": ("@", operator.matmul),
    "__rmod__": ("%", operator.mod),
    "__rpow__": ("**", operator.pow),
    "__rsub__": ("-", operator.sub),
    "__rand__": ("&", operator.and_),
    "__ror__": ("|", operator.or_),
    "__rxor__": ("^", operator.xor),
}
"""Reflected operators, written as operators: Python calls them where the left side is a number."""

REORDERED: dict[tuple[str, str], tuple[int, ...]] = {
    ("einsum", ""): (1, 0),
    ("where", ""): (1, 0, 2),
    ("normal", "number_mean"): (1, 0),
    ("nn.functional.embedding", ""): (1, 0),
    ("nn.functional.embedding_bag", ""): (1, 0),
    **{("polygamma", f"polygamma_n_{n}"): (1, 0) for n in range(5)},
    ("special.polygamma", "special_polygamma_n_0"): (1, 0),
}
"""Where the database's function takes its arguments in another order than torch's."""

OF_A_PRODUCT = {("svd_lowrank", ""), ("pca_lowrank", ""), ("linalg.pinv", "singular")}
"""Where the database's function first multiplies its two arguments: `a @ b.mT`."""

FIRST_TWO = {("linalg.lstsq", "grad_oriented")}
"""Where the database's function gives the first two of its results."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "device": ("cpu", torch.device("cpu")),
    "layout": (torch.strided,),
    "requires_grad": (False,),
    "pin_memory": (False,),
    "memory_format": (torch.preserve_format,),
}
"""Arguments that the language leaves out, at values that change nothing."""


class UnsayableError(Exception):
    """This sample has no expression: the text says why."""


@dataclass(slots=True)
class Writer:
    """Writes values as expression text; tensors get names."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def write(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, (tuple, list)):
            inside = ", ".join(self.write(item) for item in value)
            if isinstance(value, list):
                return f"[{inside}]"
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        if isinstance(value, slice):
            raise UnsayableError("a slice outside an index")
        if isinstance(value, torch.dtype):
            return str(value).removeprefix("torch.")
        if isinstance(value, (float, complex)) and not isinstance(value, bool):
            return self.number(value)
        if value is None or value is Ellipsis or isinstance(value, (bool, int, str)):
            return "..." if value is Ellipsis else repr(value)
        raise UnsayableError(f"a {type(value).__name__} as an argument")

    def number(self, value: float | complex) -> str:
        if isinstance(value, complex):
            if value.real == 0 and math.isfinite(value.imag):
                return f"{value.imag!r}j"
            raise UnsayableError("a complex number with a real part")
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan" if math.isnan(value) else repr(value))

    def tensor(self, value: Tensor) -> str:
        if value.layout is not torch.strided or value.is_quantized:
            raise UnsayableError("a tensor that is not dense")
        found = next((name for name, tensor in self.tensors.items() if tensor is value), None)
        name = found or f"x{len(self.tensors)}"
        self.tensors[name] = value
        return name

    def index(self, value: Any) -> str:
        if isinstance(value, tuple):
            return ", ".join(self.index(item) for item in value) + ("," if len(value) == 1 else "")
        if isinstance(value, slice):
            return ":".join("" if part is None else repr(part) for part in (value.start, value.stop, value.step))
        return self.write(value)


@dataclass(frozen=True, slots=True)
class Said:
    """A sample as an expression."""

    call: str  # the text of the call
    tensors: dict[str, Tensor]  # what its names stand for
    direct: Callable[[], Any]  # the same, called on the same tensors without the language
    process: Callable[[Any], Any]  # the database's own step before differentiating: drops what is not unique


def say(entry: Any, sample: Any) -> Said:
    """The expression of one sample of one entry of the operator database.

    Raises:
        UnsayableError: the language has no such function, argument or value.
    """
    writer = Writer()
    name = entry.name
    arguments = [sample.input, *sample.args]
    keywords = {key: value for key, value in sample.kwargs.items() if not _is_neutral(key, value)}

    def direct() -> Any:
        if name in OPERATORS:
            return OPERATORS[name][1](arguments[1], arguments[0])
        if name == "rand_like":  # the database calls `randn_like` here
            return torch.rand_like(sample.input, **sample.kwargs)
        return entry.op(sample.input, *sample.args, **sample.kwargs)

    if name == "__getitem__":
        call = f"{writer.write(arguments[0])}[{writer.index(arguments[1])}]"
    elif name == "slice":
        call = _slice(writer, arguments, keywords)
    elif name == "to":
        call = _conversion(writer, arguments, keywords)
    elif name in OPERATORS:
        call = f"{writer.write(arguments[1])} {OPERATORS[name][0]} {writer.write(arguments[0])}"
    elif find_operation(f"torch.{name}"):
        call = _function(writer, entry, arguments, keywords)
    elif find_method(name):
        call = _method(writer, name, arguments, keywords)
    elif find_attribute(name):
        call = f"{writer.write(arguments[0])}.{name}"
    else:
        raise UnsayableError("not in the catalogue")
    return Said(call, writer.tensors, direct, sample.output_process_fn_grad)


def samples(entry: Any, dtype: torch.dtype, gradients: bool) -> Iterator[Any]:
    """The database's samples of one entry, always the same ones.

    Its own `entry.sample_inputs` gives them too, but looks through the whole call stack for the running test each time.
    """
    state = torch.Generator().manual_seed(0).get_state()
    found = iter(entry.sample_inputs_func(entry, "cpu", dtype, gradients))
    while True:
        torch.set_rng_state(state)
        sample = next(found, None)
        if sample is None:
            return
        state = torch.get_rng_state()
        yield sample


def initial(entry: Any) -> str:
    """The first letter of a function's name: what tests of the whole database are grouped by."""
    return str(entry.name.rpartition(".")[2].lstrip("_")[0])


def said_samples(entry: Any, dtype: torch.dtype, gradients: bool, count: int, tries: int = 60) -> Iterator[Said]:
    """Up to `count` samples that have an expression, of the first `tries`."""
    found = 0
    for sample in itertools.islice(samples(entry, dtype, gradients), tries):
        try:
            yield say(entry, sample)
        except UnsayableError:
            continue
        found += 1
        if found == count:
            return


def _is_neutral(key: str, value: Any) -> bool:
    if key == "distance_function":  # what `triplet_margin_with_distance_loss` takes without it
        return isinstance(value, torch.nn.PairwiseDistance) and (value.norm, value.eps) == (2.0, 1e-6)
    return any(type(value) is type(neutral) and value == neutral for neutral in NEUTRAL.get(key, ()))


def _function(writer: Writer, entry: Any, arguments: list[Any], keywords: dict[str, Any]) -> str:
    """A call by the bare name where that is torch's own, else with its prefix."""
    name, key = entry.name, (entry.name, entry.variant_test_name)
    operation = find_operation(f"torch.{name}")
    assert operation is not None
    bare = find_operation(name)
    shown = name if bare is operation or bare == operation else f"torch.{name}"
    if key in REORDERED:
        arguments = [arguments[position] for position in REORDERED[key][: len(arguments)]] + arguments[3:]
    written = [writer.write(argument) for argument in arguments]
    if key in OF_A_PRODUCT:
        written, arguments = [f"{written[0]} @ {written[1]}.mT", *written[2:]], arguments[1:]
    if check_call(operation, arguments, keywords):
        raise UnsayableError("an argument that is left out")
    call = f"{shown}({_inside(writer, written, keywords)})"
    return f"{call}[:2]" if key in FIRST_TWO else call


def _method(writer: Writer, name: str, arguments: list[Any], keywords: dict[str, Any]) -> str:
    method = find_method(name)
    assert method is not None
    if not isinstance(arguments[0], Tensor):
        raise UnsayableError("a method of something else")
    if check_call(method, arguments[1:], keywords):
        raise UnsayableError("an argument that is left out")
    written = [writer.write(argument) for argument in arguments]
    return f"{written[0]}.{name}({_inside(writer, written[1:], keywords)})"


def _slice(writer: Writer, arguments: list[Any], keywords: dict[str, Any]) -> str:
    """`torch.ops.aten.slice` is an index."""
    x, given = arguments[0], dict(zip(("dim", "start", "end", "step"), arguments[1:], strict=False)) | keywords
    part = slice(given.get("start"), given.get("end"), given.get("step"))
    return f"{writer.write(x)}[{writer.index((slice(None),) * given.get('dim', 0) + (part,))}]"


def _conversion(writer: Writer, arguments: list[Any], keywords: dict[str, Any]) -> str:
    """`x.to(device, dtype, non_blocking, copy)` as `x.to(dtype)`."""
    if keywords:
        raise UnsayableError("an argument that is left out")
    wanted = [argument for argument in arguments[1:] if isinstance(argument, (Tensor, torch.dtype))]
    return f"{writer.write(arguments[0])}.to({writer.write(wanted[0] if wanted else arguments[0].dtype)})"


def _inside(writer: Writer, written: list[str], keywords: dict[str, Any]) -> str:
    return ", ".join([*written, *(f"{name}={writer.write(value)}" for name, value in keywords.items())])
