"""The overrides that may differ between the lanes of one computation: seeds, learning rates and filled tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runner.config import Config
from runner.config.text.nodes import MapNode, Node, Path, ScalarNode, walk
from runner.config.text.scalars import LARGEST_INTEGER, NumberRangeError, resolve_plain
from runner.engine.lanes.starting import Lane
from runner.language.text.faults import LanguageError
from runner.language.text.scalars import evaluate, names_in
from runner.plan import Plan
from runner.plan.checks.engines.stackable import RATED
from runner.plan.tensors.initial import Fill

_NAME = re.compile(r"[^\W\d]\w*")
_PLAIN = re.compile(r"[\w.]+")
_OPTIONS = frozenset({"params", "lr", "maximize", "weight_decay", "momentum", "dampening", "nesterov"})
"""Options of SGD that an update with a rate for each lane reads."""

_ADAM_OPTIONS = frozenset({"lr", "betas", "eps", "maximize", "weight_decay", "decoupled_weight_decay"})

LARGEST_FILL = 3.4e38
"""The largest number that every floating-point dtype of 32 bits or more represents, about."""

Values = Mapping[str, float | int]
"""Override path → number."""


@dataclass(frozen=True, slots=True)
class Varying:
    """What may differ between lanes.

    Attributes:
        rates: optimizer → its learning rate as written: a number, or an expression over constants.
        constants: scalar constants that only learning rates read.
        numbers: scalar constants that only the expression and learning rates read.
        paths: the override path of each learning rate, and its optimizer.
        tensors: the override path of each filled tensor, and its name.
    """

    rates: Mapping[str, str | int | float]
    constants: frozenset[str]
    paths: Mapping[str, str]
    tensors: Mapping[str, str]
    numbers: frozenset[str] = frozenset()

    def split(self, overrides: Sequence[str]) -> tuple[Values, tuple[str, ...]]:
        """The overrides that may differ between lanes, and those that are equal in all lanes of a chunk."""
        own: dict[str, float | int] = {}
        shared: list[str] = []
        for override in overrides:
            path, _, text = override.partition("=")
            value = _number(text)
            if value is not None and self._allows(path, value):
                own[path] = value
            else:
                shared.append(override)
        return own, tuple(shared)

    def has(self, path: str) -> bool:
        """Whether an override may differ between lanes, if its value is one of those that may."""
        names = self.constants | self.numbers | self.paths.keys() | self.tensors.keys()
        return path == "seed" or path in names or path.removeprefix("constants.") in names

    def _allows(self, path: str, value: float | int) -> bool:
        if path == "seed":
            return isinstance(value, int) and 0 <= value <= LARGEST_INTEGER
        if path.removeprefix("constants.") in self.constants | self.numbers:
            return math.isfinite(value)
        if path in self.paths:
            return math.isfinite(value) and value >= 0
        return path in self.tensors and abs(value) <= LARGEST_FILL

    def place(self, path: str) -> str:
        """The full path of an override that may differ between lanes."""
        return f"constants.{path}" if path in self.constants | self.numbers else path

    def in_expression(self, values: Iterable[str]) -> bool:
        """Whether some of these overrides are numbers in the expression."""
        return any(path.removeprefix("constants.") in self.numbers for path in values)

    def lane(self, plan: Plan, values: Values) -> Lane | None:
        """A lane of a plan; None if a learning rate is not valid."""
        constants = {path.removeprefix("constants."): value for path, value in values.items()}
        known = self.constants | self.numbers
        scalars = {**plan.scalars, **{name: value for name, value in constants.items() if name in known}}
        texts = dict(self.rates) | {self.paths[path]: value for path, value in values.items() if path in self.paths}
        rates: dict[str, float] = {}
        for name, text in texts.items():
            try:
                rate = scalars[text] if text in scalars else evaluate(text, scalars) if isinstance(text, str) else text
            except LanguageError:
                return None
            if isinstance(rate, bool) or not (math.isfinite(rate) and rate >= 0):
                return None
            rates[name] = float(rate)
        fills = {self.tensors[path]: value for path, value in values.items() if path in self.tensors}
        return Lane(int(values.get("seed", plan.seed)), fills, rates)


def varying(base: Config, plan: Plan) -> Varying:
    """What may differ between lanes of a config.

    Args:
        plan: the plan of some point.
    """
    root = base.document.root
    rates: dict[str, str | int | float] = {}
    paths: dict[str, str] = {}
    places: set[Path] = set()
    for name, declared in base.optimizers.items():
        text = declared.arguments.get("lr")
        if declared.kind not in RATED or any("lr" in group.arguments for group in declared.groups):
            continue
        if isinstance(text, bool) or not isinstance(text, int | float | str) or not _is_plain(plan, name):
            continue
        if isinstance(text, str) and not set(names_in(text)) <= set(plan.scalars):
            continue
        rates[name] = text
        path = (*declared.path, declared.kind, "lr")
        paths[".".join(map(str, path))] = name
        places.add(path)
    read = _readers(root)
    scalars = {
        name: read.get(name, set()) - places
        for name, value in base.constants.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    constants = frozenset(name for name, others in scalars.items() if not others)
    numbers = frozenset(name for name, others in scalars.items() if others == {("expression",)})
    tensors = {
        f"{tensor.role}s.{name}.init": name
        for name, tensor in plan.tensors.items()
        if isinstance(tensor.init, Fill)
        and tensor.dtype.is_floating_point
        and tensor.dtype.itemsize >= 4
        and _is_number(root, (f"{tensor.role}s", name, "init"))
    }
    return Varying(rates, constants, paths, tensors, numbers)


def _is_plain(plan: Plan, optimizer: str) -> bool:
    """Whether an update with a rate for each lane reads all options that are set."""
    found = plan.optimizers.get(optimizer)
    if found is None:
        return False
    known = _OPTIONS if found.kind == "sgd" else _ADAM_OPTIONS
    return all(
        option in known and not any(True for _ in found.scheduled())
        for options in (found.options, *(group.options for group in found.groups))
        for option in options
    )


def _is_number(root: MapNode, path: Path) -> bool:
    node: Node = root
    for key in path:
        if not isinstance(node, MapNode) or key not in node.entries:
            return False
        node = node.entries[str(key)].value
    return isinstance(node, ScalarNode) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def _readers(root: MapNode) -> dict[str, set[Path]]:
    """The places of a config that mention each word."""
    found: dict[str, set[Path]] = {}
    for path, node in walk(root):
        words: list[str] = []
        if (
            isinstance(node, ScalarNode)
            and isinstance(node.value, str)
            and path[:1] not in (("description",), ("name",))
        ):
            words = _NAME.findall(node.value)
        elif isinstance(node, MapNode) and path:
            words = [word for key in node.entries if _is_read(path, key) for word in _NAME.findall(key)]
        for word in words:
            found.setdefault(word, set()).add(path)
    return found


def _is_read(path: Path, key: str) -> bool:
    """Whether a key is an expression, as in `expect`; others name a field, or what they declare."""
    return path[-1] == "expect" or not _PLAIN.fullmatch(key)


def _number(text: str) -> float | int | None:
    try:
        value = resolve_plain(text.strip())
    except NumberRangeError:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
