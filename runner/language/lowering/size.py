"""Computes a lower bound on the operations of an expression from its text, to reject very large ones at once."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from runner.language.lowering.scope import Scope
from runner.language.text.arithmetic import FAULTS
from runner.language.text.faults import LanguageError
from runner.language.text.scalars import evaluate


def too_large(trees: Iterable[ast.AST], scope: Scope, most: int) -> ast.AST | None:
    """Returns the first tree at which the total certainly exceeds `most` operations, else None.

    Counts the iterations of loops and the calls of helper functions, also nested ones. A loop counts as one iteration
    if its bounds are not plain scalars. So does a loop with more than `most` iterations: lowering reports it in detail.
    """
    counter, count = _Counter(scope, most), 0
    for tree in trees:
        try:
            count += counter.tree(tree)
        except RecursionError:  # nested functions: lowering limits those
            return None
        if count > most:
            return tree
    return None


class _Counter:
    def __init__(self, scope: Scope, most: int) -> None:
        self.scope = scope
        self.most = most
        self.bodies: dict[str, int] = {}

    def trees(self, trees: Iterable[ast.AST]) -> int:
        return sum(self.tree(tree) for tree in trees)

    def tree(self, tree: ast.AST) -> int:
        """Counts the operations of a statement or an expression."""
        if isinstance(tree, ast.For):
            return self.trips(tree.iter) * (1 + self.trees(tree.body))
        if not self.scope.functions:
            return 0
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = [function.id for function in called if isinstance(function, ast.Name)]
        return sum(1 + self.body(name) for name in names if name in self.scope.functions)

    def body(self, name: str) -> int:
        if name not in self.bodies:
            self.bodies[name] = 0  # functions cannot recurse; this would end a recursion
            self.bodies[name] = self.trees(self.scope.functions[name].statements)
        return self.bodies[name]

    def trips(self, call: ast.expr) -> int:
        assert isinstance(call, ast.Call)
        try:
            bounds = [evaluate(ast.unparse(argument), self.scope.scalars) for argument in call.args]
            trips = len(range(*bounds))  # type: ignore[arg-type]  # range rejects non-integers
        except (LanguageError, *FAULTS):
            return 1
        return trips if trips <= self.most else 1
