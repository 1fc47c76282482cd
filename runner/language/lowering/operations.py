"""Checks calls of torch's operations, methods and attributes against the catalogue, and lowers them to nodes."""

from __future__ import annotations

import ast
import functools
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from runner.catalogue import (
    Operation,
    absence,
    attributes,
    check_call,
    find_attribute,
    find_method,
    find_operation,
    methods,
    refusal,
)
from runner.errors import did_you_mean, nearest
from runner.language.dtypes import DTYPES
from runner.language.graph.contraction import einsum
from runner.language.inference.guards import guarded
from runner.language.lowering.counts import excess
from runner.language.lowering.values import Element, describe, example_of, operand, scalar, tensor_of, worst_of
from runner.language.text.arithmetic import FUNCTIONS
from runner.language.text.faults import LanguageError
from runner.language.text.hints import FOREIGN, PREFIXES, cast_hint, module_hint, other_words, suggestion

if TYPE_CHECKING:
    from runner.language.lowering.context import Lowering

_LISTED = "`steprun ops` lists what is"

_INSTEAD: Mapping[str, Callable[..., Any]] = {"torch.einsum": einsum}
"""Functions in place of torch's own, whose bits depend on what else is installed."""

_DETERMINISTIC: Mapping[tuple[str, str], Mapping[str, Any]] = {("linalg.lstsq", "cpu"): {"driver": "gelsd"}}
"""Arguments by operation and device whose default in torch is nondeterministic: `gelsy`, the default driver of
least squares on the CPU, reads uninitialised memory."""

find = find_operation


