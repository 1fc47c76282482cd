"""Checks the text of an expression on its own: its syntax, and that its names are free."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from runner.config import Config
from runner.faults import ConfigPath, Faults
from runner.language.text.faults import LanguageError, place_of
from runner.language.text.parse import assigned_names, parse_statements


def check_syntax(config: Config, faults: Faults) -> None:
    """Report what is wrong with the text alone, where faults elsewhere keep it from being lowered."""
    try:
        parse_statements(config.expression)
    except LanguageError as error:
        faults.language(("expression",), error)


def check_names(config: Config, faults: Faults) -> None:
    """Report named values that have the name of a parameter, a constant or a batch column."""
    text = config.expression
    try:
        statements = parse_statements(text)
    except LanguageError:  # reported where the expression is lowered
        return
    declared = list(_declared(config))
    for node in (node for statement in statements for node in ast.walk(statement)):
        for name in assigned_names(node, text) if isinstance(node, ast.Assign) else ():
            seen: set[str] = set()
            for role, where, path, other in declared:
                if name.id == other and role not in seen:
                    seen.add(role)
                    first = config.document.mark(path, key=True)
                    hint = where.format(first)
                    error = LanguageError(f"`{name.id}` is a {role} already", hint, place_of(name, text))
                    faults.language(("expression",), error)


def _declared(config: Config) -> Iterator[tuple[str, str, ConfigPath, str]]:
    """The names that are taken: what each is, the hint about its place, its path, the name."""
    for key, names in (("parameters", config.parameters), ("constants", config.constants)):
        role = key.removesuffix("s")
        yield from ((role, f"the {role} is at {{}}; rename one of them", (key, name), name) for name in names)
    for source, declared in config.data.items():
        for name in declared.columns:
            path = ("data", source, "columns", name)
            yield f"batch column of `{source}`", "it is declared at {}; rename one of them", path, name
