"""The syntax tree of an expression to a `torch.fx.Graph`, node by node, with every fault placed.

Values while lowering are Python numbers, strings, tuples and lists (*fixed*), and `fx.Node`s, whose `meta["example"]`
is what the node gives on the example tensors. A node whose example is a number is a *running* scalar.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from runner.errors import did_you_mean, listing
from runner.language import operations
from runner.language.codegen import compile_graph
from runner.language.diagnosis import explain
from runner.language.faults import LanguageError, place_of
from runner.language.inference import Inference, TooLarge
from runner.language.parse import assigned_names, parse_expression, parse_statements, source_of
from runner.language.runtime import branch, gradient, lookup, watch
from runner.language.scalars import BINARY, COMPARE, CONSTANTS, FAULTS, FUNCTIONS, UNARY, bounded, fault_text
from runner.language.scope import Function, Scope

MAX_DISPLAY = 10_000  # elements of a list or tuple
MAX_INLINED = 64  # functions within functions

_TENSOR_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_TENSOR_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_FOR_TENSORS = {
    "and": "`logical_and(a, b)` or `a & b`",
    "or": "`logical_or(a, b)` or `a | b`",
    "not": "`logical_not(a)` or `~a`",
    "if": "`where(condition, a, b)`",
    "chain": "`(a < b) & (b < c)`",
}


@dataclass(frozen=True, slots=True)
class Lookup:
    """An element of a 1-d constant: a scalar, but a tensor where an operation wants one."""

    name: str
    index: Any  # an int, or a running scalar's node
    element: Any  # the number, or None for a running index


@dataclass(frozen=True, slots=True)
class Lowered:
    """An expression's graph, before anything is cut."""

    graph: fx.Graph
    values: Mapping[str, Any]  # named values in order: nodes, fixed scalars, tuples of nodes
    result: str  # the name of the last statement's value
    random: bool
    gradients: bool  # whether it holds `grad(y, x)`


def lower_statements(text: str, scope: Scope, inference: Inference) -> Lowered:
    """Lower the statements of an `expression`.

    Raises:
        LanguageError: any fault, at its place in the text (or, with `origin`, in a function's).
        TooLarge: a bound of `inference` is passed.
    """
    statements = parse_statements(text)
    lowering = _start(text, statements, scope, inference)
    with inference.session():
        result = lowering.block(statements)
    return Lowered(lowering.graph, lowering.named, result, lowering.shared.random, lowering.shared.gradients)


def lower_expression(text: str, scope: Scope, inference: Inference) -> Lowered:
    """Lower one expression; its value is named `value`. Raises as `lower_statements` does."""
    expression = parse_expression(text)
    lowering = _start(text, [expression], scope, inference)
    with inference.session():
        lowering.named["value"] = lowering.plain(lowering.value(expression))
    return Lowered(lowering.graph, lowering.named, "value", lowering.shared.random, lowering.shared.gradients)


def uses_grad(text: str, scope: Scope) -> bool:
    """Whether an expression, or a function it may call, differentiates: then inference needs autograd."""
    bodies = [text, *(function.text for function in scope.functions.values())]
    return any("grad" in body for body in bodies)


@dataclass(slots=True)
class _Shared:
    """What one expression, its functions and its branches have in common."""

    scope: Scope
    inference: Inference
    random: bool = False
    gradients: bool = False
    inlined: int = 0


def _start(text: str, trees: list[Any], scope: Scope, inference: Inference) -> _Lowering:
    return _Lowering(text, None, _Shared(scope, inference), fx.Graph(), {}, _differentiated(trees))


