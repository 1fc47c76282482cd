"""Reports declarations that no step, expression or field of a config uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from runner.config import Config
from runner.config.text.nodes import ListNode, MapNode, Node, Path, ScalarNode
from runner.faults import Faults
from runner.plan.program.expressions import Values
from runner.plan.tensors.initial import Computed

_WORD = re.compile(r"(?P<name>[^\W\d]\w*)(?P<call>\s*\()?")


def check_use(config: Config, values: Values, objectives: Mapping[str, Iterable[str]], stepped: bool) -> None:
    """Report unused tensors, scalars, functions, data columns and optimizers.

    Args:
        config: the config that declares them.
        values: the values that the program reads.
        objectives: the objectives that steps compute, each with the parameters that it depends on.
        stepped: whether some step uses the optimizers.
    """
    faults: Faults = values.faults
    for tensor in values.tensors.values():
        if isinstance(tensor.init, Computed):
            values.read.update(tensor.init.reads)
    if faults.problems:
        return
    reaching = {name for reached in objectives.values() for name in reached}
    if not objectives and any(
        tensor.role == "parameter" and tensor.name not in values.read for tensor in values.tensors.values()
    ):
        faults.add(("steps",), "no step computes an objective", "add `backward`, `forward` or `train` to the steps")
        return
    for name, tensor in values.tensors.items():
        path = (f"{tensor.role}s", name)
        if tensor.role == "constant":
            continue
        if name not in values.read:
            message = f"the parameter `{name}` never reaches the objective"
            faults.add(path, message, "use it in the expression, or remove it", key=True)
        elif tensor.requires_grad and name not in reaching:
            message = f"the parameter `{name}` never reaches an objective, and has no gradient"
            faults.warn(path, message, "freeze it with `requires_grad: false`, or use it in the expression", key=True)
    _check_data(config, values)
    _check_constants_and_functions(config, values)
    if config.optimizers and not stepped:
        key = "optimizer" if config.single_optimizer else "optimizers"
        faults.warn((key,), "no step uses the optimizer", "add `step` or `train` to the steps", key=True)


def _check_data(config: Config, values: Values) -> None:
    """Warn of data sources and columns that no step reads."""
    supply = values.supply
    for name, source in supply.sources.items():
        if name not in supply.drawn and all(name != fitted for fitted, _ in supply.fitted):
            message = f"no step uses the data source `{name}`"
            values.faults.warn(("data", name), message, f"name it in a step, such as `evaluate: {name}`", key=True)
            continue
        for column in source.columns:
            if (name, column.name) not in supply.used | supply.fitted:
                message = f"the column `{column.name}` of `{name}` is not used"
                values.faults.warn(column.path, message, "remove it, or use it", key=True)


def _check_constants_and_functions(config: Config, values: Values) -> None:
    """Warn of constants and functions whose name, or call `name(`, appears nowhere else in the config."""
    unread = [name for name in config.constants if name not in values.read]
    sought = re.compile("|".join(map(re.escape, (*unread, *values.environment.functions))))
    if not sought.pattern:
        return
    words: dict[str, set[Path]] = {}
    calls: dict[str, set[Path]] = {}
    for path, texts in _texts_by_place(config.document.root):
        joined = "\0".join(texts)  # which belongs to no word, and to no call
        for found in _WORD.finditer(joined) if sought.search(joined) else ():
            kind = calls if found["call"] else words
            kind.setdefault(found["name"], set()).add(path)
    for name in unread:
        path = ("constants", name)
        if words[name] <= {path}:
            values.faults.warn(path, f"the constant `{name}` is not used", "remove it, or use it", key=True)
    for name, function in values.environment.functions.items():
        path = ("functions", function.declaration)
        if calls[name] <= {path}:
            values.faults.warn(path, f"the function `{name}` is not used", "remove it, or call it", key=True)


def _texts_by_place(root: MapNode) -> Iterator[tuple[Path, list[str]]]:
    """Yields the texts of a config by the first two parts of their path, keys among them."""
    for key, entry in root.entries.items():
        top = entry.value
        yield (key,), [key, *(_texts(top) if isinstance(top, ScalarNode) else ())]
        if isinstance(top, ListNode):
            for index, item in enumerate(top.items):
                yield (key, index), list(_texts(item))
        elif isinstance(top, MapNode):
            for name, below in top.entries.items():
                yield (key, name), [name, *_texts(below.value)]


def _texts(node: Node) -> Iterator[str]:
    """Yields all texts of a node: its values, and the keys of its mappings."""
    if isinstance(node, ScalarNode):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _texts(item)
    else:
        for key, entry in node.entries.items():
            yield key
            yield from _texts(entry.value)