def dotted_name(node: ast.expr) -> str | None:
    """Returns the dotted name of a chain of attributes, such as `torch.linalg.det`; None if it starts with no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    parts.append(node.id)
    return ".".join(reversed(parts))


def dotted_constant(name: str) -> Any:
    """Returns the number or dtype of a name such as `math.pi`, `torch.inf` or `torch.float64`; else None."""
    module, _, rest = name.rpartition(".")
    if module in ("math", "torch") and rest in ("pi", "e", "inf", "nan", "tau"):
        return getattr(math, rest)
    return DTYPES.get(rest) if module == "torch" else None


def lower_call(lowering: Lowering, node: ast.Call) -> Any:
    """Lowers a call of a scalar function, an operation or a method.

    Raises:
        LanguageError: there is no such operation or argument, or the operation rejects its operands.
    """
    dotted = dotted_name(node.func)
    if dotted is None:
        if isinstance(node.func, ast.Attribute):
            return _method(lowering, node, node.func)
        module = dotted_name(node.func.func) if isinstance(node.func, ast.Call) else None
        raise lowering.fault(
            node.func,
            f"`{lowering.shown(node.func)}` cannot be called",
            (module and module_hint(module)) or "call an operation by its name",
        )
    head = dotted.partition(".")[0]
    if isinstance(node.func, ast.Attribute):
        if dotted.startswith("math.") and not lowering.is_declared("math"):
            return _scalar_function(lowering, node, dotted.removeprefix("math."), dotted)
        operation = find_operation(dotted)
        if operation is not None and not lowering.is_declared(head):
            return _operation(lowering, node, operation, dotted)
        if head in (*PREFIXES, *FOREIGN) and not lowering.is_declared(head):
            raise _unknown_operation(lowering, node, dotted)
        return _method(lowering, node, node.func)
    if dotted == "len":
        return _length(lowering, node)
    if dotted == "range":
        raise lowering.fault(node, "`range` is for loops", "write `for i in range(n):`, or `arange(n)` for a tensor")
    if dotted in FUNCTIONS:
        positional, named = lowering.arguments(node)
        plain = [lowering.plain(value) for value in positional]
        if dotted in ("max", "min") and len(plain) == 1 and isinstance(plain[0], (tuple, list)):
            plain = list(plain[0])  # of sizes: `max(x.shape)`
        operation = find_operation(dotted)
        if not named and plain and all(lowering.is_scalar(value) for value in plain):
            number = lowering.scalar_call(node, FUNCTIONS[dotted], plain)
            if operation is None or not all(isinstance(value, Element) for value in positional):
                return number
            again = functools.partial(_with_tensors, node, operation, dotted)
            return scalar(node, number, positional, again)
        if operation is None:
            given = next((value for value in plain if not lowering.is_scalar(value)), None)
            raise lowering.fault(node, f"`{dotted}` takes scalars, not {describe(given)}", cast_hint(dotted))
        return _emit_operation(lowering, node, operation, dotted, positional, named)
    operation = find_operation(dotted)
    if operation is None:
        raise _unknown_operation(lowering, node, dotted)
    return _operation(lowering, node, operation, dotted)


def read_attribute(lowering: Lowering, node: ast.Attribute, value: Any) -> Any:
    """Lowers `x.T`, `x.shape`, `x.dtype`, and the fields of a named tuple (`max(x, dim=1).values`)."""
    name = node.attr
    shown = lowering.shown(node.value)
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if isinstance(value, fx.Node) and isinstance(example, tuple) and not name.startswith("_"):
        for position, item in enumerate(example):
            if getattr(example, name, None) is item:
                return lowering.emit(node, "call_function", _getitem, (value, position))
    if not isinstance(example, Tensor):
        raise lowering.fault(
            node, f"`{shown}` is {describe(value)} and has no `.{name}`", "attributes are those of tensors"
        )
    found = find_attribute(name)
    if found is None:
        if name == "grad" and lowering.scope.fields:
            message = f"`{shown}` never has a gradient"
            raise lowering.fault(node, message, f"write `{shown}.grad: null` in an `expect`, or leave it out")
        reason = refusal("." + name)
        if reason:
            message, _, hint = reason.partition("; ")
            raise lowering.fault(
                node,
                f"`.{name}` is not available here: {message}",
                _gradient_hint(name) or hint or _LISTED,
            )
        if find_method(name):
            raise lowering.fault(node, f"`.{name}` is a method", f"call it: `{shown}.{name}(…)`")
        pool = [entry.removeprefix(".") for entry in (*attributes(), *methods())]
        pool += [field.removeprefix(f"{shown}.") for field in lowering.scope.fields if field.startswith(f"{shown}.")]
        raise lowering.fault(
            node, f"a tensor has no `.{name}`", did_you_mean(name, pool, "`steprun ops` lists every operation")
        )
    if "scalar" in found.flags and not (isinstance(value, fx.Node) and value.meta.get("dynamic")):
        result = getattr(example, name)
        return tuple(result) if isinstance(result, torch.Size) else result
    if name == "shape":
        sizes = [lowering.emit(node, "call_method", "size", (value, dimension)) for dimension in range(example.dim())]
        return tuple(sizes)
    if "scalar" in found.flags:
        return getattr(example, name)
    return lowering.emit(node, "call_function", getattr, (value, name))


def _gradient_hint(name: str) -> str | None:
    return "gradients are read in `assign`, `expect` and `when`" if name == "grad" else None


def _getitem(values: Any, index: int) -> Any:
    return values[index]


def unknown_calls(lowering: Lowering, tree: ast.AST) -> list[LanguageError]:
    """Returns errors for the calls of unknown operations and functions in a syntax tree, in text order.

    Skips branches and loops, because they may not be lowered.
    """
    known = {"grad", "len", "range", *lowering.scope.functions, *FUNCTIONS}
    found = []
    for node in _always_lowered(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name not in known and find_operation(name) is None:
                found.append(_unknown_operation(lowering, node, name))
    return sorted(found, key=lambda fault: fault.place.as_tuple())


def _always_lowered(tree: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(tree, (ast.IfExp, ast.BoolOp, ast.For)):
        yield tree
        for node in ast.iter_child_nodes(tree):
            yield from _always_lowered(node)


def _unknown_operation(lowering: Lowering, node: ast.Call, name: str) -> LanguageError:
    reason = refusal(name)
    if reason:
        message, _, hint = reason.partition("; ")
        return lowering.fault(
            node.func, f"`{name}` is not available: {message}", hint or "`steprun ops` lists every operation"
        )
    if lowering.is_declared(name):
        return lowering.fault(
            node.func, f"`{name}` is a value and cannot be called", "multiply with `*`, index with `[…]`"
        )
    if name == "classes":
        hint = "write `k: classes(…)` under `constants`, and `k` here"
        return lowering.fault(node.func, "`classes` is for scalar constants, shapes and counts", hint)
    helper = nearest(name, lowering.scope.functions)
    if name.partition(".")[0] in FOREIGN:
        hint = suggestion(name.rpartition(".")[2])
    else:
        hint = f"did you mean `{helper}`?" if helper else other_words(name) or suggestion(name)
    return lowering.fault(node.func, f"there is no operation `{name}`", hint)


def _scalar_function(lowering: Lowering, node: ast.Call, name: str, shown: str) -> Any:
    positional, named = lowering.arguments(node)
    plain = [lowering.plain(value) for value in positional]
    if name not in FUNCTIONS:
        raise lowering.fault(
            node.func, f"`{shown}` is not a scalar function", did_you_mean(name, FUNCTIONS, "see Python's `math`")
        )
    if named:
        raise lowering.fault(node, f"`{shown}` takes no argument by name", "write it by position")
    for value in plain:
        if not lowering.is_scalar(value):
            hint = (
                f"write `{name}` for tensors"
                if find_operation(name)
                else "scalars are numbers, scalar constants, sizes and `iteration`"
            )
            raise lowering.fault(node, f"`{shown}` takes scalars, not {describe(value)}", hint)
    return lowering.scalar_call(node, FUNCTIONS[name], plain)


def _length(lowering: Lowering, node: ast.Call) -> Any:
    if len(node.args) != 1 or node.keywords:
        raise lowering.fault(node, "`len` takes one argument", "write `len(x)`")
    value = lowering.plain(lowering.value(node.args[0]))
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if isinstance(example, Tensor) and example.dim() > 0:
        if value.meta.get("dynamic"):
            return lowering.emit(node, "call_method", "size", (value, 0))
        return example.shape[0]
    if isinstance(example, (tuple, list)):
        return len(example)
    raise lowering.fault(
        node,
        f"`{lowering.shown(node.args[0])}` is {describe(value)} and has no length",
        "`len` is the size of the first dimension",
    )


def _with_tensors(node: ast.Call, operation: Operation, shown: str, lowering: Lowering, operands: Sequence[Any]) -> Any:
    return _emit_operation(lowering, node, operation, shown, list(operands), {})


def _operation(lowering: Lowering, node: ast.Call, operation: Operation, shown: str) -> Any:
    positional, named = lowering.arguments(node)
    return _emit_operation(lowering, node, operation, shown, positional, named)


def _emit_operation(
    lowering: Lowering, node: ast.Call, operation: Operation, shown: str, positional: list[Any], named: dict[str, Any]
) -> Any:
    _check(lowering, node, operation, shown, positional, named)
    args = tuple(operand(lowering, operation, position, value) for position, value in enumerate(positional))
    kwargs = {name: operand(lowering, operation, name, value) for name, value in named.items()}
    kwargs.update(_factory_arguments(lowering, node, operation, args, kwargs))
    for name, value in _DETERMINISTIC.get((operation.name, lowering.scope.device), {}).items():
        if kwargs.get(name) is None:
            kwargs[name] = value
    target = _target(operation.target)
    target = _existing(lowering, node, operation, shown, target)
    target = guarded(operation, target, worst_of(args), worst_of(kwargs)) or target
    made = lowering.emit(
        node,
        "call_function",
        target,
        args,
        kwargs,
        random="random" in operation.flags,
        dynamic="dynamic" in operation.flags and not _has_known_shape(operation, args, kwargs),
    )
    if "measure" in operation.flags:
        made.meta["measure"] = operation.flags
    return _folded(lowering, operation, made)


def _method(lowering: Lowering, node: ast.Call, function: ast.Attribute) -> Any:
    value = tensor_of(lowering, lowering.value(function.value))
    name = function.attr
    shown = f".{name}"
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if not isinstance(example, Tensor):
        raise lowering.fault(
            function,
            f"`{lowering.shown(function.value)}` is {describe(value)} and has no method `{shown}`",
            "methods are those of tensors",
        )
    method = find_method(name)
    if method is None:
        reason = refusal(shown)
        if reason:
            message, _, hint = reason.partition("; ")
            raise lowering.fault(function, f"`{shown}` is not available: {message}", hint or _LISTED)
        pool = [entry.removeprefix(".") for entry in methods()]
        raise lowering.fault(
            function, f"a tensor has no method `{shown}`", did_you_mean(name, pool, "`steprun ops` lists every method")
        )
    positional, named = lowering.arguments(node)
    _check(lowering, node, method, shown, positional, named, value)
    args = (value, *(operand(lowering, method, position, item) for position, item in enumerate(positional)))
    kwargs = {key: operand(lowering, method, key, item) for key, item in named.items()}
    target = _existing(lowering, node, method, shown, getattr(Tensor, name, None))
    guarded_method = guarded(method, target, worst_of(args), worst_of(kwargs))
    made = lowering.emit(
        node,
        "call_method" if guarded_method is None else "call_function",
        guarded_method or name,
        args,
        kwargs,
        random="random" in method.flags,
        dynamic="dynamic" in method.flags and not _has_known_shape(method, args, kwargs),
    )
    return _folded(lowering, method, made)


def _has_known_shape(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an argument fixes the shape of a result that depends on data without it."""
    name = operation.name.rpartition(".")[2]
    if name == "one_hot":
        classes = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
        return type(classes) is int and classes > 0
    if name == "repeat_interleave":
        repeats = kwargs.get("repeats", args[1] if len(args) > 1 else None)
        return type(repeats) is int
    return False


