"""The syntax tree of an expression to a `torch.fx.Graph`, node by node, with every fault placed.

What values are while they are lowered stands in `values`; operators, subscripts and calls have modules of their own.
"""

from __future__ import annotations

import ast
import contextlib
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from runner.errors import did_you_mean, listing
from runner.language import branches, calls, indexing, operations, operators
from runner.language.calls import differentiated
from runner.language.conditions import example_at, examples_at
from runner.language.diagnosis import AllocationError, explain
from runner.language.faults import Consequence, LanguageError, place_of, source_of
from runner.language.hints import NAMES
from runner.language.inference import Inference, TooLarge
from runner.language.parse import assigned_names, parse_expression, parse_statements
from runner.language.runtime import lookup, watch
from runner.language.scalars import CONSTANTS, COUNTERS, FAULTS, FUNCTIONS, bounded, fault_text
from runner.language.scope import Scope
from runner.language.size import too_large
from runner.language.values import MAX_DISPLAY, MAX_NESTED, Lookup, example_of, extent, nodes_of

MAX_FAULTS = 10
"""Faults of one expression that are told at once."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """An expression's graph, before anything is cut."""

    graph: fx.Graph
    values: Mapping[str, Any]  # named values in order: nodes, fixed scalars, tuples of nodes
    result: str  # the name of the last statement's value
    random: bool
    gradients: bool  # whether it holds `grad(y, x)`
    metrics: Mapping[str, Any] = field(default_factory=dict)  # values of expressions over the named values

    def __getitem__(self, name: str) -> Any:
        """The named value or metric `name`."""
        return self.values[name] if name in self.values else self.metrics[name]


def lower_statements(
    text: str, scope: Scope, inference: Inference, metrics: Mapping[Hashable, str] | None = None
) -> Lowered:
    """Lower the statements of an `expression`, and metrics over its named values.

    Args:
        text: the statements.
        scope: what their names stand for.
        inference: finds the shapes.
        metrics: expressions; each key is the origin of faults in it, and its last part the metric's name.
    Raises:
        LanguageError: any fault, at its place in the text (or, with `origin`, in a function's or metric's).
        TooLarge: a bound of `inference` is passed.
    """
    statements = parse_statements(text)
    trees: list[ast.AST] = [*statements]
    parsed: dict[Hashable, ast.expr] = {}
    for origin, metric in (metrics or {}).items():
        try:
            parsed[origin] = parse_expression(metric)
        except LanguageError as error:
            error.origin = origin
            raise
    _check_size(text, statements, scope, inference)
    lowering = _start(text, [*trees, *parsed.values()], scope, inference)
    values: dict[str, Any] = {}
    with inference.session(), _bounded_recursion():
        faults: list[LanguageError] = []
        result = lowering.program(statements, faults)
        for origin, tree in parsed.items():
            assert isinstance(origin, tuple)
            assert metrics is not None
            inner = lowering.inside(metrics[origin], origin, lowering.graph)
            inner.captured = lowering.captured
            with inner.collecting(faults, tree):
                values[origin[-1]] = inner.plain(inner.value(tree))
        if faults:
            faults[0].others = tuple(faults[1:])
            raise faults[0]
    shared = lowering.shared
    return Lowered(lowering.graph, lowering.named, result, shared.random, shared.gradients, values)


def lower_expression(text: str, scope: Scope, inference: Inference) -> Lowered:
    """Lower one expression; its value is named `value`. Raises as `lower_statements` does."""
    expression = parse_expression(text)
    _check_size(text, [expression], scope, inference)
    lowering = _start(text, [expression], scope, inference)
    with inference.session(), _bounded_recursion():
        lowering.named["value"] = lowering.plain(lowering.value(expression))
    return Lowered(lowering.graph, lowering.named, "value", lowering.shared.random, lowering.shared.gradients)


