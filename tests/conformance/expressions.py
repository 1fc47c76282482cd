"""A case's Python expression over torch as an expression of the config language."""

from __future__ import annotations

import ast
import copy
import keyword
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from .parsing import parsed

RESERVED = frozenset(
    {"training", "iteration", "row", "step", "path", "value", "pi", "inf", "nan", "grad"}
    | {"torch", "F", "nn", "math", "linalg", "special", "fft"}
    | {"true", "false", "null"}
    | set(keyword.kwlist)
    | set(keyword.softkwlist)
)
"""Names that a case may use for a value and a config may not, or not without confusion."""

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
UNROLLED = 10_000
"""Elements that a comprehension may unroll to."""


class UnsayableError(Exception):
    """The case uses something that the language has no words for."""


class Names:
    """The config's names: one for each thing a case binds, none given twice."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def give(self, wanted: str) -> str:
        """`wanted` where it is free and allowed, else a name like it."""
        stem = (
            wanted
            if PLAIN.fullmatch(wanted) and wanted not in RESERVED
            else "v_" + re.sub(r"[^A-Za-z0-9_]", "_", wanted)
        )
        name, count = stem, 1
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self.taken.add(name)
        return name


class Scope:
    """What a case's names mean where an expression stands: their names in the config, and which are tensors."""

    def __init__(
        self, names: Mapping[str, str], tensors: Collection[str], literal: Callable[[Any, str | None], str]
    ) -> None:
        self.names = dict(names)
        self.tensors = set(tensors)
        self.literal = literal  # (values, dtype or None) -> what stands for a tensor of them

    def copy(self) -> Scope:
        return Scope(self.names, self.tensors, self.literal)

    def bind(self, source: str, name: str, *, tensor: bool = True) -> None:
        """From here on `source` means the config's `name`."""
        self.names[source] = name
        self.tensors.discard(source)
        if tensor:
            self.tensors.add(source)

    def is_tensor(self, expression: str) -> bool:
        """Whether the expression's value is a tensor rather than a number."""
        return _is_tensor(parsed(expression), self.tensors)

    def translate(self, expression: str) -> str:
        """The expression in the config's words.

        Raises:
            UnsayableError: the language cannot say it.
        """
        tree = _Translation(self).visit(parsed(expression))
        return ast.unparse(ast.fix_missing_locations(tree))


def names_in(expression: str) -> set[str]:
    """Every name that the expression reads."""
    return {node.id for node in ast.walk(parsed(expression)) if isinstance(node, ast.Name)}


def values_in(expression: str) -> set[str]:
    """The names whose values the expression reads: not those it only takes a size or a dtype of."""
    return set(_values(parsed(expression)))


def _values(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name):
            yield name
        case ast.Attribute(attr=attribute) if attribute in SIZES:
            return
        case ast.Call(func=ast.Name(id="len")):
            return
    for child in ast.iter_child_nodes(node):
        yield from _values(child)


SIZES = {"shape", "ndim", "dtype"}
SIZE_METHODS = {"size", "dim", "numel", "ndimension", "item", "tolist"}
NUMBER_FUNCTIONS = {"float", "int", "len", "range", "slice"}
REFUSED = (ast.Lambda, ast.JoinedStr, ast.NamedExpr, ast.DictComp, ast.SetComp, ast.Dict, ast.Set, ast.Starred)


