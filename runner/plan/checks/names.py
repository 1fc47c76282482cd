"""Checks the text of an expression alone, and the names that a config declares."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

from runner.catalogue import measures
from runner.config import Config
from runner.faults import ConfigPath, Faults
from runner.language.lowering.scope import Function
from runner.language.text.faults import LanguageError, place_of
from runner.language.text.parse import assigned_names, parse_statements


def check_syntax(config: Config, faults: Faults) -> None:
    """Report syntax errors when other problems prevent lowering the expression."""
    try:
        parse_statements(config.expression)
    except LanguageError as error:
        faults.language(("expression",), error)


def check_names(config: Config, faults: Faults) -> None:
    """Report named values whose name is already a parameter, a constant or a batch column."""
    text = config.expression
    try:
        statements = parse_statements(text)
    except LanguageError:  # reported where the expression is lowered
        return
    declared = _declared(config)
    for node in _assignments(statements):
        for name in assigned_names(node, text):
            for role, hint, path in declared.get(name.id, ()):
                hint = hint.format(config.document.mark(path, key=True))
                error = LanguageError(f"`{name.id}` is a {role} already", hint, place_of(name, text))
                faults.language(("expression",), error)


def _assignments(statements: Iterable[ast.stmt]) -> Iterator[ast.Assign]:
    """Yields the assignments among some statements, also those within loops."""
    for statement in statements:
        if isinstance(statement, ast.Assign):
            yield statement
        elif isinstance(statement, ast.For):
            yield from _assignments(statement.body)


def warn_of_replaced(functions: Mapping[str, Function], faults: Faults) -> None:
    """Warn of each function that has the name of a metric that steprun ships; calls then mean the function."""
    for name, function in functions.items():
        if name in measures():
            message = f"`{name}` is a metric of steprun too, and this function takes its place"
            path = ("functions", function.declaration)
            faults.warn(path, message, f"remove it to use the metric: `steprun ops {name}`", key=True)


def _declared(config: Config) -> dict[str, list[tuple[str, str, ConfigPath]]]:
    """The roles of each declared name, each with a hint that has a placeholder for its location, and with its path."""
    found: dict[str, list[tuple[str, str, ConfigPath]]] = {}
    for key, names in (("parameters", config.parameters), ("constants", config.constants)):
        role = key.removesuffix("s")
        for name in names:
            found.setdefault(name, []).append((role, f"the {role} is at {{}}; rename one of them", (key, name)))
    for name in config.objectives:
        hint = "it is declared at {}; rename one of them"
        found.setdefault(name, []).append(("declared objective", hint, ("objectives", name)))
    columns: dict[str, tuple[str, str, ConfigPath]] = {}
    for source, declared in config.data.items():
        for name in declared.columns:
            path = ("data", source, "columns", name)
            role = f"batch column of `{source}`"
            columns.setdefault(name, (role, "it is declared at {}; rename one of them", path))  # the first source's
    for name, column in columns.items():
        found.setdefault(name, []).append(column)
    return found
