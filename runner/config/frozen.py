"""What all models of a config share."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


def optional(description: str) -> Any:
    """A field that a config may omit; it is then None."""
    return Field(default=None, description=description)


def default(value: object, description: str) -> Any:
    """A field that a config may omit; it then has this value."""
    return Field(default=value, description=description)


class Frozen(BaseModel):
    """The base of the models: one part of a config, frozen. Messages call it by its `noun`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())
    noun: ClassVar[str] = "this"
