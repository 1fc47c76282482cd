"""What all models of a config share."""

import textwrap
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from runner.text import Table, html_tables, printable

if TYPE_CHECKING:
    from runner.config.document import Document


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


class Documented(Frozen):
    """A model that was read from a document, whose text shows it."""

    _document: "Document | None" = PrivateAttr(default=None)

    @property
    def document(self) -> "Document":
        """The text of the config, with the place of each value, for errors and for the resolved text."""
        assert self._document is not None
        return self._document

    def __str__(self) -> str:
        return printable(self.document.to_yaml().rstrip("\n"))

    def _repr_html_(self) -> str:
        return html_tables([Table(_by_key(self.document.to_yaml()))])


def _by_key(text: str) -> list[tuple[str, str]]:
    """The top-level keys of YAML in block style, each with the text of its value."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if colon and line[0] not in " -":
            found.append((key, [rest.strip()]))
        else:
            found[-1][1].append(line)
    return [(key, textwrap.dedent("\n".join(lines[not lines[0] :]))) for key, lines in found]