def _folded(lowering: Lowering, operation: Operation, made: fx.Node) -> Any:
    """Replaces the node of a size, count or dtype, which is known now, by its value."""
    if "scalar" not in operation.flags or any(argument.meta.get("dynamic") for argument in made.all_input_nodes):
        return made
    if any(not isinstance(argument.meta["example"], Tensor) for argument in made.all_input_nodes):
        return made
    example = made.meta["example"]
    lowering.graph.erase_node(made)
    return tuple(example) if isinstance(example, torch.Size) else example


def _check(
    lowering: Lowering,
    node: ast.Call,
    operation: Operation,
    shown: str,
    positional: list[Any],
    named: dict[str, Any],
    receiver: fx.Node | None = None,
) -> None:
    """Rejects arguments and values that the catalogue does not allow, and counts that are too large."""
    fault = check_call(operation, positional, named, shown)
    if fault is None:
        operands = positional if receiver is None else [receiver, *positional]
        many = excess(operation, operands, named)
        if many:
            raise lowering.fault(node, many, "use fewer")
        return
    places: dict[int | str | None, ast.AST] = {keyword.arg: keyword for keyword in node.keywords}
    places.update(enumerate(node.args))
    raise lowering.fault(places.get(fault.argument, node), fault.message, fault.hint)


