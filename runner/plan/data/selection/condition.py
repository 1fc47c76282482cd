"""Conditions over the columns of a table: the text of `where`, checked and evaluated on blocks of rows.

A condition is parsed by the language's own parser, and never evaluated as Python. A comparison with a missing cell is
false, and `!=` is true, as in pandas.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from runner.errors import did_you_mean, listing
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError, place_of, source_of
from runner.language.text.parse import parse_condition
from runner.plan.data.dtypes import EXACT
from runner.plan.data.selection.cells import Cells, Kind
from runner.plan.data.selection.selection import Mask

Block = Mapping[str, Cells]
_Evaluate = Callable[[Block], Any]

_NOUN: Mapping[Kind, str] = {"number": "a number", "boolean": "true or false", "text": "text"}

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_EQUALITY: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
_ORDERING: Mapping[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition over one row of a table."""

    columns: tuple[str, ...]  # that it reads
    holds: Callable[[Block], Mask]
    """The rows of a block in which it is true. Raises a `LanguageError` for integers that arithmetic would round."""


@dataclass(frozen=True, slots=True)
class _Part:
    kind: Kind
    evaluate: _Evaluate  # to `Cells`, or bool `(n,)` of a comparison
    node: ast.expr
    compared: bool = False  # whether it is a comparison, with no missing values


@dataclass(frozen=True, slots=True)
class Names:
    """What a name in a condition may be."""

    file: str
    columns: tuple[str, ...]
    column: Callable[[str], tuple[str, Kind] | None]  # the column of a name, and its kind; None if there is none
    constants: Mapping[str, Scalar]
    dotted: bool = False  # whether `a.b` is a name, too


def compile_condition(text: str, names: Names) -> Condition:
    """Checks a condition against the columns of a table.

    Raises:
        LanguageError: the text is no condition, names no column, or compares text with numbers.
    """
    compiler = _Compiler(text, names)
    part = compiler.condition(parse_condition(text))
    if not compiler.read:
        raise compiler.fault(part.node, "the condition reads no column", f"compare one of {listing(names.columns)}")
    return Condition(tuple(compiler.read), part.evaluate)


