"""Builds the text of every table: the names of torch, their signatures and flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import nn

from runner.catalogue.versions import spans
from tools.catalogue.denied import ARGUMENTS, ARGUMENTS_OF, IN_PLACE, PRIVATE, VALUES, refusal
from tools.catalogue.flags import flags
from tools.catalogue.signatures import Parameter, Signature, parse, python_signature, render, signatures
from tools.catalogue.written import read_written

NAMESPACES: dict[str, ModuleType] = {
    "F": torch.nn.functional,
    "torch": torch,
    "linalg": torch.linalg,
    "special": torch.special,
    "fft": torch.fft,
    "masked": torch.masked,
    "signal.windows": torch.signal.windows,
}


WRITTEN = read_written()


def all_tables() -> dict[str, str]:
    """Returns the text of every table by file name."""
    operations, methods = dict(operation_signatures()), dict(method_signatures())
    return {
        "operations.txt": _lines(operations),
        "methods.txt": _lines(methods),
        "attributes.txt": "".join(f"{name}{_flags(name)}\n" for name in sorted(attribute_names())),
        "optimizers.txt": "".join(f"{line}\n" for line in sorted(optimizer_lines())),
        "initialisers.txt": "".join(f"{line}\n" for line in sorted(initialiser_lines())),
        "denied.txt": "".join(f"{line}\n" for line in denied_lines()),
    }


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yields every public function of the namespaces, after its name in the tables."""
    for prefix, module in NAMESPACES.items():
        for name in sorted(dir(module)):
            value = getattr(module, name)
            if not name.startswith("_") and callable(value) and not _is_type(value):
                yield f"{prefix}.{name}", value


def public_members() -> Iterator[tuple[str, Any]]:
    """Yields every public method and attribute of a tensor, after its name `.name`."""
    for name in sorted(dir(torch.Tensor)):
        if not name.startswith("_"):
            yield f".{name}", inspect.getattr_static(torch.Tensor, name)


def operation_signatures() -> Iterator[tuple[str, list[Signature]]]:
    """Yields the operations of the installed torch, then those, written by hand, of other tested releases only."""
    functions = dict(public_functions())
    for name, function in functions.items():
        if refusal(name) is None:
            yield name, _signatures(name, function)
    for name in spans():
        if name not in functions and name.partition(".")[0] in NAMESPACES:
            yield name, [parse(text) for text in WRITTEN[name]]


def method_signatures() -> Iterator[tuple[str, list[Signature]]]:
    for name, member in public_members():
        if refusal(name) is None and callable(member):
            yield name, _signatures(name, member)


def attribute_names() -> Iterator[str]:
    for name, member in public_members():
        if refusal(name) is None and not callable(member):
            yield name


def optimizer_lines() -> Iterator[str]:
    """Yields `adam Adam(lr: float = 0.001, …)` for every optimizer of `torch.optim` with dense gradients."""
    for name, value in vars(torch.optim).items():
        if inspect.isclass(value) and value is not torch.optim.Optimizer and name != "SparseAdam":
            arguments = [p for p in python_signature(value.__init__, method=True) if p.name != "params"]
            arguments += _arguments_of_other_releases(name.lower(), {argument.name for argument in arguments})
            yield f"{name.lower()} {name}({render(tuple(arguments))})"


def _arguments_of_other_releases(optimizer: str, here: set[str]) -> Iterator[Parameter]:
    """Yields the arguments, written by hand, that an optimizer has only in other tested releases of torch."""
    for text in WRITTEN.get(optimizer, ()):
        for parameter in parse(text):
            if parameter.name not in here:
                yield replace(parameter, keyword_only=True)


def initialiser_lines() -> Iterator[str]:
    """Yields `normal normal_(mean: float = 0.0, std: float = 1.0)` for every function of `torch.nn.init`."""
    for name, value in vars(nn.init).items():
        if name.endswith("_") and not name.startswith("_") and inspect.isfunction(value):
            arguments = tuple(p for p in python_signature(value) if p.name not in ("tensor", "generator"))
            yield f"{name[:-1]} {name}({render(arguments)})"


def denied_lines() -> Iterator[str]:
    """Yields `name: reason`: two patterns, then names, `(argument)`, `name(argument)`, `name(argument='value')`."""
    yield f"*_: {IN_PLACE}"
    yield f"_*: {PRIVATE}"
    found = {f"({argument})": reason for argument, reason in ARGUMENTS.items()}
    found |= {f"{name}({argument})": reason for (name, argument), reason in ARGUMENTS_OF.items()}
    found |= VALUES
    for name, _ in (*public_functions(), *public_members()):
        reason = refusal(name)
        if reason and not name.endswith("_"):
            found[name] = reason
    for key in sorted(found):
        yield f"{key}: {found[key]}"


def _signatures(name: str, value: Any) -> list[Signature]:
    if name in WRITTEN:
        return [parse(text) for text in WRITTEN[name]]
    found = signatures(name, value)
    if not found:
        raise LookupError(f"no signature of {name}: write one, or deny it")
    return found


def _lines(entries: dict[str, list[Signature]]) -> str:
    return "".join(
        f"{name}({render(signature)}){_flags(name)}\n" for name in sorted(entries) for signature in entries[name]
    )


def _flags(name: str) -> str:
    found = flags(name)
    return "  # " + " ".join(found) if found else ""


def _is_type(value: object) -> bool:
    return inspect.isclass(value) or type(value).__module__.startswith("typing")
