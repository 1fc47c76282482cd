"""Calls of every operation of the catalogue, most of them nearly right: torch's own samples with arguments changed."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.catalogue import Operation, methods, operations
from tests.hostile.values import changed, made
from tests.language.samples import REORDERED, UnsayableError, Writer, samples

OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "@", "&", "|", "^", "==", "<", "<=")
SAMPLES = 12  # of each entry of the operator database


@dataclass(frozen=True, slots=True)
class Call:
    """An expression, and the tensors that it names."""

    text: str
    tensors: dict[str, Tensor]

    def __str__(self) -> str:
        lines = [self.text]
        for name, value in self.tensors.items():
            shown = value.flatten()[:12].tolist()
            lines.append(f"  {name} = {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} {shown}")
        return "\n".join(lines)


@functools.cache
def names() -> tuple[str, ...]:
    """Every operation and method of the catalogue, and the operators."""
    return (*operations(), *methods(), *(f"operator {sign}" for sign in OPERATORS))


def prepare(name: str) -> None:
    """Make torch's own samples of an operation, which takes a while."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _samples(name.rpartition(".")[2])


def any_call(seed: str, name: str) -> Call:
    """The call that belongs to a seed.

    Raises:
        UnsayableError: an argument has no text.
    """
    chance = random.Random(f"{seed} {name}")
    if name.startswith("operator "):
        return _operator(name.removeprefix("operator "), chance)
    operation = methods()[name] if name.startswith(".") else operations()[name]
    found = _samples(operation.bare_name)
    args, kwargs = _sample(operation, chance.choice(found)) if found and chance.random() < 0.8 else (None, {})
    if args is None:
        args, kwargs = _generated(operation, chance)
    kinds = _kinds(operation)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3))):
        _change(operation, args, kwargs, kinds, chance)
    writer = Writer()
    texts = [writer.write(argument) for argument in args]
    named = [f"{key}={writer.write(value)}" for key, value in kwargs.items()]
    if name.startswith("."):
        text = f"{texts[0] if texts else '1'}{name}({', '.join([*texts[1:], *named])})"
    else:
        text = f"{name}({', '.join([*texts, *named])})"
    return Call(text, writer.tensors)


def _operator(sign: str, chance: random.Random) -> Call:
    left, right = made("Tensor", chance), made(chance.choice(("Tensor", "Scalar")), chance)
    if isinstance(right, Tensor) and chance.random() < 0.7:
        right = changed(left, "Tensor", chance)
    sides = [left, right] if chance.random() < 0.8 else [right, left]
    writer = Writer()
    texts = [writer.write(side) for side in sides]
    return Call(f"({texts[0]}) {sign} ({texts[1]})", writer.tensors)


def _change(
    operation: Operation, args: list[Any], kwargs: dict[str, Any], kinds: dict[str, str], chance: random.Random
) -> None:
    how = chance.random()
    order = list(kinds)
    if how < 0.1 and len(args) > 1:
        one, other = chance.sample(range(len(args)), 2)
        args[one], args[other] = args[other], args[one]
        return
    if how < 0.35 and kinds:
        free = [name for name in order[len(args) :] if name not in kwargs]
        if free:
            name = chance.choice(free)
            kwargs[name] = made(kinds[name] or "int", chance)
            return
    places: list[int | str] = [*range(len(args)), *kwargs]
    if not places:
        return
    place = chance.choice(places)
    if isinstance(place, int):
        kind = kinds.get(order[place], "") if place < len(order) else ""
        args[place] = changed(args[place], kind or "int", chance)
    else:
        kwargs[place] = changed(kwargs[place], kinds.get(place, "") or "int", chance)


def _kinds(operation: Operation) -> dict[str, str]:
    """The arguments by name, each with a type that some overload gives it."""
    found = {"input": "Tensor"} if operation.name.startswith(".") else {}
    return found | {argument.name: argument.type for overload in operation.overloads for argument in overload}


def _generated(operation: Operation, chance: random.Random) -> tuple[list[Any], dict[str, Any]]:
    overload = chance.choice(operation.overloads) if operation.overloads else ()
    args: list[Any] = [made("Tensor", chance)] if operation.name.startswith(".") else []
    kwargs: dict[str, Any] = {}
    for argument in overload:
        if argument.default is not None and chance.random() < 0.6:
            continue
        value = made(argument.type or "Tensor", chance)
        if argument.keyword_only or kwargs or (argument.default is not None and chance.random() < 0.5):
            kwargs[argument.name] = value
        elif argument.variadic:
            args += value if isinstance(value, list) else [value]
        else:
            args.append(value)
    return args, kwargs


def _sample(operation: Operation, sample: tuple[list[Any], dict[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = sample
    known = set(_kinds(operation))
    return list(args), {name: value for name, value in kwargs.items() if name in known}


@functools.cache
def _entries() -> dict[str, list[Any]]:
    from torch.testing._internal.common_methods_invocations import op_db

    found: dict[str, list[Any]] = {}
    for entry in op_db:
        found.setdefault(entry.name.rpartition(".")[2], []).append(entry)
    return found


@functools.cache
def _samples(bare_name: str) -> Sequence[tuple[list[Any], dict[str, Any]]]:
    """Arguments of torch's own samples of an operation, in its own order."""
    found: list[tuple[list[Any], dict[str, Any]]] = []
    for entry in _entries().get(bare_name, ()):
        for dtype in (torch.float32, torch.int64):
            if dtype not in entry.dtypes:
                continue
            try:
                for number, sample in enumerate(samples(entry, dtype, False)):
                    if number == SAMPLES:
                        break
                    arguments = [sample.input, *sample.args]
                    order = REORDERED.get((entry.name, entry.variant_test_name))
                    if order:
                        arguments = [arguments[position] for position in order[: len(arguments)]] + arguments[3:]
                    if _is_small(arguments):
                        found.append((arguments, dict(sample.kwargs)))
            except (RuntimeError, ValueError, TypeError):  # the database has none for this dtype after all
                continue
    return found


def _is_small(arguments: Sequence[Any]) -> bool:
    return all(argument.numel() < 5000 for argument in arguments if isinstance(argument, Tensor))


__all__ = ["Call", "UnsayableError", "any_call", "names", "prepare"]
