"""Collects the problems of a config, each at its place in the text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from runner.config.document import Document
from runner.config.fields import FieldError
from runner.config.frozen import Frozen
from runner.config.text.nodes import Path, describe
from runner.errors import Problem, listing, nearest

Model = TypeVar("Model", bound=Frozen)


class TooManyFaults(Exception):
    """Raised at the limit on problems: nobody reads more, and going on would only cost time and memory."""


class Faults:
    """Collects the problems of a document while its values are built."""

    def __init__(self, document: Document, problems: list[Problem], most: int) -> None:
        self.document = document
        self.problems = problems
        self.count = 0
        self.misspelt: set[str] = set()
        """Top-level keys that seem to be misspelt, and so are not reported as missing."""
        self._most = len(problems) + most

    def add(self, path: Path, message: str, hint: str | None, *, key: bool = False) -> None:
        """Adds a problem; raises TooManyFaults if there are then more than the limit."""
        self.count += 1
        self.problems.append(self.document.problem(path, message, hint, key=key))
        if len(self.problems) > self._most:
            raise TooManyFaults

    def unknown(self, path: Path, name: str, owner: str, names: Iterable[str]) -> None:
        """Adds a problem for the key `name` under `path` that `owner` does not have; the hint lists `names`."""
        hint = accepted_names(names, name)
        if ":" in name:
            hint = f"put a space after `:`; {hint}"
        self.add((*path, name), f"{owner} has no key `{name}`", hint, key=True)

    def build(
        self, model: type[Model], data: Mapping[str, Any], path: Path, within: Mapping[str, Path] | None = None
    ) -> Model | None:
        """Returns a frozen model of `data`, or None after adding its problems.

        Args:
            data: the values, under the keys of the config.
            path: the path of `data` in the config.
            within: the paths of values whose key a short form leaves out.
        """
        keys = keys_of(model)
        unknown = [key for key in data if key not in keys]
        for key in unknown:
            self.unknown(path, key, model.noun, keys)
        try:
            built = model.model_validate({key: value for key, value in data.items() if key in keys})
        except ValidationError as error:
            meant = {nearest(name, keys) for name in unknown} | set(self.misspelt if not path else ())
            for fault in error.errors(include_url=False):
                if fault["type"] != "missing" or fault["loc"][-1] not in meant:
                    self._add_fault(model, fault, path, within or {})
            return None
        return None if unknown else built

    def check_each(self, items: Iterable[tuple[str | int, Any]], check: Callable[[object], object], path: Path) -> bool:
        """Checks the values under `path` one by one, and returns whether all are valid."""
        before = self.count
        for key, value in items:
            try:
                check(value)
            except FieldError as error:
                self.add((*path, key), error.message, error.hint)
        return self.count == before

    def _add_fault(self, model: type[Frozen], fault: Any, path: Path, within: Mapping[str, Path]) -> None:
        location: Path = fault["loc"]
        first = location[0] if location else ""
        place = (*within[str(first)], *location[1:]) if first in within else (*path, *location)
        kind = fault["type"]
        if kind == "missing":
            self.add(
                path,
                f"{model.noun} needs `{location[-1]}`",
                f"`{location[-1]}`: {description_of(model, str(location[-1]))}",
                key=True,
            )
        elif kind == "value_error" and isinstance(fault["ctx"]["error"], FieldError):
            self.add(place, fault["ctx"]["error"].message, fault["ctx"]["error"].hint)
        elif kind in _CONTAINERS:
            what, hint = _CONTAINERS[kind]
            self.add(place, f"expected {what}, found {describe(fault['input'])}", hint)
        else:
            raise AssertionError(f"a fault of a kind that no model has: {fault}")


_CONTAINERS: dict[str, tuple[str, str | None]] = {
    "tuple_type": ("a list", "write it in `[…]`"),
    "dict_type": ("a mapping", "write `name: value` lines below the key"),
}


@functools.cache
def keys_of(model: type[Frozen]) -> tuple[str, ...]:
    """Returns the keys of a model as a config writes them, in the order of the model; those of its base follow."""
    fields = sorted(model.model_fields.items(), key=lambda item: item[0] not in model.__annotations__)
    return tuple(field.alias or name for name, field in fields)


def description_of(model: type[Frozen], key: str) -> str:
    """The first sentence of a field's description, as a part of another sentence."""
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            first = (field.description or key).split(". ")[0].removesuffix(".")
            return first[0].lower() + first[1:]
    return key


def accepted_names(names: Iterable[str], wrong: str) -> str:
    """Returns a hint that lists the accepted names, and suggests the one nearest to `wrong`."""
    if wrong[:1].isdigit():
        return "the `,` before it ends an entry: write a point in a number, and a list in `[…]`"
    names = list(names)
    found = nearest(wrong, names)
    shown = f"it takes {listing(names)}" if names else "it takes none"
    return f"{shown}; did you mean `{found}`?" if found else shown