def _factory_arguments(
    lowering: Lowering, node: ast.Call, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the dtype and device that the config supplies to factory functions."""
    if "factory" not in operation.flags:
        return {}
    supplied: dict[str, Any] = {}
    if operation.bare_name in ("tensor", "scalar_tensor", "as_tensor"):
        for value in _flat((*args, *kwargs.values())):
            if isinstance(value, fx.Node) and isinstance(value.meta["example"], Tensor):
                raise lowering.fault(
                    node,
                    f"`{operation.bare_name}` of tensors would lose their gradients",
                    "write `stack([…])` or `cat([…])`",
                )
    if kwargs.get("dtype") is None:
        wants = "default_dtype" in operation.flags
        if "inferred_dtype" in operation.flags:
            wants = any(isinstance(example_of(value), float) for value in _flat((*args, *kwargs.values())))
        if wants:
            real_only = operation.name.startswith("signal.") or operation.bare_name.endswith("_window")
            supplied["dtype"] = lowering.scope.dtype.to_real() if real_only else lowering.scope.dtype
    if lowering.scope.device != "cpu":
        supplied["device"] = lowering.scope.device
    return supplied


def _flat(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, (tuple, list)) else [value])
    return found


@functools.cache
def _existing(
    lowering: Lowering, node: ast.Call, operation: Operation, shown: str, target: Callable[..., Any] | None
) -> Callable[..., Any]:
    """Returns `target`, the function of an entry. Raises `LanguageError` if the installed torch does not have it."""
    found = absence(operation.name, torch.__version__)
    if target is not None and found is None:
        return target
    unknown = (f"does not exist in torch {torch.__version__}", "write it with other operations, or update torch")
    message, hint = found or unknown
    raise lowering.fault(node.func, f"`{shown}` {message}", hint)


def _target(path: str) -> Callable[..., Any] | None:
    """Returns the function at a dotted path; None if this version of torch has none."""
    if path in _INSTEAD:
        return _INSTEAD[path]
    module, _, name = path.rpartition(".")
    try:
        function: Callable[..., Any] | None = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return function
