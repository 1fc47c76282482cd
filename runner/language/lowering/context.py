"""The state and operations of lowering one text: names, nodes, errors.

`lower` passes in the functions that lower each kind of syntax. Their first argument is the `Lowering`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, fx

from runner.catalogue import find_operation
from runner.errors import did_you_mean, listing
from runner.language.dtypes import DTYPES, PYTHON_TYPES
from runner.language.inference.autocast import KEY, Autocast
from runner.language.inference.inference import Inference, TooLarge, check_empty
from runner.language.inference.runtime import lookup, of_kind, watch
from runner.language.inference.stored import STORED, StoredColumn, from_blocks, stored_in
from runner.language.lowering.conditions import example_at, examples_at, kind_of
from runner.language.lowering.diagnosis import explain
from runner.language.lowering.scope import Scope
from runner.language.lowering.values import (
    ELEMENTWISE,
    MAX_DISPLAY,
    MAX_NESTED,
    Arithmetic,
    Element,
    Lookup,
    example_of,
    extent,
    nodes_of,
)
from runner.language.text.arithmetic import CONSTANTS, COUNTERS, FAULTS, FUNCTIONS, bounded, fault_text
from runner.language.text.faults import Consequence, LanguageError, place_of, source_of
from runner.language.text.hints import NAMES

LATER = (2, 3, 10)
"""Iterations at which a shape is inferred again."""

ABSENT: Any = object()
"""The result of `Lowering.find` for an unknown name."""

WORK_A_NODE = 10  # the maximum number of lowering steps for each allowed operation


Handlers = Mapping[type[ast.expr], Callable[["Lowering", Any], Any]]
"""The function that lowers each kind of syntax to a value."""


@dataclass(slots=True)
class Shared:
    """The state that one expression, its functions and its branches share."""

    handlers: Handlers
    scope: Scope
    inference: Inference
    random: bool = False
    gradients: bool = False
    inlined: int = 0
    work: int = 0  # syntax nodes lowered, and elements of lists and tuples visited
    iteration: int | None = None  # an iteration that takes the branch being lowered
    side: tuple[fx.Node, bool] | None = None  # its condition, and the value with which it is taken
    current: tuple[Lowering, ast.AST] | None = None  # whose operation is inferred now
    autocast: Autocast | None = None  # under which operations run now


class Lowering:
    """Lowers one text into one graph. Functions and branches get their own `Lowering` with the same `Shared`."""

    def __init__(
        self,
        text: str,
        origin: Hashable | None,
        shared: Shared,
        graph: fx.Graph,
        local: dict[str, Any],
        watched: frozenset[str],
        parent: Lowering | None = None,
    ) -> None:
        self.text = text
        self.origin = origin
        self.shared = shared
        self.scope = shared.scope
        self.graph = graph
        self.local = local
        self.named: dict[str, Any] = {}
        self.made: dict[int, tuple[Element, Any]] = {}  # tensors of elements, by the `id` of the element
        self.elements: dict[str, Element] = {}  # of the named scalars that come from elements of constants
        self.faulty: set[str] = set()  # names whose own statements have errors
        self.watched = watched
        self.parent = parent  # the enclosing lowering, from which a branch captures
        self.inputs: dict[str, fx.Node] = {}
        self.captured: dict[fx.Node, fx.Node] = {}

    def inside(
        self, text: str, origin: Hashable | None, graph: fx.Graph, watched: frozenset[str] = frozenset()
    ) -> Lowering:
        """Returns a lowering for a branch or a function inside this one."""
        return Lowering(text, origin, self.shared, graph, {}, watched, self)

    # faults

    def fault(self, node: ast.AST, message: str, hint: str | None = None) -> LanguageError:
        return LanguageError(message, hint, place_of(node, self.text), self.origin)

    def shown(self, node: ast.AST) -> str:
        return source_of(node, self.text)

    # values

    def value(self, node: ast.expr) -> Any:
        """Lowers one expression to a value."""
        self.work(node)
        return self.shared.handlers[type(node)](self, node)

    def work(self, node: ast.AST, amount: int = 1) -> None:
        """Counts lowering steps, to limit functions and loops that add no operations too."""
        self.shared.work += amount
        if self.shared.work > WORK_A_NODE * self.shared.inference.bounds.nodes:
            raise self.fault(
                node,
                "the expression takes too long to expand",
                "use fewer loops, or functions that call fewer others",
            )

    def walk(self, node: ast.AST, value: Any) -> None:
        """Counts a tuple or list with all its elements, because every use visits all of them."""
        if isinstance(value, (tuple, list)):
            size, depth = extent(value)
            self.work(node, size)
            if depth > MAX_NESTED:
                raise self.fault(
                    node, "lists are nested too deeply", "make a tensor of it: `tensor([…])` or `stack([…])`"
                )

    def constant(self, node: ast.Constant) -> Any:
        return node.value

    def name(self, node: ast.Name) -> Any:
        name = node.id
        found = self.find(name)
        if found is not ABSENT:
            self.walk(node, found)
            return self.lift(found)
        scope = self.scope
        if name in scope.tensors:
            return self.input(name, scope.tensors[name], node)
        if name in scope.scalars:
            return scope.scalars[name]
        if name in scope.running:
            return self.input(name, scope.running[name])
        if name in scope.fixed:
            return scope.fixed[name]
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in PYTHON_TYPES:
            return PYTHON_TYPES[name]
        if name in DTYPES:
            return DTYPES[name]
        raise self.unknown(node)

    def find(self, name: str) -> Any:
        """Returns the local or named value `name`, here or enclosing. A function sees values named before its call."""
        for lowering in self.visible():
            if name in lowering.local and (lowering.origin == self.origin):
                return lowering.local[name]
            if name in lowering.named:
                return lowering.elements.get(name, lowering.named[name])
        return ABSENT

    def visible(self) -> Iterator[Lowering]:
        """Yields this lowering and those that enclose it: the text of a branch; the whole expression of a function."""
        lowering: Lowering | None = self
        while lowering is not None:
            yield lowering
            parent = lowering.parent
            while parent is not None and parent.origin not in (lowering.origin, None):
                parent = parent.parent
            lowering = parent

    def unknown(self, node: ast.Name) -> LanguageError:
        name = node.id
        if any(name in lowering.faulty for lowering in self.visible()):
            return Consequence(f"`{name}` has a fault of its own", None, place_of(node, self.text), self.origin)
        if name in self.scope.elsewhere:
            message = f"`{name}` is {self.scope.elsewhere[name]}, and cannot be read here"
            return self.fault(node, message, f"names in scope are {listing(sorted(self.scope.values()))}")
        if find_operation(name) or name in self.scope.functions or name in FUNCTIONS:
            return self.fault(node, f"`{name}` is a function", f"call it: `{name}(…)`")
        if name in COUNTERS and "t" in self.scope.running:
            return self.fault(node, f"`{name}` is not known here", "`t` counts the steps of an optimizer")
        columns = [key for key in self.scope.stored if key.partition(".")[0] == name]
        if columns:
            hint = f"name a column of it: {listing(f'`{key}`' for key in columns)}"
            return self.fault(node, f"`{name}` is a data source", hint)
        if name in ("iteration", "training", "t"):
            return self.fault(
                node, f"`{name}` is not known here", "it is a running scalar of steps and hyperparameters"
            )
        if name in NAMES:
            return self.fault(node, f"`{name}` is not declared", NAMES[name])
        known = self.scope.values() | {key.partition(".")[0] for key in self.scope.stored}
        for lowering in self.visible():
            known |= {*lowering.named, *(lowering.local if lowering.origin == self.origin else ())}
        known -= {"value", name}
        otherwise = (
            f"known names are {listing(sorted(known))}" if known else "declare it under `parameters:` or `constants:`"
        )
        return self.fault(node, f"`{name}` is not declared", did_you_mean(name, known, otherwise))

    def input(self, name: str, example: Any, node: ast.AST | None = None) -> fx.Node:
        """Returns the placeholder of an input of the expression, which reads it at `node`."""
        root = self.root
        if name not in root.inputs:
            if isinstance(example, Tensor) and example.numel() == 0:
                try:
                    check_empty(example)
                except TooLarge as error:
                    raise self.too_large(node, error) from None
            placeholder = root.graph.placeholder("v_" + name.replace(".", "_"))
            placeholder.meta = {"example": example, "input": name}
            if name in self.scope.varying:
                placeholder.meta["dynamic"] = True
            root.inputs[name] = placeholder
            if name in root.watched and isinstance(example, Tensor):
                root.inputs[name] = root.emit(None, "call_function", watch, (placeholder,))
        found: fx.Node = self.lift(root.inputs[name])
        return found

    @property
    def root(self) -> Lowering:
        """The lowering of the whole expression."""
        root = self
        while root.parent is not None:
            root = root.parent
        return root

    def column(self, name: str, column: StoredColumn) -> fx.Node:
        """Returns the placeholder of a whole column of a data source, whose values are not read yet."""
        known = name in self.root.inputs
        made = self.input(name, column.example)
        if not known:
            made.meta[STORED] = column
        return made

    def lift(self, value: Any) -> Any:
        """Returns `value` for use in this graph: a branch captures the values of enclosing graphs."""
        if isinstance(value, fx.Node):
            if value.graph is self.graph:
                return value
            if value not in self.captured:
                inner = self.graph.placeholder(f"c{len(self.captured)}")
                example = example_at(value, self.shared.iteration)
                inner.meta = {"example": example, "dynamic": value.meta.get("dynamic", False), "outer": value}
                if STORED in value.meta:
                    inner.meta[STORED] = value.meta[STORED]
                self.captured[value] = inner
            return self.captured[value]
        if isinstance(value, (tuple, list)):
            return type(value)(self.lift(item) for item in value)
        if isinstance(value, Lookup):
            return Lookup(value.name, self.lift(value.index), value.element, value.node)
        if isinstance(value, Arithmetic):
            return replace(value, number=self.lift(value.number))  # its operands where they become tensors
        return value

    def display(self, node: ast.Tuple | ast.List) -> Any:
        items = [self.value(element) for element in node.elts]
        self.walk(node, items)
        return tuple(items) if isinstance(node, ast.Tuple) else items

    # scalars

    def plain(self, value: Any) -> Any:
        """Returns `value` with each element of a constant, and arithmetic with one, replaced by its scalar."""
        if isinstance(value, (tuple, list)):
            return type(value)(self.plain(item) for item in value)
        if isinstance(value, Lookup):
            if value.element is not None:
                return value.element
            table = lookup(value.name, self.scope.tables[value.name])
            return self.emit(value.node, "call_function", table, (value.index,))
        if isinstance(value, Arithmetic):
            return value.number
        return value

    def is_scalar(self, value: Any) -> bool:
        if isinstance(value, fx.Node):
            return isinstance(value.meta["example"], (bool, int, float))
        return isinstance(value, (bool, int, float))

    def integer(self, node: ast.expr) -> int:
        value = self.plain(self.value(node))
        if isinstance(value, fx.Node):
            raise self.fault(
                node, f"`{self.shown(node)}` is not fixed before the run", "use numbers, scalar constants and sizes"
            )
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(node, f"`{self.shown(node)}` is not an integer", "write an integer, or `int(…)`")
        return value

    def scalar_call(self, node: ast.AST, function: Callable[..., Any], arguments: list[Any]) -> Any:
        """Computes scalar arithmetic now if all arguments are fixed; else adds a node."""
        if not any(isinstance(argument, fx.Node) for argument in arguments):
            try:
                return bounded(function(*arguments))
            except FAULTS as error:
                hint = "change the numbers in it"
                raise self.fault(node, f"`{self.shown(node)}`: {fault_text(error)}", hint) from None
        kind = kind_of(function, arguments, self.shared.side)
        function = function if kind is None else of_kind(function, kind)
        return self.emit(node, "call_function", function, tuple(arguments))

    # elements, and whether a name is known

    def parts(self, value: Any) -> list[Any] | None:
        """Returns the elements of a tuple, a list, or a node with several values; None for other values."""
        if isinstance(value, (tuple, list)):
            return list(value)
        if isinstance(value, fx.Node):
            example = value.meta["example"]
            if isinstance(example, (tuple, list)):
                return [self.emit(None, "call_function", operator.getitem, (value, i)) for i in range(len(example))]
            if (
                isinstance(example, Tensor)
                and example.dim() > 0
                and not value.meta.get("dynamic")
                and example.shape[0] <= MAX_DISPLAY
            ):
                return [self.emit(None, "call_function", operator.getitem, (value, i)) for i in range(example.shape[0])]
        return None

    def is_named(self, name: str) -> bool:
        """Whether the expression itself defines `name`: as an argument, a loop variable or a named value."""
        return self.find(name) is not ABSENT

    def is_declared(self, name: str) -> bool:
        return self.is_named(name) or name in self.scope.values()

    # calls

    def arguments(self, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        """Lowers the arguments of a call. Raises `LanguageError` if a name is given twice."""
        positional = [self.value(argument) for argument in node.args]
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            assert keyword.arg is not None
            if keyword.arg in named:
                raise self.fault(keyword, f"argument `{keyword.arg}` is given twice", "remove one of them")
            named[keyword.arg] = self.value(keyword.value)
        return positional, named

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
        return self.fault(
            node, f"`{self.shown(node)}`: {message}" if not isinstance(node, ast.For) else message, hint or None
        )

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
        """Adds one operation to the graph, and runs it on the examples."""
        kwargs = kwargs or {}
        self.count(node)
        operands = nodes_of((args, kwargs))
        if example is None and (columns := stored_in((args, kwargs)) if self.scope.stored else []):
            infer = partial(self.infer, node, kind, target, args, kwargs, random)
            try:
                example = from_blocks(columns, target, args, kwargs, infer)
            except TooLarge as error:
                raise self.too_large(node, error) from None
        if example is None:
            example = self.infer(node, kind, target, args, kwargs, random)
        made = self.graph.create_node(kind, target, args, kwargs)
        tainted = dynamic or any(operand.meta.get("dynamic") for operand in operands)
        made.meta = {"example": example}
        if self.shared.autocast is not None:
            made.meta[KEY] = self.shared.autocast
        if node is not None:
            tainted = tainted or self.varies(node, kind, target, args, kwargs, made)
        made.meta["dynamic"] = tainted and not (isinstance(example, Tensor) and example.dim() == 0)
        if random:
            made.meta["random"] = True
        if any(operand.meta.get("branch") for operand in operands):
            made.meta["branch"] = True
        if node is not None:
            made.meta["place"] = place_of(node, self.text)
        if self.origin is not None:
            made.meta["origin"] = self.origin
        self.shared.random |= random
        return made

    def infer(
        self, node: ast.AST | None, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], random: bool
    ) -> Any:
        examples, named = example_of(args), example_of(kwargs)
        function = getattr(Tensor, target) if kind == "call_method" else target
        self.shared.current = None if node is None else (self, node)
        try:
            return self.shared.inference.run(function, examples, named, random)
        except TooLarge as error:
            raise self.too_large(node, error) from None
        except RecursionError:
            raise
        except Exception as error:  # torch raises any type; each becomes an error at its place
            if node is None:
                raise
            raise explain(error, node, self.text, self.origin, target, examples, named) from error

    def varies(self, node: ast.AST, kind: str, target: Any, args: Any, kwargs: Any, made: fx.Node) -> bool:
        """Whether the shape of a result depends on a running scalar (`x[:iteration]`); tries later iterations."""
        example = made.meta["example"]
        if target in ELEMENTWISE or not isinstance(example, Tensor):
            return False
        if not any(map(self.is_scalar, made.all_input_nodes)):
            return False
        for iteration in LATER:
            try:
                later, named = examples_at((args, kwargs), iteration)
                found = self.infer(node, kind, target, later, named, True)
            except LanguageError:  # it may be invalid there; if it runs there, the run reports that
                continue
            if isinstance(found, Tensor) and found.shape != example.shape:
                return True
        return False
