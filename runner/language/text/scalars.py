"""Compiles a scalar expression to a number, or to a function of the names that change during a run.

Used wherever the language needs a number (shapes, counts, hyperparameters), and by lowering for the arithmetic of
sizes and scalar constants. Does not import torch.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.errors import did_you_mean
from runner.language.text.arithmetic import (
    BINARY,
    COMPARE,
    CONSTANTS,
    COUNTERS,
    FAULTS,
    FUNCTIONS,
    UNARY,
    Names,
    Scalar,
    fault_text,
)
from runner.language.text.faults import LanguageError, place_of, source_of
from runner.language.text.parse import REMEMBERED, TOO_DEEP, parse_expression


def evaluate(text: str, names: Names) -> Scalar:
    """Evaluates a scalar expression to a number.

    Args:
        text: for instance ``epochs * 10`` or ``lr / sqrt(width)``.
        names: scalars by name; a tuple for a 1-d constant that can be indexed.
    Raises:
        LanguageError: the text is not a scalar expression, or a name in it is unknown.
    """
    result = compile_scalar(text, names)({})
    assert isinstance(result, (int, float))
    return result


def names_in(text: str) -> frozenset[str]:
    """Returns the value names that an expression reads. Raises `LanguageError` if the text is not an expression."""
    return _remembered_names(text) if len(text) <= REMEMBERED else _names_in(text)


def _names_in(text: str) -> frozenset[str]:
    nodes = list(ast.walk(parse_expression(text)))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called)


_remembered_names = functools.lru_cache(maxsize=256)(_names_in)


def attributes_in(text: str) -> list[ast.Attribute]:
    """Returns every attribute of a name, as `train.x`. Raises `LanguageError` if the text is not an expression."""
    nodes = ast.walk(parse_expression(text))
    return [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]


def calls_in(text: str) -> set[str]:
    """Returns the bare names that an expression calls. Raises `LanguageError` if the text is not an expression."""
    calls = (node.func for node in ast.walk(parse_expression(text)) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


@dataclass(frozen=True, slots=True)
class RunningFunction:
    """A function that also reads the running names. Its arguments are checked by name.

    `call(values, arguments)` gets the values of the running names and the arguments of the call. Each argument is a
    function of such values, or a tuple of functions for a list. Arguments are computed only when called.
    """

    arguments: tuple[str, ...]
    required: frozenset[str]
    call: Callable[[Names, Mapping[str, Any]], Any]
    refused: Mapping[str, str] = field(default_factory=dict)  # argument → reason


def compile_scalar(
    text: str,
    names: Names,
    running: Sequence[str] = (),
    extra: Mapping[str, RunningFunction] | None = None,
    refused: Mapping[str, str] | None = None,
) -> Callable[[Names], Scalar]:
    """Compiles a scalar expression to a function of the running names. All other names are resolved once, here.

    Args:
        text: a scalar expression.
        names: fixed scalars by name (tuples can be indexed).
        running: names whose values are arguments of each call (`t`, `iteration`).
        extra: functions in addition to `FUNCTIONS` (schedules).
        refused: functions that users may expect here, and why they are not available.
    Raises:
        LanguageError: now, if the text is invalid; at a call, if the arithmetic fails.
    """
    compiler = _Compiler(text, names, frozenset(running), extra or {}, refused or {})
    try:
        compiled = compiler.compile(parse_expression(text))
    except RecursionError:
        raise LanguageError(*TOO_DEEP) from None

    def call(values: Names) -> Scalar:
        try:
            result = compiled(values)
        except RecursionError:  # compiled under a higher recursion limit
            raise LanguageError(*TOO_DEEP) from None
        if not isinstance(result, (int, float)):
            raise LanguageError(f"`{text.strip()}` is not a number", _instead_of_a_list(text.strip(), result, running))
        return result

    return call


def _instead_of_a_list(text: str, found: object, running: Collection[str]) -> str:
    if text.isidentifier() and isinstance(found, Sequence):
        return f"take an element of it: `{text}[{'t - 1' if 't' in running else '0'}]`"
    return "write a number or an expression over scalar constants"


_Compiled = Callable[[Names], Any]


class _Compiler:
    def __init__(
        self,
        text: str,
        names: Names,
        running: frozenset[str],
        extra: Mapping[str, RunningFunction],
        refused: Mapping[str, str],
    ) -> None:
        self.text, self.names, self.running, self.extra, self.refused = text, names, running, extra, refused

    def fault(self, node: ast.AST, message: str, hint: str | None = None) -> LanguageError:
        return LanguageError(message, hint, place_of(node, self.text))

    def compile(self, node: ast.expr) -> _Compiled:
        method = getattr(self, f"compile_{type(node).__name__.lower()}", None)
        if method is None:
            raise self.fault(
                node,
                f"`{source_of(node, self.text)}` is not a scalar expression",
                "use numbers, scalar constants and `math` functions",
            )
        compiled: _Compiled = method(node)
        return compiled

    def guarded(self, node: ast.AST, function: Callable[..., Any], *parts: _Compiled) -> _Compiled:
        def call(values: Names) -> Any:
            arguments = [part(values) for part in parts]
            try:
                return function(*arguments)
            except FAULTS as error:
                shown = source_of(node, self.text)
                raise self.fault(node, f"`{shown}`: {fault_text(error)}", "change the numbers in it") from None

        return call

    def compile_constant(self, node: ast.Constant) -> _Compiled:
        value = node.value
        if not isinstance(value, (int, float)):
            raise self.fault(
                node, f"`{source_of(node, self.text)}` is not a number", "use numbers and scalar constants"
            )
        return lambda values: value

    def compile_name(self, node: ast.Name) -> _Compiled:
        name = node.id
        if name in self.running:
            return lambda values: values[name]
        if name in self.names:
            value = self.names[name]
        elif name in CONSTANTS:
            value = CONSTANTS[name]
        else:
            known = [*(known for known in self.names if known.isidentifier()), *self.running]
            raise self.fault(node, f"`{name}` is not a scalar constant", self.instead_of(name, known))
        return lambda values: value

    def instead_of(self, name: str, known: Sequence[str]) -> str:
        """Returns a hint for a name that is not a number here."""
        if name in COUNTERS:
            return (
                "`t` counts the steps of an optimizer"
                if "t" in self.running
                else "this is computed once, before the first step: use numbers and scalar constants"
            )
        if not known:
            return "declare it under `constants:` as a bare number"
        found = did_you_mean(name, known)
        return found or f"scalar constants are {', '.join(sorted(known))}"

    def compile_attribute(self, node: ast.Attribute) -> _Compiled:
        if (
            isinstance(node.value, ast.Name)
            and node.value.id in ("math", "torch")
            and isinstance(getattr(math, node.attr, None), float)
        ):
            value = getattr(math, node.attr)
            return lambda values: value
        name = source_of(node, self.text)
        if name in self.names:  # a size: `train.x.shape`
            size = self.names[name]
            return lambda values: size
        sizes = [known for known in self.names if known.partition(".")[0] == name.partition(".")[0] and "." in known]
        hint = f"sizes are those of {', '.join(sizes)}" if sizes else "use numbers and scalar constants"
        raise self.fault(node, f"`{name}` is not a scalar", did_you_mean(name, sizes, hint))

    def compile_binop(self, node: ast.BinOp) -> _Compiled:
        spine: list[ast.BinOp] = [node]
        while isinstance(spine[-1].left, ast.BinOp):
            spine.append(spine[-1].left)
        compiled = self.compile(spine[-1].left)
        for part in reversed(spine):
            function = BINARY.get(type(part.op))
            if function is None:
                raise self.fault(part, "`@` needs tensors", "multiply numbers with `*`")
            compiled = self.guarded(part, function, compiled, self.compile(part.right))
        return compiled

    def compile_unaryop(self, node: ast.UnaryOp) -> _Compiled:
        return self.guarded(node, UNARY[type(node.op)], self.compile(node.operand))

    def compile_boolop(self, node: ast.BoolOp) -> _Compiled:
        parts = [self.compile(value) for value in node.values]
        if isinstance(node.op, ast.And):

            def every(values: Names) -> Any:
                result: Any = True
                for part in parts:
                    result = part(values)
                    if not result:
                        break
                return result

            return every

        def some(values: Names) -> Any:
            result: Any = False
            for part in parts:
                result = part(values)
                if result:
                    break
            return result

        return some

    def compile_compare(self, node: ast.Compare) -> _Compiled:
        parts = [self.compile(value) for value in (node.left, *node.comparators)]
        tests = [COMPARE[type(op)] for op in node.ops]

        def compare(values: Names) -> bool:
            left = parts[0](values)
            for test, part in zip(tests, parts[1:], strict=True):
                right = part(values)
                if not test(left, right):
                    return False
                left = right
            return True

        return self.guarded(node, lambda result: result, compare)

    def compile_ifexp(self, node: ast.IfExp) -> _Compiled:
        test, body, otherwise = self.compile(node.test), self.compile(node.body), self.compile(node.orelse)
        return lambda values: body(values) if test(values) else otherwise(values)

    def compile_tuple(self, node: ast.Tuple | ast.List) -> _Compiled:
        parts = [self.compile(element) for element in node.elts]
        return lambda values: tuple(part(values) for part in parts)

    compile_list = compile_tuple

    def compile_subscript(self, node: ast.Subscript) -> _Compiled:
        if isinstance(node.slice, (ast.Slice, ast.Tuple)):
            raise self.fault(node, "a scalar is indexed by one number", "write for instance `rates[t - 1]`")
        return self.guarded(node, _item, self.compile(node.value), self.compile(node.slice))

    def compile_call(self, node: ast.Call) -> _Compiled:
        name = source_of(node.func, self.text)
        if name in self.extra:
            return self.compile_running_call(node, name, self.extra[name])
        if name == "classes":
            return self.compile_classes(node)
        if name == "len" and len(node.args) == 1 and isinstance(node.args[0], ast.Attribute) and not node.keywords:
            shape = self.names.get(f"{source_of(node.args[0], self.text)}.shape")  # `len(train.x)`
            if shape is not None:
                return lambda values: shape[0]
        bare = name.removeprefix("math.")
        function = FUNCTIONS.get(bare)
        if function is None and bare in self.refused:
            raise self.fault(node.func, f"`{bare}` is not available here", self.refused[bare])
        if function is None:
            hint = did_you_mean(
                bare,
                [*self.extra, *FUNCTIONS],
                "scalar functions are Python's `math`, and abs, min, max, round, int, float",
            )
            if any(f"{name[:end]}.shape" in self.names for end, sign in enumerate(name) if sign == "."):
                hint = f"compute it as a tensor: `init: {{expression: {source_of(node, self.text)}}}`"
            raise self.fault(node.func, f"`{name}` is not a scalar function", hint)
        if node.keywords:
            raise self.fault(node.keywords[0], f"`{name}` takes no argument by name", "write it by position")
        return self.guarded(node, function, *[self.compile(argument) for argument in node.args])

    def compile_classes(self, node: ast.Call) -> _Compiled:
        """Compiles `classes(SOURCE.COLUMN)`, the number of classes of a batch column."""
        called = source_of(node, self.text).replace(" ", "")
        if called in self.names:
            value = self.names[called]
            return lambda values: value
        known = [each for each in self.names if each.startswith("classes(")]
        hint = did_you_mean(called, known, f"there is {', '.join(known)}" if known else None)
        shown = source_of(node.args[0], self.text) if node.args else "it"
        message = f"`{shown}` is no column with classes"
        raise self.fault(node, message, hint or "write `classes: {y: sorted}` in its source, and `classes(train.y)`")

    def compile_running_call(self, node: ast.Call, name: str, function: RunningFunction) -> _Compiled:
        bound: dict[str, ast.expr] = {}
        known = ", ".join(function.arguments)
        if len(node.args) > len(function.arguments):
            message = f"`{name}` takes {len(function.arguments)} arguments, {len(node.args)} are given"
            raise self.fault(node, message, f"they are {known}")
        bound.update(zip(function.arguments, node.args, strict=False))
        for keyword in node.keywords:
            argument = keyword.arg or ""
            if argument in function.refused:
                message = f"the argument `{argument}` of `{name}` is refused"
                raise self.fault(keyword, message, function.refused[argument])
            if argument not in function.arguments:
                hint = did_you_mean(argument, function.arguments, f"it takes {known}")
                raise self.fault(keyword, f"`{name}` has no argument `{argument}`", hint)
            if argument in bound:
                raise self.fault(keyword, f"the argument `{argument}` is given twice", "remove one of them")
            bound[argument] = keyword.value
        missing = [argument for argument in function.arguments if argument in function.required - bound.keys()]
        if missing:
            raise self.fault(node, f"`{name}` needs `{missing[0]}`", f"it takes {known}")
        arguments = {argument: self.compile_argument(value) for argument, value in bound.items()}

        def call(values: Names) -> Any:
            try:
                return function.call(values, arguments)
            except FAULTS as error:
                shown = source_of(node, self.text)
                raise self.fault(node, f"`{shown}`: {fault_text(error)}", "change its arguments") from None

        return call

    def compile_argument(self, node: ast.expr) -> Any:
        """Compiles an argument for evaluation at each call; also strings and None, and a list element by element."""
        if isinstance(node, (ast.List, ast.Tuple)):
            return tuple(self.compile(element) for element in node.elts)
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str)):
            value = node.value
            return lambda values: value
        return self.compile(node)


def _item(values: Any, index: Any) -> Any:
    if not isinstance(values, tuple):
        raise TypeError("a number cannot be indexed")
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError("an index is an integer")
    if not -len(values) <= index < len(values):
        raise IndexError(f"index {index} is outside 0 … {len(values) - 1}")
    return values[index]