def names_in_condition(text: str) -> frozenset[str]:
    """The names that a condition may read; none if it is malformed."""
    try:
        nodes = list(ast.walk(parse_condition(text)))
    except LanguageError:
        return frozenset()
    arguments = [argument for node in nodes if isinstance(node, ast.Call) for argument in node.args]
    quoted = {node.value for node in arguments if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(quoted | {node.id for node in nodes if isinstance(node, ast.Name)})


class _Compiler:
    """Compiles the nodes of one condition."""

    def __init__(self, text: str, names: Names) -> None:
        self._text, self._names = text, names
        self.read: dict[str, None] = {}

    def fault(self, node: ast.AST, message: str, hint: str | None) -> LanguageError:
        return LanguageError(message, hint, place_of(node, self._text))

    def _shown(self, node: ast.AST) -> str:
        return f"`{source_of(node, self._text)}`"

    def condition(self, node: ast.expr) -> _Part:
        """A part that is true or false in each row; its values are masks."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value).evaluate for value in node.values]
            combine = numpy.logical_and if isinstance(node.op, ast.And) else numpy.logical_or
            return _Part("boolean", lambda block: combine.reduce([part(block) for part in parts]), node, True)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand).evaluate
            return _Part("boolean", lambda block: ~inner(block), node, True)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        part = self._value(node)
        if part.kind != "boolean":
            other = "text" if part.kind == "text" else "0"
            quoted = "'…'" if other == "text" else "0"
            sign = "==" if other == "text" else ">"
            raise self.fault(
                node,
                f"{self._shown(node)} is {_NOUN[part.kind]}, not a condition",
                f"compare it, for example `{source_of(node, self._text)} {sign} {quoted}`",
            )
        evaluate = part.evaluate

        def true(block: Block) -> Mask:
            cells = evaluate(block)
            found: Mask = cells.values.astype(bool) & ~cells.missing
            return found

        return _Part("boolean", true, node, True)

    def _comparison(self, node: ast.Compare) -> _Part:
        operands = [node.left, *node.comparators]
        tests: list[_Evaluate] = []
        for left, test, right in zip(operands, node.ops, operands[1:], strict=False):
            if isinstance(test, (ast.In, ast.NotIn)):
                tests.append(self._membership(left, right, isinstance(test, ast.NotIn)))
            elif isinstance(test, (ast.Is, ast.IsNot)):
                tests.append(self._missing(left, right, isinstance(test, ast.IsNot)))
            else:
                part = self._value(left)
                tests.append(self._pair(part, test, self._beside(right, part)))
        if len(tests) == 1:
            return _Part("boolean", tests[0], node, True)
        return _Part("boolean", lambda block: numpy.logical_and.reduce([test(block) for test in tests]), node, True)

    def _pair(self, left: _Part, test: ast.cmpop, right: _Part) -> _Evaluate:
        if type(test) in _ORDERING:
            sign, compare = _ORDERING[type(test)]
            for part in (left, right):
                if part.kind == "text":
                    message = f"`{sign}` compares numbers, and {self._shown(part.node)} is text"
                    raise self.fault(part.node, message, "compare text by `==`, `!=` or `in`")
        else:
            compare = _EQUALITY[type(test)]
            self._check_alike(left, right)
        unequal = isinstance(test, ast.NotEq)

        def holds(block: Block) -> Mask:
            first, second = left.evaluate(block), right.evaluate(block)
            missing = first.missing | second.missing
            found = numpy.broadcast_to(numpy.asarray(compare(first.values, second.values), dtype=bool), missing.shape)
            mask: Mask = found | missing if unequal else found & ~missing
            return mask

        return holds

    def _check_alike(self, left: _Part, right: _Part) -> None:
        if (left.kind == "text") == (right.kind == "text"):
            return
        text, number = (left, right) if left.kind == "text" else (right, left)
        message = f"{self._shown(text.node)} is text, and {self._shown(number.node)} is {_NOUN[number.kind]}"
        if isinstance(number.node, ast.Constant):
            hint = f"write `'{source_of(number.node, self._text)}'`"
        elif isinstance(text.node, ast.Constant):
            hint = "write the number without quotes"
        else:
            hint = "compare columns of one kind"
        raise self.fault(number.node if isinstance(number.node, ast.Constant) else text.node, message, hint)

    def _membership(self, left: ast.expr, right: ast.expr, negated: bool) -> _Evaluate:
        if not isinstance(right, (ast.List, ast.Tuple)):
            raise self.fault(right, f"{self._shown(right)} is not a list", "write the values in `[…]`")
        if not right.elts:
            raise self.fault(right, "the list has no values", "write at least one")
        part = self._value(left)
        equal = [self._pair(part, ast.Eq(), self._beside(element, part)) for element in right.elts]

        def holds(block: Block) -> Mask:
            found: Mask = numpy.logical_or.reduce([each(block) for each in equal])
            return ~found if negated else found

        return holds

    def _missing(self, left: ast.expr, right: ast.expr, negated: bool) -> _Evaluate:
        is_name = isinstance(right, ast.Name) and right.id == "missing"
        if not is_name and not (isinstance(right, ast.Constant) and right.value is None):
            raise self.fault(right, "`is` checks for missing cells only", "write `is missing`, or compare with `==`")
        evaluate = self._value(left).evaluate

        def holds(block: Block) -> Mask:
            absent: Mask = evaluate(block).absent
            return ~absent if negated else absent

        return holds

    def _beside(self, node: ast.expr, other: _Part) -> _Part:
        """A value that is compared with another one: a name beside text may be text without quotes."""
        known = isinstance(node, ast.Name) and (self._names.column(node.id) or node.id in self._names.constants)
        if isinstance(node, ast.Name) and other.kind == "text" and not known:
            message = f"{self._names.file} has no column `{node.id}`"
            raise self.fault(node, message, f"write `'{node.id}'` if it is text")
        return self._value(node)

    def _value(self, node: ast.expr) -> _Part:
        if isinstance(node, ast.Constant):
            return self._constant(node, node.value)
        if isinstance(node, ast.Name):
            return self._named(node, node.id)
        if isinstance(node, ast.Attribute) and self._names.dotted:
            return self._named(node, ast.unparse(node))
        if isinstance(node, ast.Call):
            return self._column_call(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._arithmetic(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return self._negated(node)
        if isinstance(node, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            part = self.condition(node)

            def cells(block: Block) -> Cells:
                found = part.evaluate(block)
                return Cells(found, numpy.zeros(len(found), dtype=bool))

            return _Part("boolean", cells, node)
        raise self.fault(
            node,
            f"{self._shown(node)} is not available in a condition",
            "compare columns with numbers and text, and combine with `and`, `or`, `not`",
        )

    def _constant(self, node: ast.expr, value: object) -> _Part:
        if not isinstance(value, (bool, int, float, str)):
            message = f"{self._shown(node)} is not a number or text"
            raise self.fault(node, message, "write `is missing` for a missing cell")
        kind: Kind = "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"

        def cells(block: Block) -> Cells:
            return Cells(value, numpy.zeros(len(next(iter(block.values())).missing), dtype=bool))

        return _Part(kind, cells, node)

    def _named(self, node: ast.expr, name: str) -> _Part:
        found = self._names.column(name)
        if found is None:
            if isinstance(node, ast.Name) and name in self._names.constants:
                return self._constant(node, self._names.constants[name])
            places = [*self._names.columns, *(self._names.constants if isinstance(node, ast.Name) else ())]
            hint = did_you_mean(name, places, f"it has {listing(self._names.columns)}")
            raise self.fault(node, f"{self._names.file} has no column `{name}`", hint)
        column, kind = found
        self.read[column] = None
        return _Part(kind, lambda block: block[column], node)

    def _column_call(self, node: ast.Call) -> _Part:
        called = source_of(node.func, self._text)
        if called != "column":
            raise self.fault(
                node,
                f'`{called}(…)` is not available in a condition: only `column("…")` is called',
                "compare columns with numbers and text, and combine with `and`, `or`, `not`",
            )
        given = node.args[0] if len(node.args) == 1 and not node.keywords else None
        if not isinstance(given, ast.Constant) or not isinstance(given.value, str):
            message = "`column` takes the name of one column, in quotes"
            raise self.fault(node, message, 'write `column("fixed acidity")`')
        return self._named(given, given.value)

    def _number(self, node: ast.expr) -> _Part:
        part = self._value(node)
        if part.kind == "text":
            raise self.fault(node, f"{self._shown(node)} is text, and arithmetic takes numbers", "compare text by `==`")
        return part

    def _arithmetic(self, node: ast.BinOp) -> _Part:
        left, right, apply = self._number(node.left), self._number(node.right), _ARITHMETIC[type(node.op)]

        def cells(block: Block) -> Cells:
            first, second = left.evaluate(block), right.evaluate(block)
            with numpy.errstate(all="ignore"):
                values = apply(self._floats(left, first), self._floats(right, second))
            return Cells(values, first.missing | second.missing | numpy.isnan(values))

        return _Part("number", cells, node)

    def _negated(self, node: ast.UnaryOp) -> _Part:
        part = self._number(node.operand)
        sign = -1.0 if isinstance(node.op, ast.USub) else 1.0

        def cells(block: Block) -> Cells:
            found = part.evaluate(block)
            return Cells(self._floats(part, found) * sign, found.missing)

        return _Part("number", cells, node)

    def _floats(self, part: _Part, cells: Cells) -> Any:
        """The values as float64, which represents each of them."""
        values = numpy.asarray(cells.values)
        if values.dtype.kind in "iuO" and bool(((values > EXACT) | (values < -EXACT)).any()):
            message = f"{self._shown(part.node)} holds integers beyond 2^53, which arithmetic would round"
            raise self.fault(part.node, message, "compare it without arithmetic")
        return values.astype(numpy.float64)