def _is_tensor(node: ast.AST, tensors: Collection[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in tensors
        case ast.Attribute(attr=attribute) if attribute in SIZES:
            return False
        case ast.Call(func=ast.Name(id=name)) if name in NUMBER_FUNCTIONS:
            return False
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math"))):
            return False
        case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in SIZE_METHODS:
            return False
        case ast.Call(func=ast.Attribute() as function) if ast.unparse(function).startswith(("torch.", "F.")):
            return True
        case ast.Subscript(value=owner):
            return _is_tensor(owner, tensors)
        case ast.IfExp(body=body, orelse=orelse):
            return _is_tensor(body, tensors) or _is_tensor(orelse, tensors)
    return any(_is_tensor(child, tensors) for child in ast.iter_child_nodes(node))


class _Translation(ast.NodeTransformer):
    """Renames, and rewrites what Python has and the language says otherwise."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, REFUSED):
            raise UnsayableError(f"{type(node).__name__} in an expression: `{ast.unparse(node)}`")
        return super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.scope.names:
            return _expression(self.scope.names[node.id])
        if node.id not in {"pi", "torch", "F"}:
            raise UnsayableError(f"the name `{node.id}`, which the case does not bind")
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "math" and "math" not in self.scope.names:
            return ast.Name(node.attr) if node.attr in {"pi", "inf", "nan"} else ast.Constant(getattr(math, node.attr))
        return ast.Attribute(self.visit(node.value), node.attr)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS and name not in self.scope.names:
                return BUILTINS[name](self, node)
            case ast.Call(func=ast.Name(id=name)):
                raise UnsayableError(f"a call of `{name}`")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="tensor" | "as_tensor")):
                return self.written_out(node)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr=name)):
                return ast.Call(ast.Name(name), [self.number(argument) for argument in node.args], [])
            case ast.Call(func=ast.Attribute(value=owner, attr="item"), args=[], keywords=[]):
                return self.number(owner)
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        return ast.Subscript(self.visit(node.value), self.index(node.slice))

    def index(self, node: ast.expr) -> ast.expr:
        """An index, with `slice(a, b)` in Python's own notation."""
        match node:
            case ast.Tuple(elts=elements):
                return ast.Tuple([self.index(element) for element in elements])
            case ast.Call(func=ast.Name(id="slice"), args=arguments):
                bounds = [None if _is_none(argument) else self.visit(argument) for argument in arguments]
                return ast.Slice(*([None, *bounds] if len(bounds) == 1 else bounds))
        return self.visit(node)  # type: ignore[no-any-return]

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        if _is_tensor(node.test, self.scope.tensors):
            return _call("where", self.visit(node.test), self.visit(node.body), self.visit(node.orelse))
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        if not _is_tensor(node, self.scope.tensors):
            return self.generic_visit(node)  # type: ignore[return-value]
        function = "logical_and" if isinstance(node.op, ast.And) else "logical_or"
        first, *others = (self.visit(value) for value in node.values)
        for other in others:
            first = _call(function, first, other)
        return first  # type: ignore[no-any-return]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        if isinstance(node.op, ast.Not) and _is_tensor(node.operand, self.scope.tensors):
            return _call("logical_not", self.visit(node.operand))
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        return ast.List(list(self.unrolled(node)))

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.expr:
        return ast.Tuple(list(self.unrolled(node)))

    def unrolled(self, node: ast.ListComp | ast.GeneratorExp) -> Iterator[ast.expr]:
        """The elements of a comprehension over numbers known beforehand."""
        match node.generators:
            case [ast.comprehension(target=ast.Name(id=name), iter=values, ifs=[])]:
                pass
            case _:
                raise UnsayableError(f"a comprehension other than over one name: `{ast.unparse(node)}`")
        for value in _fixed_values(values):
            yield self.visit(_Substitution(name, value).visit(copy.deepcopy(node.elt)))

    def written_out(self, node: ast.Call) -> ast.expr:
        """`torch.tensor([1.0, 2.0])` is a constant of the config, in torch's default dtype or the named one."""
        try:
            values = ast.literal_eval(node.args[0])
        except ValueError:
            raise UnsayableError(f"a tensor gathered from numbers: `{ast.unparse(node)}`") from None
        match node.keywords:
            case []:
                dtype = None
            case [ast.keyword(arg="dtype", value=ast.Attribute(value=ast.Name(id="torch"), attr=dtype))]:
                pass
            case [ast.keyword(arg="dtype", value=ast.Attribute(attr="dtype"))]:
                dtype = ""
            case _:
                raise UnsayableError(f"the arguments of `{ast.unparse(node)}`")
        return _expression(self.scope.literal(values, dtype))

    def number(self, node: ast.expr) -> ast.expr:
        """A number; of a tensor its only element, with no gradient through it, as in Python."""
        visited: ast.expr = self.visit(node)
        if not _is_tensor(node, self.scope.tensors):
            return visited
        detached = ast.Call(ast.Attribute(visited, "detach"), [], [])
        return ast.Call(ast.Attribute(detached, "reshape"), [ast.Tuple([])], [])

    def converted(self, node: ast.Call) -> ast.expr:
        match node.args[0]:
            case ast.Constant(value=str() as text):
                return _expression(repr(float(text)))
        if not _is_tensor(node.args[0], self.scope.tensors):
            return ast.Call(node.func, [self.visit(node.args[0])], [])
        if isinstance(node.func, ast.Name) and node.func.id == "int":
            raise UnsayableError(f"an integer that a tensor's value decides: `{ast.unparse(node)}`")
        return self.number(node.args[0])

    def extreme(self, node: ast.Call) -> ast.expr:
        """`max` and `min`: of numbers the language has them, of tensors Python's keep the first of equals."""
        assert isinstance(node.func, ast.Name)
        if not _is_tensor(node, self.scope.tensors):
            return ast.Call(node.func, [self.visit(argument) for argument in node.args], [])
        if len(node.args) == 1:
            return _call("a" + node.func.id, self.visit(node.args[0]))
        first, *others = (self.visit(argument) for argument in node.args)
        for other in others:
            comparison = ast.Compare(other, [ast.Gt() if node.func.id == "max" else ast.Lt()], [first])
            first = _call("where", comparison, other, first)
        return first  # type: ignore[no-any-return]

    def length(self, node: ast.Call) -> ast.expr:
        match node.args[0]:
            case ast.Attribute(value=owner, attr="shape"):
                return ast.Call(ast.Attribute(self.visit(owner), "dim"), [], [])
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return ast.Constant(len(elements))
        return ast.Subscript(ast.Attribute(self.visit(node.args[0]), "shape"), ast.Constant(0))

    def absolute(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(node.args[0])], [])

    def listed(self, node: ast.Call) -> ast.expr:
        return ast.List([ast.Constant(value) for value in _fixed_values(node)])

    def sliced(self, node: ast.Call) -> ast.expr:
        raise UnsayableError(f"a slice outside an index: `{ast.unparse(node)}`")


BUILTINS = {
    "float": _Translation.converted,
    "int": _Translation.converted,
    "max": _Translation.extreme,
    "min": _Translation.extreme,
    "abs": _Translation.absolute,
    "len": _Translation.length,
    "range": _Translation.listed,
    "slice": _Translation.sliced,
}
"""Python's functions that a case may call, and how each is said."""


class _Substitution(ast.NodeTransformer):
    def __init__(self, name: str, value: int | float) -> None:
        self.name = name
        self.value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self.value) if node.id == self.name else node


def _fixed_values(node: ast.expr) -> list[Any]:
    match node:
        case ast.Call(func=ast.Name(id="range"), args=arguments):
            values = range(*(ast.literal_eval(argument) for argument in arguments)) if _all_literal(arguments) else None
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            values = [ast.literal_eval(element) for element in elements] if _all_literal(elements) else None  # type: ignore[assignment]
        case _:
            values = None
    if values is None or len(values) > UNROLLED:
        raise UnsayableError(f"a sequence that is not written out: `{ast.unparse(node)}`")
    return list(values)


def _all_literal(nodes: list[ast.expr]) -> bool:
    plain = (ast.Constant, ast.UnaryOp, ast.USub, ast.UAdd)
    return all(isinstance(part, plain) for node in nodes for part in ast.walk(node))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _call(function: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(function), list(arguments), [])


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