def _check_size(text: str, trees: Sequence[ast.AST], scope: Scope, inference: Inference) -> None:
    """Refuse at once what its text alone shows to be too large, rather than after inferring it node by node."""
    tree = too_large(trees, scope, inference.bounds.nodes)
    if tree is not None:
        message, _, hint = str(inference.too_many()).partition("; ")
        raise LanguageError(message, hint, place_of(tree, text))


@contextlib.contextmanager
def _bounded_recursion() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        hint = "split it into several named lines, or write functions that call fewer others"
        raise LanguageError("the expression is nested too deeply", hint) from None


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
    work: int = 0  # nodes of syntax lowered, elements of displays walked
    iteration: int | None = None  # at which the branch that is being lowered is chosen


def _start(text: str, trees: list[Any], scope: Scope, inference: Inference) -> Lowering:
    bodies = [statement for function in scope.functions.values() for statement in function.statements]
    return Lowering(text, None, _Shared(scope, inference), fx.Graph(), {}, differentiated((*trees, *bodies)))


class Lowering:
    """Lowers one text into one graph. Functions and branches get one of their own over the same `_Shared`."""

    def __init__(
        self,
        text: str,
        origin: Hashable | None,
        shared: _Shared,
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
        self.faulty: set[str] = set()  # names whose own statements have faults
        self.watched = watched
        self.parent = parent  # of a branch: the graph it captures from
        self.inputs: dict[str, fx.Node] = {}
        self.captured: dict[fx.Node, fx.Node] = {}

    def inside(
        self, text: str, origin: Hashable | None, graph: fx.Graph, watched: frozenset[str] = frozenset()
    ) -> Lowering:
        """A lowering of a branch or a function within this one."""
        return Lowering(text, origin, self.shared, graph, {}, watched, self)

    # faults

    def fault(self, node: ast.AST, message: str, hint: str | None = None) -> LanguageError:
        return LanguageError(message, hint, place_of(node, self.text), self.origin)

    def shown(self, node: ast.AST) -> str:
        return source_of(node, self.text)

    # statements

    def program(self, statements: Sequence[ast.stmt], faults: list[LanguageError]) -> str:
        """Lower the statements of a whole expression; a fault in one does not hide those in the next."""
        last = "value"
        for position, statement in enumerate(statements):
            done = False
            with self.collecting(faults, statement):
                last = self.statement(statement, position == len(statements) - 1) or last
                done = True
            if not done:
                targets = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
                names = {node.id for node in targets if isinstance(node.ctx, ast.Store)} or {"value"}
                self.faulty |= names
                for name in names:  # what it was before is not what is meant
                    self.named.pop(name, None)
                    self.local.pop(name, None)
        return last

    @contextlib.contextmanager
    def collecting(self, faults: list[LanguageError], tree: ast.AST) -> Iterator[None]:
        """A fault in the lowering of `tree` is collected, with other names in it that no operation has; what comes
        after is lowered all the same.

        Raises:
            LanguageError: the first fault with all others, where there are many or no memory is left.
        """
        try:
            yield
        except AllocationError:
            raise
        except LanguageError as error:
            if not isinstance(error, Consequence):
                faults.append(error)
            beside = operations.unknown_beside(self, tree)
            faults += [other for other in beside if other.place != error.place or other.origin != error.origin]
            del faults[MAX_FAULTS:]
            if len(faults) == MAX_FAULTS or (faults and self.shared.inference.is_full()):
                faults[0].others = tuple(faults[1:])
                raise faults[0] from None

    def block(self, statements: Sequence[ast.stmt]) -> str:
        """Lower statements in order; the name of the last one's value."""
        last = "value"
        for position, statement in enumerate(statements):
            last = self.statement(statement, position == len(statements) - 1) or last
        return last

    def statement(self, statement: ast.stmt, final: bool) -> str | None:
        """Lower one statement; the name of its value, None where a loop has none."""
        if isinstance(statement, ast.Assign):
            return self.assign(statement)
        if isinstance(statement, ast.For):
            return self.loop(statement)
        assert isinstance(statement, ast.Expr)
        if not final:
            raise self.fault(statement, "this value is not used", "give it a name: `name = …`, or remove the line")
        self.named["value"] = self.plain(self.value(statement.value))
        return "value"

    def loop(self, statement: ast.For) -> str | None:
        assert isinstance(statement.target, ast.Name)
        assert isinstance(statement.iter, ast.Call)
        bounds = [self.integer(argument) for argument in statement.iter.args]
        try:
            counts = range(*bounds)
        except (TypeError, ValueError) as error:
            raise self.fault(statement.iter, f"`{self.shown(statement.iter)}`: {error}", "write `range(n)`") from None
        if len(counts) > self.shared.inference.bounds.nodes:
            raise self.fault(
                statement.iter,
                f"this loop runs {len(counts):,} times, and is unrolled",
                "use a `repeat` step, or a tensor operation",
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
                statement,
                f"{len(target.elts)} names for {len(parts)} values",
                "write as many names as there are values",
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
        self.work(node)
        return _LOWER[type(node)](self, node)

    def work(self, node: ast.AST, amount: int = 1) -> None:
        """Count what lowering itself costs, so that functions and loops that give no operations are bounded too."""
        self.shared.work += amount
        if self.shared.work > WORK_A_NODE * self.shared.inference.bounds.nodes:
            raise self.fault(
                node,
                "the expression takes too long to write out",
                "use fewer loops, or functions that call fewer others",
            )

    def walk(self, node: ast.AST, value: Any) -> None:
        """Count a tuple or list with all that it holds, since whoever takes it goes through all of it."""
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
        if found is not _ABSENT:
            self.walk(node, found)
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
        if name in operations.PYTHON_TYPES:
            return operations.PYTHON_TYPES[name]
        if name in operations.DTYPES:
            return operations.DTYPES[name]
        raise self.unknown(node)

    def find(self, name: str) -> Any:
        """The value of a local or named value here or around; a function sees what was named before its call."""
        for lowering in self.visible():
            if name in lowering.local and (lowering.origin == self.origin):
                return lowering.local[name]
            if name in lowering.named:
                return lowering.named[name]
        return _ABSENT

    def visible(self) -> Iterator[Lowering]:
        """This text and what encloses it: a branch is inside its text; a function is inside the whole expression."""
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
        if operations.find(name) or name in self.scope.functions or name in FUNCTIONS:
            return self.fault(node, f"`{name}` is a function", f"call it: `{name}(…)`")
        if name in COUNTERS and "t" in self.scope.running:
            return self.fault(node, f"`{name}` is not known here", "`t` counts the steps of an optimizer")
        if name in ("iteration", "training", "t"):
            return self.fault(
                node, f"`{name}` is not known here", "it is a running scalar of steps and hyperparameters"
            )
        if name in NAMES:
            return self.fault(node, f"`{name}` is not declared", NAMES[name])
        known = self.scope.values()
        for lowering in self.visible():
            known |= {*lowering.named, *(lowering.local if lowering.origin == self.origin else ())}
        known -= {"value", name}
        otherwise = (
            f"known names are {listing(sorted(known))}" if known else "declare it under `parameters:` or `constants:`"
        )
        return self.fault(node, f"`{name}` is not declared", did_you_mean(name, known, otherwise))

    def input(self, name: str, example: Any) -> fx.Node:
        """The placeholder of a name that comes from outside the expression."""
        root = self
        while root.parent is not None:
            root = root.parent
        if name not in root.inputs:
            placeholder = root.graph.placeholder("v_" + name.replace(".", "_"))
            placeholder.meta = {"example": example, "input": name}
            if name in self.scope.varying:
                placeholder.meta["dynamic"] = True
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
                example = example_at(value, self.shared.iteration)
                inner.meta = {"example": example, "dynamic": value.meta.get("dynamic", False), "outer": value}
                self.captured[value] = inner
            return self.captured[value]
        if isinstance(value, (tuple, list)):
            return type(value)(self.lift(item) for item in value)
        if isinstance(value, Lookup):
            return Lookup(value.name, self.lift(value.index), value.element, value.node)
        return value

    def display(self, node: ast.Tuple | ast.List) -> Any:
        items = [self.value(element) for element in node.elts]
        self.walk(node, items)
        return tuple(items) if isinstance(node, ast.Tuple) else items

    # scalars

    def plain(self, value: Any) -> Any:
        """`value` with lookups as the scalars they are."""
        if isinstance(value, (tuple, list)):
            return type(value)(self.plain(item) for item in value)
        if isinstance(value, Lookup):
            if value.element is not None:
                return value.element
            table = lookup(value.name, self.scope.tables[value.name])
            return self.emit(value.node, "call_function", table, (value.index,))
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
        """Scalar arithmetic: done now where all is fixed, else a node that runs."""
        if not any(isinstance(argument, fx.Node) for argument in arguments):
            try:
                return bounded(function(*arguments))
            except FAULTS as error:
                hint = "change the numbers it is made of"
                raise self.fault(node, f"`{self.shown(node)}`: {fault_text(error)}", hint) from None
        return self.emit(node, "call_function", function, tuple(arguments))

    # elements, and whether a name means something

    def parts(self, value: Any) -> list[Any] | None:
        """The elements of a tuple, a list, or a node that gives several values."""
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
        """Whether the expression itself gives `name` a meaning: an argument, a loop variable, a named value."""
        return self.find(name) is not _ABSENT

    def is_declared(self, name: str) -> bool:
        return self.is_named(name) or name in self.scope.values()

    # calls

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
        """Add one operation to the graph, and run it on the examples."""
        kwargs = kwargs or {}
        self.count(node)
        operands = nodes_of((args, kwargs))
        if example is None:
            example = self.infer(node, kind, target, args, kwargs, random)
        made = self.graph.create_node(kind, target, args, kwargs)
        tainted = dynamic or any(operand.meta.get("dynamic") for operand in operands)
        made.meta = {"example": example}
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
        try:
            return self.shared.inference.run(function, examples, named, random)
        except TooLarge as error:
            raise self.too_large(node, error) from None
        except RecursionError:
            raise
        except Exception as error:  # torch raises what it likes; each becomes a fault at its place
            if node is None:
                raise
            raise explain(error, node, self.text, self.origin, target, examples, named) from error

    def varies(self, node: ast.AST, kind: str, target: Any, args: Any, kwargs: Any, made: fx.Node) -> bool:
        """Whether a running scalar is in the shape of a result (`x[:iteration]`): later iterations are tried."""
        example = made.meta["example"]
        if target in operators.ELEMENTWISE or not isinstance(example, Tensor):
            return False
        if not any(map(self.is_scalar, made.all_input_nodes)):
            return False
        for iteration in LATER:
            try:
                later, named = examples_at((args, kwargs), iteration)
                found = self.infer(node, kind, target, later, named, True)
            except LanguageError:  # it need not hold there; where it is run and does not, that is told
                continue
            if isinstance(found, Tensor) and found.shape != example.shape:
                return True
        return False


LATER = (2, 3, 10)
"""Iterations at which a shape is looked at again."""

_ABSENT: Any = object()

WORK_A_NODE = 10  # steps of lowering for each operation that is allowed

_LOWER: Mapping[type[ast.expr], Callable[[Lowering, Any], Any]] = {
    ast.Constant: Lowering.constant,
    ast.Name: Lowering.name,
    ast.Tuple: Lowering.display,
    ast.List: Lowering.display,
    ast.BinOp: operators.binary,
    ast.UnaryOp: operators.unary,
    ast.Compare: operators.compare,
    ast.BoolOp: branches.boolean,
    ast.IfExp: branches.conditional,
    ast.Subscript: indexing.subscript,
    ast.Attribute: indexing.attribute,
    ast.Call: calls.call,
    ast.Slice: indexing.index,
}
