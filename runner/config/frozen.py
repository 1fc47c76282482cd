"""What all models of a config share."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


def optional(description: str) -> Any:
    """A field that may be left out, and is None then."""
    return Field(default=None, description=description)


def default(value: object, description: str) -> Any:
    """A field that has a value where it is left out."""
    return Field(default=value, description=description)


class Frozen(BaseModel):
    """A part of a config; `noun` is what error texts call it."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())
    noun: ClassVar[str] = "this"