def _differentiated(trees: list[Any]) -> frozenset[str]:
    """The names that some `grad(y, names)` in these trees differentiates by."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "grad" and len(node.args) == 2:
                found.update(name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name))
    return frozenset(found)


class _Lowering:
    """Lowers one text into one graph. Functions and branches get one of their own over the same `_Shared`."""

    def __init__(
        self,
        text: str,
        origin: Hashable | None,
        shared: _Shared,
        graph: fx.Graph,
        local: dict[str, Any],
        watched: frozenset[str],
        parent: _Lowering | None = None,
    ) -> None:
        self.text = text
        self.origin = origin
        self.shared = shared
        self.scope = shared.scope
        self.graph = graph
        self.local = local
        self.named: dict[str, Any] = {}
        self.watched = watched
        self.parent = parent  # of a branch: the graph it captures from
        self.inputs: dict[str, fx.Node] = {}
        self.captured: dict[fx.Node, fx.Node] = {}

    # faults

    def fault(self, node: ast.AST, message: str, hint: str | None = None) -> LanguageError:
        return LanguageError(message, hint, place_of(node, self.text), self.origin)

    def shown(self, node: ast.AST) -> str:
        return source_of(node, self.text)

    # statements

    def block(self, statements: Sequence[ast.stmt]) -> str:
        """Lower statements in order; the name of the last one's value."""
        last = "value"
        for position, statement in enumerate(statements):
            final = position == len(statements) - 1
            if isinstance(statement, ast.Assign):
                last = self.assign(statement)
            elif isinstance(statement, ast.For):
                last = self.loop(statement) or last
            elif isinstance(statement, ast.Expr):
                if not final:
                    raise self.fault(statement, "this value is not used", "give it a name: `name = …`, or remove the line")
                self.named["value"] = self.plain(self.value(statement.value))
                last = "value"
        return last

    def loop(self, statement: ast.For) -> str | None:
        assert isinstance(statement.target, ast.Name) and isinstance(statement.iter, ast.Call)
        bounds = [self.integer(argument) for argument in statement.iter.args]
        try:
            counts = range(*bounds)
        except (TypeError, ValueError) as error:
            raise self.fault(statement.iter, f"`{self.shown(statement.iter)}`: {error}", "write `range(n)`") from None
        if len(counts) > self.shared.inference.bounds.nodes:
            raise self.fault(
                statement.iter, f"this loop runs {len(counts):,} times, and is unrolled", "use a `repeat` step, or a tensor operation"
            )
        name = statement.target.id
        before = self.local.get(name, _ABSENT)
        last = None
        for count in counts:
            self.count(statement)
            self.local[name] = count
            for inner in statement.body:
                if isinstance(inner, ast.Expr):
                    raise self.fault(inner, "this value is not used", "give it a name: `name = …`, or remove the line")
            last = self.block(statement.body)
        if before is _ABSENT:
            self.local.pop(name, None)
        else:
            self.local[name] = before
        return last

    def assign(self, statement: ast.Assign) -> str:
        value = self.value(statement.value)
        target = statement.targets[0]
        self.unpack(target, value, statement)
        names = assigned_names(statement, self.text)
        return names[-1].id

    def unpack(self, target: ast.expr, value: Any, statement: ast.Assign) -> None:
        if isinstance(target, ast.Name):
            self.bind(target, self.plain(value))
            return
        assert isinstance(target, (ast.Tuple, ast.List))
        parts = self.parts(value)
        if parts is None:
            raise self.fault(statement.value, f"`{self.shown(statement.value)}` is one value", "assign it to one name")
        if len(parts) != len(target.elts):
            raise self.fault(
                statement, f"{len(target.elts)} names for {len(parts)} values", "write as many names as there are values"
            )
        for element, part in zip(target.elts, parts, strict=True):
            self.unpack(element, part, statement)

    def bind(self, target: ast.Name, value: Any) -> None:
        name = target.id
        role = self.scope.describe(name) if self.parent is None and self.origin is None else None
        if role and self.scope.writable:
            raise self.fault(target, f"`{name}` is a {role} already", "choose another name for this value")
        if isinstance(value, fx.Node) and name in self.watched and isinstance(value.meta["example"], Tensor):
            value = self.emit(target, "call_function", watch, (value,))
        if isinstance(value, fx.Node):
            value.meta.setdefault("name", name)
        if self.origin is None:
            self.named.pop(name, None)
        self.local.pop(name, None)
        self.named[name] = value

    # values

    def value(self, node: ast.expr) -> Any:
        """Lower one expression to a value."""
        lower: Callable[[ast.expr], Any] = _LOWER[type(node)].__get__(self)
        return lower(node)

    def constant(self, node: ast.Constant) -> Any:
        return node.value

    def name(self, node: ast.Name) -> Any:
        name = node.id
        found = self.find(name)
        if found is not _ABSENT:
            return self.lift(found)
        scope = self.scope
        if name in scope.tensors:
            return self.input(name, scope.tensors[name])
        if name in scope.scalars:
            return scope.scalars[name]
        if name in scope.running:
            return self.input(name, scope.running[name])
        if name in scope.fixed:
            return scope.fixed[name]
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in operations.DTYPES:
            return operations.DTYPES[name]
        raise self.unknown(node)

    def find(self, name: str) -> Any:
        """The value of a local or named value here or around; a function sees what was named before its call."""
        for lowering in self.visible():
            if name in lowering.local and (lowering.parent is None or lowering.origin == self.origin):
                return lowering.local[name]
            if name in lowering.named:
                return lowering.named[name]
        return _ABSENT

    def visible(self) -> Iterator[_Lowering]:
        """This text and what encloses it: a branch is inside its text; a function is inside the whole expression."""
        lowering: _Lowering | None = self
        while lowering is not None:
            yield lowering
            parent = lowering.parent
            while parent is not None and parent.origin not in (lowering.origin, None):
                parent = parent.parent
            lowering = parent

    def unknown(self, node: ast.Name) -> LanguageError:
        name = node.id
        if operations.find(name) or name in self.scope.functions or name in FUNCTIONS:
            return self.fault(node, f"`{name}` is a function", f"call it: `{name}(…)`")
        if name in ("iteration", "training", "t"):
            return self.fault(node, f"`{name}` is not known here", "it is a running scalar of steps and hyperparameters")
        known = self.scope.values()
        for lowering in self.visible():
            known |= {*lowering.local, *lowering.named}
        known.discard("value")
        otherwise = f"known names are {listing(sorted(known))}" if known else "declare it under `parameters:` or `constants:`"
        return self.fault(node, f"`{name}` is not declared", did_you_mean(name, known, otherwise))

    def input(self, name: str, example: Any) -> fx.Node:
        """The placeholder of a name that comes from outside the expression."""
        root = self
        while root.parent is not None:
            root = root.parent
        if name not in root.inputs:
            placeholder = root.graph.placeholder("v_" + name.replace(".", "_"))
            placeholder.meta = {"example": example, "input": name}
            root.inputs[name] = placeholder
            if name in root.watched and isinstance(example, Tensor):
                root.inputs[name] = root.emit(None, "call_function", watch, (placeholder,))
        found: fx.Node = self.lift(root.inputs[name])
        return found

    def lift(self, value: Any) -> Any:
        """`value`, usable in this graph: a branch captures what its surroundings computed."""
        if isinstance(value, fx.Node):
            if value.graph is self.graph:
                return value
            if value not in self.captured:
                inner = self.graph.placeholder(f"c{len(self.captured)}")
                inner.meta = {"example": value.meta["example"], "dynamic": value.meta.get("dynamic", False)}
                self.captured[value] = inner
            return self.captured[value]
        if isinstance(value, (tuple, list)):
            return type(value)(self.lift(item) for item in value)
        if isinstance(value, Lookup):
            return Lookup(value.name, self.lift(value.index), value.element)
        return value

    def display(self, node: ast.Tuple | ast.List) -> Any:
        items = [self.plain(self.value(element)) for element in node.elts]
        return tuple(items) if isinstance(node, ast.Tuple) else items

    # scalars

    def plain(self, value: Any) -> Any:
        """`value` with lookups as the scalars they are."""
        if isinstance(value, Lookup):
            if value.element is not None:
                return value.element
            table = lookup(value.name, self.scope.tables[value.name])
            return self.emit(None, "call_function", table, (value.index,))
        return value

    def is_scalar(self, value: Any) -> bool:
        if isinstance(value, fx.Node):
            return isinstance(value.meta["example"], (bool, int, float))
        return isinstance(value, (bool, int, float))

    def integer(self, node: ast.expr) -> int:
        value = self.plain(self.value(node))
        if isinstance(value, fx.Node):
            raise self.fault(node, f"`{self.shown(node)}` is not fixed before the run", "use numbers, scalar constants and sizes")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(node, f"`{self.shown(node)}` is not an integer", "write an integer, or `int(…)`")
        return value

    def scalar_call(self, node: ast.AST, function: Callable[..., Any], arguments: list[Any]) -> Any:
        """Scalar arithmetic: done now where all is fixed, else a node that runs."""
        if not any(isinstance(argument, fx.Node) for argument in arguments):
            try:
                return bounded(function(*arguments))
            except FAULTS as error:
                hint = "change the numbers it is made of"
                raise self.fault(node, f"`{self.shown(node)}`: {fault_text(error)}", hint) from None
        return self.emit(node, "call_function", function, tuple(arguments))

    def condition(self, node: ast.expr, construct: str) -> Any:
        value = self.plain(self.value(node))
        if not self.is_scalar(value):
            found = f"`{self.shown(node)}` is {operations.describe(value)}"
            raise self.fault(node, f"{found}; `{construct}` takes scalar conditions", f"for tensors write {_FOR_TENSORS[construct]}")
        return value

    # operators

    def binary(self, node: ast.BinOp) -> Any:
        spine = [node]
        while isinstance(spine[-1].left, ast.BinOp):
            spine.append(spine[-1].left)
        left = self.plain(self.value(spine[-1].left))
        for part in reversed(spine):
            left = self.combine(part, left, self.plain(self.value(part.right)))
        return left

    def combine(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        if self.is_scalar(left) and self.is_scalar(right):
            function = BINARY.get(type(node.op))
            if function is None:
                raise self.fault(node, "`@` needs tensors", "multiply numbers with `*`")
            return self.scalar_call(node, function, [left, right])
        if isinstance(left, (tuple, list)) or isinstance(right, (tuple, list)):
            return self.join(node, left, right)
        self.refuse_text(node, left, right)
        return self.emit(node, "call_function", _TENSOR_BINARY[type(node.op)], (left, right))

    def join(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        if isinstance(node.op, ast.Add) and type(left) is type(right) and len(left) + len(right) <= MAX_DISPLAY:
            return left + right
        if isinstance(node.op, ast.Mult):
            items, times = (left, right) if isinstance(left, (tuple, list)) else (right, left)
            if isinstance(times, int) and len(items) * times <= MAX_DISPLAY:
                return items * times
        raise self.fault(node, f"`{self.shown(node)}` is not available on lists", "make a tensor of it: `tensor([…])` or `stack([…])`")

    def refuse_text(self, node: ast.AST, *values: Any) -> None:
        for value in values:
            if isinstance(value, str) or value is None or value is Ellipsis or isinstance(value, torch.dtype):
                raise self.fault(node, f"`{self.shown(node)}` computes with {operations.describe(value)}", "use tensors and numbers")

    def unary(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not):
            return self.scalar_call(node, UNARY[ast.Not], [self.condition(node.operand, "not")])
        value = self.plain(self.value(node.operand))
        if self.is_scalar(value):
            return self.scalar_call(node, UNARY[type(node.op)], [value])
        if isinstance(value, complex) and isinstance(node.op, ast.USub):
            return -value
        self.refuse_text(node, value)
        return self.emit(node, "call_function", _TENSOR_UNARY[type(node.op)], (value,))

    def compare(self, node: ast.Compare) -> Any:
        values = [self.plain(self.value(part)) for part in (node.left, *node.comparators)]
        if len(node.ops) == 1 and not all(self.is_scalar(value) for value in values):
            if all(isinstance(value, (str, torch.dtype, tuple, list, type(None))) for value in values):
                return self.scalar_call(node, COMPARE[type(node.ops[0])], values)
            self.refuse_text(node, *values)
            return self.emit(node, "call_function", COMPARE[type(node.ops[0])], tuple(values))
        for value, part in zip(values, (node.left, *node.comparators), strict=True):
            if not self.is_scalar(value):
                found = f"`{self.shown(part)}` is {operations.describe(value)}"
                raise self.fault(part, f"{found}; a chain of comparisons takes scalars", f"for tensors write {_FOR_TENSORS['chain']}")
        result: Any = True
        for op, left, right in zip(node.ops, values, values[1:], strict=False):
            test = self.scalar_call(node, COMPARE[type(op)], [left, right])
            result = test if result is True else self.scalar_call(node, operator.and_, [result, test])
        return result

    def boolean(self, node: ast.BoolOp) -> Any:
        construct = "and" if isinstance(node.op, ast.And) else "or"
        first = self.condition(node.values[0], construct)
        rest = node.values[1] if len(node.values) == 2 else ast.copy_location(ast.BoolOp(node.op, node.values[1:]), node.values[1])

        def remaining(lowering: _Lowering) -> Any:
            return lowering.condition(rest, construct)

        def known(lowering: _Lowering) -> Any:
            return lowering.lift(first)

        if construct == "and":
            return self.choose(node, first, remaining, known)
        return self.choose(node, first, known, remaining)

    def conditional(self, node: ast.IfExp) -> Any:
        condition = self.condition(node.test, "if")
        return self.choose(node, condition, lambda inner: inner.value(node.body), lambda inner: inner.value(node.orelse))

    def choose(
        self, node: ast.AST, condition: Any, chosen: Callable[[_Lowering], Any], otherwise: Callable[[_Lowering], Any]
    ) -> Any:
        """Only the chosen side is computed: now where the condition is fixed, else at run time."""
        if not isinstance(condition, fx.Node):
            return chosen(self) if condition else otherwise(self)
        sides = []
        for lower in (chosen, otherwise):
            inner = _Lowering(self.text, self.origin, self.shared, fx.Graph(), {}, frozenset(), self)
            result = inner.plain(lower(inner))
            inner.graph.output(result)
            sides.append((inner, result, compile_graph(inner.graph, self.origin)))
        (left, left_result, left_function), (right, right_result, right_function) = sides
        captured = [*left.captured, *right.captured]
        target = branch(left_function, right_function, len(left.captured))
        arguments = (condition, *(self.lift(value) for value in captured))
        example = operations.example_of(left_result if condition.meta["example"] else right_result)
        made = self.emit(
            node, "call_function", target, arguments, example=example, dynamic=_differ(left_result, right_result)
        )
        made.meta.update(branch=True, random=self.shared.random, gradients=self.shared.gradients)
        return made

    # indexing and attributes

    def subscript(self, node: ast.Subscript) -> Any:
        value = self.plain(self.value(node.value))
        index = self.index(node.slice)
        if isinstance(node.value, ast.Name) and node.value.id in self.scope.tables and node.value.id not in self.named:
            found = self.element(node, node.value.id, index)
            if found is not None:
                return found
        parts = self.parts(value)
        if parts is not None and not (isinstance(value, fx.Node) and isinstance(value.meta["example"], Tensor)):
            return self.item(node, parts, index)
        if not isinstance(value, fx.Node) or self.is_scalar(value):
            raise self.fault(node, f"`{self.shown(node.value)}` is {operations.describe(value)} and cannot be indexed", "index a tensor, a tuple or a list")
        dynamic = any(isinstance(part, fx.Node) and operations.is_mask(part) for part in (index if isinstance(index, tuple) else (index,)))
        return self.emit(node, "call_function", operator.getitem, (value, index), dynamic=dynamic)

    def element(self, node: ast.Subscript, name: str, index: Any) -> Lookup | None:
        table = self.scope.tables[name]
        if isinstance(index, bool):
            return None
        if isinstance(index, int):
            if not -len(table) <= index < len(table):
                raise self.fault(node, f"index {index} is outside `{name}`, which has {len(table)} elements", "use a smaller index")
            return Lookup(name, index, table[index])
        if isinstance(index, fx.Node) and isinstance(index.meta["example"], int):
            return Lookup(name, index, None)
        return None

    def item(self, node: ast.Subscript, parts: list[Any], index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(parts[index])
        if isinstance(index, bool) or not isinstance(index, int):
            raise self.fault(node.slice, "this index is not fixed before the run", "index with a number")
        if not -len(parts) <= index < len(parts):
            raise self.fault(node, f"index {index} is outside `{self.shown(node.value)}`, which has {len(parts)} elements", "use a smaller index")
        return parts[index]

    def index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Slice):
            parts = [None if part is None else self.plain(self.value(part)) for part in (node.lower, node.upper, node.step)]
            for part, source in zip(parts, (node.lower, node.upper, node.step), strict=True):
                if part is not None and source is not None and not self.is_scalar(part):
                    raise self.fault(source, f"`{self.shown(source)}` is {operations.describe(part)}; a slice takes integers", "use `index_select` or `gather`")
            return slice(*parts)
        if isinstance(node, ast.Tuple):
            return tuple(self.index(element) for element in node.elts)
        return self.plain(self.value(node))

    def parts(self, value: Any) -> list[Any] | None:
        """The elements of a tuple, a list, or a node that gives several values."""
        if isinstance(value, (tuple, list)):
            return list(value)
        if isinstance(value, fx.Node):
            example = value.meta["example"]
            if isinstance(example, (tuple, list)):
                return [self.emit(None, "call_function", operator.getitem, (value, i)) for i in range(len(example))]
            if isinstance(example, Tensor) and example.dim() > 0 and not value.meta.get("dynamic") and example.shape[0] <= MAX_DISPLAY:
                return [self.emit(None, "call_function", operator.getitem, (value, i)) for i in range(example.shape[0])]
        return None

    def attribute(self, node: ast.Attribute) -> Any:
        dotted = operations.dotted_name(node)
        if dotted is not None and not self.is_declared(dotted.split(".")[0]):
            found = operations.dotted_constant(dotted)
            if found is not None:
                return found
            if operations.find(dotted):
                raise self.fault(node, f"`{dotted}` is a function", f"call it: `{dotted}(…)`")
        if isinstance(node.value, ast.Name):
            key = f"{node.value.id}.{node.attr}"
            if key in self.scope.fields and node.value.id not in self.local:
                return self.input(key, self.scope.fields[key])
            if dotted is not None and dotted.split(".")[0] in operations.PREFIXES and not self.is_declared(node.value.id):
                raise self.fault(node, f"`{dotted}` is not an operation", operations.suggestion(dotted))
        value = self.plain(self.value(node.value))
        return operations.read_attribute(self, node, value)

    def is_declared(self, name: str) -> bool:
        return self.find(name) is not _ABSENT or name in self.scope.values()

    # calls

    def call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id in self.scope.functions:
            return self.inline(node, self.scope.functions[node.func.id])
        return operations.lower_call(self, node)

    def arguments(self, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        """The lowered arguments of a call; a name given twice is a fault."""
        positional = [self.value(argument) for argument in node.args]
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            assert keyword.arg is not None
            if keyword.arg in named:
                raise self.fault(keyword, f"argument `{keyword.arg}` is given twice", "remove one of them")
            named[keyword.arg] = self.value(keyword.value)
        return positional, named

    def differentiate(self, node: ast.Call) -> Any:
        """`grad(y, x)`."""
        if len(node.args) != 2 or node.keywords:
            raise self.fault(node, "`grad` takes two arguments", "write `grad(y, x)` or `grad(y, [x1, x2])`")
        y = self.plain(self.value(node.args[0]))
        by = node.args[1]
        names = by.elts if isinstance(by, (ast.List, ast.Tuple)) else [by]
        for name in names:
            if not isinstance(name, ast.Name):
                raise self.fault(name, f"`{self.shown(name)}` is not a name", "differentiate by a name: give the value one first")
        xs = [self.value(name) for name in names]
        for value, source in ((y, node.args[0]), *zip(xs, names, strict=True)):
            if not isinstance(value, fx.Node) or not isinstance(value.meta["example"], Tensor):
                raise self.fault(source, f"`{self.shown(source)}` is {operations.describe(value)}", "`grad` takes tensors")
            example = value.meta["example"]
            if not (example.is_floating_point() or example.is_complex()):
                raise self.fault(source, f"`{self.shown(source)}` is {operations.describe(value)}", "only floating-point tensors have derivatives")
        if y.meta["example"].numel() != 1:
            raise self.fault(node.args[0], f"`{self.shown(node.args[0])}` has shape {tuple(y.meta['example'].shape)}; `grad` takes one element", "reduce it: `.sum()`")
        self.shared.gradients = True
        single = not isinstance(by, (ast.List, ast.Tuple))
        return self.emit(node, "call_function", gradient, (y, xs[0] if single else tuple(xs)))

    def inline(self, node: ast.Call, function: Function) -> Any:
        positional, named = self.arguments(node)
        header = function.header
        bound: dict[str, Any] = {}
        if len(positional) > len(header.arguments):
            raise self.fault(node, f"`{header.name}` takes {len(header.arguments)} arguments, {len(positional)} are given", f"it is declared as `{function.declaration}`")
        for name, value in zip(header.arguments, positional, strict=False):
            bound[name] = self.plain(value)
        for name, value in named.items():
            if name not in header.arguments:
                hint = did_you_mean(name, header.arguments, f"it is declared as `{function.declaration}`")
                raise self.fault(node, f"`{header.name}` has no argument `{name}`", hint)
            if name in bound:
                raise self.fault(node, f"argument `{name}` of `{header.name}` is given twice", "remove one of them")
            bound[name] = self.plain(value)
        defaulted = header.arguments[len(header.arguments) - len(header.defaults) :]
        for name, default in zip(defaulted, header.defaults, strict=True):
            if name not in bound:
                bound[name] = self.value(default)
        missing = [name for name in header.arguments if name not in bound]
        if missing:
            raise self.fault(node, f"`{header.name}` needs {listing(f'`{name}`' for name in missing)}", f"it is declared as `{function.declaration}`")
        if self.shared.inlined >= MAX_INLINED:
            raise self.fault(node, "functions call one another too deeply", "write some of them as one")
        self.shared.inlined += 1
        inner = _Lowering(function.text, function.origin, self.shared, self.graph, {}, _differentiated(list(function.statements)), self)
        inner.captured = self.captured
        for name, value in bound.items():
            if name in inner.watched and isinstance(value, fx.Node) and isinstance(value.meta["example"], Tensor):
                value = self.emit(node, "call_function", watch, (value,))
            inner.local[name] = value
        result = inner.named[inner.block(function.statements)]
        self.shared.inlined -= 1
        return result

    # nodes

    def count(self, node: ast.AST | None) -> None:
        try:
            self.shared.inference.count()
        except TooLarge as error:
            raise self.too_large(node, error) from None

    def too_large(self, node: ast.AST | None, error: TooLarge) -> LanguageError:
        if node is None:
            return LanguageError(str(error), None, origin=self.origin)
        text = str(error)
        message, _, hint = text.partition("; ")
        return self.fault(node, f"`{self.shown(node)}`: {message}" if not isinstance(node, ast.For) else message, hint or None)

    def emit(
        self,
        node: ast.AST | None,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        *,
        random: bool = False,
        dynamic: bool = False,
        example: Any = None,
    ) -> fx.Node:
        """Add one operation to the graph, and run it on the examples."""
        kwargs = kwargs or {}
        self.count(node)
        operands = _nodes((args, kwargs))
        if example is None:
            example = self.infer(node, kind, target, args, kwargs, random)
        made = self.graph.create_node(kind, target, args, kwargs)
        tainted = dynamic or any(operand.meta.get("dynamic") for operand in operands)
        made.meta = {"example": example, "dynamic": tainted and not (isinstance(example, Tensor) and example.dim() == 0)}
        if random:
            made.meta["random"] = True
        if node is not None:
            made.meta["place"] = place_of(node, self.text)
        if self.origin is not None:
            made.meta["origin"] = self.origin
        self.shared.random |= random
        return made

    def infer(
        self, node: ast.AST | None, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], random: bool
    ) -> Any:
        examples, named = operations.example_of(args), operations.example_of(kwargs)
        function = operator.methodcaller(target, *examples[1:], **named) if kind == "call_method" else target
        try:
            if kind == "call_method":
                return self.shared.inference.run(function, examples[:1], {}, random)
            return self.shared.inference.run(function, examples, named, random)
        except TooLarge as error:
            raise self.too_large(node, error) from None
        except Exception as error:  # torch raises what it likes; each becomes a fault at its place
            if node is None:
                raise
            raise explain(error, node, self.text, self.origin, target, examples, named) from error


_ABSENT: Any = object()

_LOWER: Mapping[type[ast.expr], Any] = {
    ast.Constant: _Lowering.constant,
    ast.Name: _Lowering.name,
    ast.Tuple: _Lowering.display,
    ast.List: _Lowering.display,
    ast.BinOp: _Lowering.binary,
    ast.UnaryOp: _Lowering.unary,
    ast.Compare: _Lowering.compare,
    ast.BoolOp: _Lowering.boolean,
    ast.IfExp: _Lowering.conditional,
    ast.Subscript: _Lowering.subscript,
    ast.Attribute: _Lowering.attribute,
    ast.Call: _Lowering.call,
    ast.Slice: _Lowering.index,
}


def _nodes(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(value, lambda node: found.append(node) or node)  # type: ignore[func-returns-value]
    return found


def _differ(left: Any, right: Any) -> bool:
    one, other = operations.example_of(left), operations.example_of(right)
    return isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape != other.shape
