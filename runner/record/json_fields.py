"""Checks the kinds of the fields of untrusted JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value that a field may have."""

    name: str  # "text"
    accepts: Callable[[Any], bool]


def or_null(kind: Kind) -> Kind:
    """The kind that accepts null and the values of `kind`."""
    return Kind(f"{kind.name}, or null", lambda value: value is None or kind.accepts(value))


def list_of(kind: Kind, name: str) -> Kind:
    """The kind of lists with items of `kind`; `name` describes it in messages."""
    return Kind(name, lambda value: isinstance(value, list) and all(map(kind.accepts, value)))


def mapping_of(kind: Kind, name: str) -> Kind:
    """The kind of mappings with values of `kind`; `name` describes it in messages."""
    return Kind(name, lambda value: isinstance(value, dict) and all(map(kind.accepts, value.values())))


ANY = Kind("a value", lambda value: True)
TEXT = Kind("a string", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number, 0 or more", lambda value: type(value) is int and 0 <= value < 1 << 63)
INTEGER = Kind("a whole number", lambda value: type(value) is int)
DURATION = Kind(
    "a number of seconds", lambda value: type(value) in (int, float) and 0 <= value < 1e15 and math.isfinite(value)
)
MAPPING = mapping_of(ANY, "a mapping")
TEXTS = list_of(TEXT, "a list of strings")
PATHS = list_of(Kind("a path", lambda value: isinstance(value, str) and "\0" not in value), "a list of paths")


def fault_in(content: Mapping[str, Any], fields: Mapping[str, Kind], required: bool = True) -> str | None:
    """Describe the first field of the wrong kind; None if there is none. Other fields may have any value.

    Args:
        required: whether a missing field is a fault.
    """
    for name, kind in fields.items():
        if name not in content:
            if required:
                return f"it has no `{name}`"
        elif not kind.accepts(content[name]):
            return f"`{name}` is not {kind.name}"
    return None
