"""The closed tables of operations, methods and attributes: which names of torch the language has, with signatures.

The tables are text files beside this module, written by `python -m tools.catalogue` and reviewed by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runner.catalogue.signatures import Overload, parse_line

FOLDER = Path(__file__).parent

MODULES: Mapping[str, str] = {"F": "torch.nn.functional", "torch": "torch"}
"""The modules whose table prefix is not simply their name below `torch`."""

SPELLINGS: Mapping[str, str] = {"torch.nn.functional.": "F.", "nn.functional.": "F.", "functional.": "F."}
SUBMODULES = ("linalg.", "special.", "fft.", "masked.", "signal.windows.")


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of a table.

    Flags: `factory` (makes a tensor: takes the config's device), `default_dtype` (makes it in the config's dtype unless
    `dtype` is given), `inferred_dtype` (in the dtype of the values given, floats in the config's dtype), `random` (may
    draw from the generator), `dynamic` (the result's shape may depend on data), `scalar` (gives sizes, counts, booleans
    or a dtype, no tensor), `running_statistics` (writes `running_mean` and `running_var` unless `training` is False).
    """

    name: str  # "F.softmax", "torch.sum", "linalg.det"; ".view" of a method, ".T" of an attribute
    target: str  # "torch.nn.functional.softmax"; the bare name of a method or an attribute
    overloads: tuple[Overload, ...]  # without denied arguments; none of an attribute
    flags: frozenset[str]

    @property
    def bare_name(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The names that any overload takes, in the order of their first appearance."""
        return tuple(dict.fromkeys(argument.name for overload in self.overloads for argument in overload))


class Table(Mapping[str, Operation]):
    """A table that parses an entry when it is first asked for."""

    def __init__(self, file: str) -> None:
        self._lines: dict[str, list[str]] = {}
        self._parsed: dict[str, Operation] = {}
        for line in _lines(file):
            self._lines.setdefault(line.partition("(")[0].partition("  # ")[0], []).append(line)

    def __getitem__(self, name: str) -> Operation:
        if name not in self._parsed:
            parsed = [parse_line(line) for line in self._lines[name]]
            has_arguments = "(" in self._lines[name][0]
            overloads = tuple(overload for _, overload, _ in parsed) if has_arguments else ()
            self._parsed[name] = Operation(name, _target(name), overloads, parsed[0][2])
        return self._parsed[name]

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


@cache
def operations() -> Table:
    """Functions by the name of the table: `F.softmax`, `torch.sum`, `linalg.det`."""
    return Table("operations.txt")


@cache
def methods() -> Table:
    """Methods of tensors by `.name`."""
    return Table("methods.txt")


@cache
def attributes() -> Table:
    """Attributes of tensors by `.name`."""
    return Table("attributes.txt")


@cache
def denied() -> Mapping[str, str]:
    """Why a public name of torch is left out, by name.

    `(out)` is an argument of any operation, `F.embedding(max_norm)` an argument of one, and
    `linalg.lstsq(driver='gelsy')` one value of an argument.
    """
    return dict(line.split(": ", 1) for line in _lines("denied.txt"))


def find_operation(name: str) -> Operation | None:
    """The function that a person means by `softmax`, `F.softmax`, `torch.softmax`, `linalg.det` or `torch.linalg.det`.

    A bare name is `torch.nn.functional`'s, else `torch`'s.
    """
    table = operations()
    return next((table[candidate] for candidate in _candidates(name) if candidate in table), None)


def find_method(name: str) -> Operation | None:
    """The method `x.name()`, or None."""
    return methods().get(f".{name}")


def find_attribute(name: str) -> Operation | None:
    """The attribute `x.name`, or None."""
    return attributes().get(f".{name}")


def refusal(name: str) -> str | None:
    """Why torch's `name` (`empty`, `torch.load`, `.item`) is left out, to follow "is not available: "; or None."""
    reasons = denied()
    found = next((reasons[candidate] for candidate in (name, *_candidates(name)) if candidate in reasons), None)
    bare = name.rpartition(".")[2]
    if found is None and bare.startswith("_"):
        return reasons["_*"]
    if found is None and bare.endswith("_"):
        return reasons["*_"]
    return found


def argument_refusal(operation: Operation, argument: str) -> str | None:
    """Why `operation` does not take torch's `argument`, or None where torch has no such argument either."""
    reasons = denied()
    return reasons.get(f"{operation.name}({argument})") or reasons.get(f"({argument})")


def value_refusal(operation: Operation, argument: str, value: str) -> str | None:
    """Why `argument` of `operation` does not take the string `value`, or None where that is torch's to say."""
    return denied().get(f"{operation.name}({argument}={value!r})")


def bare_names() -> frozenset[str]:
    """Every function name that needs no prefix."""
    return frozenset(name.partition(".")[2] for name in operations() if name.startswith(("F.", "torch.")))


def _candidates(name: str) -> tuple[str, ...]:
    if name.startswith("."):
        return (name,)
    for spelling, prefix in SPELLINGS.items():
        if name.startswith(spelling):
            return (prefix + name.removeprefix(spelling),)
    inside = name.removeprefix("torch.")
    if inside.startswith(SUBMODULES):
        return (inside,)
    return (name,) if "." in name else (f"F.{name}", f"torch.{name}")


def _target(name: str) -> str:
    if name.startswith("."):
        return name[1:]
    prefix, _, rest = name.partition(".")
    return f"{MODULES.get(prefix, f'torch.{prefix}')}.{rest}"


def _lines(file: str) -> list[str]:
    return (FOLDER / file).read_text(encoding="utf-8").splitlines()
