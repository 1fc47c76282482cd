"""Config texts that are nearly right: those of the gallery, with values, keys, operations and characters changed."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from runner.catalogue import operations

CONFIGS = Path(__file__).parents[2] / "configs"

NUMBERS = (
    *(0, 1, -1, 2, 3, 64, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e-300, 1e308, 1e400),
    *(float("nan"), float("inf"), -float("inf")),
)
TEXTS = (
    *("", " ", "x", "null", "~", "1e3", "2 ** 62", "9 ** 9 ** 9", "-" * 500 + "1", "(" * 300 + "x" + ")" * 300, "nan"),
    *(
        "1 / 0",
        "x.sum()",
        "zeros(10 ** 12)",
        "x[" * 200,
        "a" * 5000,
        "../../etc/passwd",
        "/dev/zero",
        "\u202e",
        "\x1b]52",
    ),
    *(
        "grad(x, x)",
        "x // -1",
        "x % 0",
        "t",
        "iteration",
        "training",
        "value",
        "x.grad",
        "normal",
        "for i in range(9):",
    ),
    *("ones(1).expand(10 ** 12)", "cosine_annealing_lr(0.1, T_max=0)", "x if iteration > 2 else 1", "lambda: x", "%s"),
)
LINES = (
    "a = linalg.svdvals(ones(300, 300)).sum()",
    "a = zeros(2 ** 62)",
    "a = tensor([-2 ** 63]) // tensor([-1])",
    "for i in range(2000):\n    a = sin(ones(3))",
    "for i in range(10 ** 9):\n    a = 1",
    "a = ones(3)\nfor i in range(40):\n    a = cat([a, a])",
    "a = nonzero(ones(3))",
    "a = [1] * 10 ** 9",
    "a, b = linalg.qr(ones(5, 3))",
    "a = einsum('ij,jk->ik', ones(3, 4), ones(4, 5))",
    "a = special.zeta(2.0, tensor(-1e15))",
    "a = ones(100000, 500) @ ones(500, 100)",
)
KEYS = (
    *(
        "parameters",
        "constants",
        "expression",
        "steps",
        "optimizer",
        "optimizers",
        "data",
        "log",
        "seed",
        "dtype",
        "init",
    ),
    *("shape", "stacked", "repeat", "times", "train", "every", "when", "evaluate", "metrics", "functions", "name", "x"),
    *("extends", "health", "engine", "device", "requires_grad", "file", "columns", "accumulate", "assign", "expect"),
)

PIECES = ("[" * 70, "{a: " * 70, "&a [*a, *a]", "!!python/object:os.system x", "? ")

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")
_CALLED = re.compile(r"\b([a-z_0-9]+)\(")


@functools.cache
def gallery() -> tuple[str, ...]:
    """The texts of the gallery's configs."""
    return tuple(path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.yaml")))


@functools.cache
def _operations() -> tuple[str, ...]:
    return tuple(operations())


def any_text(seed: str) -> str:
    """The config text that belongs to a seed."""
    chance = random.Random(seed)
    text = chance.choice(gallery())
    if chance.random() < 0.85:
        tree = yaml.safe_load(text)
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
            _change(tree, chance)
        try:
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=chance.random() < 0.5)
        except (yaml.YAMLError, RecursionError, ValueError):
            return text
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        text = _scratched(text, chance)
    return text


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping and list of a tree with each of its keys."""
    if isinstance(node, dict):
        for key, value in list(node.items()):
            yield node, key
            yield from _places(value)
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield node, position
            yield from _places(value)


def _change(tree: Any, chance: random.Random) -> None:
    places = list(_places(tree))
    if not places:
        return
    holder, key = chance.choice(places)
    how = chance.randrange(10)
    if how < 3 and isinstance(tree, dict) and isinstance(tree.get("expression"), str):
        tree["expression"] = _expression(tree["expression"], chance)
    elif how == 3:
        del holder[key]
    elif how == 4 and isinstance(holder, dict):
        holder[chance.choice(KEYS)] = holder.pop(key)
    elif how == 5:
        other, name = chance.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            holder[key] = other[name] if not isinstance(other[name], (dict, list)) else yaml.safe_load(str(1))
    elif how == 6 and isinstance(holder, dict):
        holder[chance.choice(KEYS)] = _value(chance)
    elif how == 7 and isinstance(holder[key], str):
        holder[key] = _expression(holder[key], chance)
    else:
        holder[key] = _value(chance)


def _value(chance: random.Random) -> Any:
    how = chance.randrange(6)
    if how < 2:
        return chance.choice(NUMBERS)
    if how < 4:
        return chance.choice(TEXTS)
    if how == 4:
        return [_value(chance) for _ in range(chance.choice((0, 1, 2, 3)))]
    return chance.choice((None, True, False, {}, {chance.choice(KEYS): _value(chance)}))


def _expression(text: str, chance: random.Random) -> str:
    """An expression with a number, an operation or a line changed."""
    how = chance.randrange(5)
    if how == 0:
        return _replaced(_NUMBER, text, lambda _: str(chance.choice(NUMBERS)), chance)
    if how == 1:
        return _replaced(_CALLED, text, lambda _: chance.choice(_operations()) + "(", chance)
    if how == 2:
        lines = text.split("\n")
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(LINES))
        return "\n".join(lines)
    if how == 3:
        names = re.findall(r"\b[a-z]\w*\b", text) or ["x"]
        return _replaced(re.compile(r"\b[a-z]\w*\b"), text, lambda _: chance.choice(names), chance)
    return _replaced(re.compile(r"[-+*/%@,()\[\]]"), text, lambda _: chance.choice("+-*/%@,()[]"), chance)


def _replaced(pattern: re.Pattern[str], text: str, make: Any, chance: random.Random) -> str:
    found = list(pattern.finditer(text))
    if not found:
        return text
    one = chance.choice(found)
    return text[: one.start()] + make(one) + text[one.end() :]


def _scratched(text: str, chance: random.Random) -> str:
    """A text with some characters changed, cut or doubled."""
    at = chance.randrange(len(text) + 1)
    how = chance.randrange(5)
    if how == 0:
        return text[:at] + chance.choice("\x00\x1b\t\u202e\u2028:{}[]&*!|>'\"#%@`,-?~") + text[at:]
    if how == 1:
        return text[:at] + text[at + chance.choice((1, 2, 10)) :]
    if how == 2:
        return (
            text[:at]
            + chance.choice(("[" * 70, "{a: " * 70, "&a [*a, *a]", "!!python/object:os.system x", "? "))
            + text[at:]
        )
    if how == 3:
        return text[:at] + text[max(0, at - 40) : at] * chance.choice((1, 3, 200)) + text[at:]
    return text[:at]
