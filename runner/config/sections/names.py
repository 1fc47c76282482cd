"""Checks names: parameters and constants share one namespace, and some words are reserved."""

from __future__ import annotations

import keyword
import re
from typing import Any

from runner.config.sections.faults import Faults

RESERVED = frozenset(keyword.kwlist) | frozenset(
    {"training", "iteration", "row", "step", "path", "value", "pi", "inf", "nan"}
)

_SIGNATURE = r"(?s)\s*([^\W\d]\w*)\s*\((.*)\)\s*"


def check_name(path: tuple[str | int, ...], name: str, owner: str, faults: Faults) -> bool:
    """Reports a name that is reserved or not an identifier; returns whether the name is valid."""
    if name in RESERVED:
        faults.add(
            path,
            f"`{name}` is reserved and cannot name {owner}",
            f"call it `{name}_`",
            key=True,
        )
    elif not name.isidentifier() or not _is_normal(name):
        hint = "write letters, digits and `_`, not beginning with a digit"
        faults.add(path, f"`{name}` cannot name {owner}", hint, key=True)
    else:
        return True
    return False


def check_tensor_names(data: dict[str, Any], faults: Faults) -> None:
    """Checks that the names of parameters and constants are valid, and each is used once."""
    parameters = data.get("parameters")
    constants = data.get("constants")
    parameters = parameters if isinstance(parameters, dict) else {}
    constants = constants if isinstance(constants, dict) else {}
    for name in parameters:
        check_name(("parameters", name), name, "a parameter", faults)
    for name in constants:
        if check_name(("constants", name), name, "a constant", faults) and name in parameters:
            first = faults.document.mark(("parameters", name), key=True)
            faults.add(
                ("constants", name),
                f"`{name}` is already a parameter",
                f"the parameter is at {first}; rename one",
                key=True,
            )


def check_data_names(data: dict[str, Any], faults: Faults) -> None:
    """Checks the names of data sources and their columns; columns share a namespace with parameters and constants."""
    sources = data.get("data")
    for source, declared in sources.items() if isinstance(sources, dict) else ():
        check_name(("data", source), source, "a data source", faults)
        columns = declared.get("columns") if isinstance(declared, dict) else None
        for name in columns if isinstance(columns, dict) else ():
            path = ("data", source, "columns", name)
            if not check_name(path, name, "a batch column", faults):
                continue
            _check_taken(path, name, data, faults)


def _check_taken(path: tuple[str | int, ...], name: str, data: dict[str, Any], faults: Faults) -> None:
    """Reports a name that is already that of a parameter or constant."""
    for key, role in (("parameters", "parameter"), ("constants", "constant")):
        declarations = data.get(key)
        if isinstance(declarations, dict) and name in declarations:
            first = faults.document.mark((key, name), key=True)
            faults.add(path, f"`{name}` is already a {role}", f"the {role} is at {first}; rename one", key=True)


def check_measured_names(data: dict[str, Any], faults: Faults) -> None:
    """Checks the names of metrics and objectives; objectives share a namespace with parameters and constants."""
    for key, owner in (("metrics", "a metric"), ("objectives", "an objective")):
        declared = data.get(key)
        for name in declared if isinstance(declared, dict) else ():
            if check_name((key, name), name, owner, faults) and key == "objectives":
                _check_taken((key, name), name, data, faults)
                _check_no_column((key, name), name, data, faults)


def _check_no_column(path: tuple[str | int, ...], name: str, data: dict[str, Any], faults: Faults) -> None:
    """Reports a name that is already that of a batch column."""
    sources = data.get("data")
    for source, declared in sources.items() if isinstance(sources, dict) else ():
        columns = declared.get("columns") if isinstance(declared, dict) else None
        if isinstance(columns, dict) and name in columns:
            first = faults.document.mark(("data", source, "columns", name), key=True)
            message = f"`{name}` is already a batch column of `{source}`"
            faults.add(path, message, f"the column is at {first}; rename one", key=True)
            return


def check_function_names(data: dict[str, Any], faults: Faults) -> None:
    """Checks the signatures of `functions:`: each has a name before its parenthesis, and each name is used once."""
    functions = data.get("functions")
    seen: dict[str, str] = {}
    for signature in functions if isinstance(functions, dict) else ():
        path = ("functions", signature)
        match = re.fullmatch(_SIGNATURE, signature)
        if match is None:
            faults.add(
                path, f"`{signature}` is not written like a function", "write `name(argument, …): body`", key=True
            )
            continue
        name = match[1]
        if not check_name(path, name, "a function", faults):
            continue
        if name in seen:
            first = faults.document.mark(("functions", seen[name]), key=True)
            faults.add(
                path, f"the function `{name}` is defined twice", f"the first is at {first}; rename one", key=True
            )
        seen.setdefault(name, signature)


def _is_normal(name: str) -> bool:
    """Whether Python's parser keeps the name unchanged: it normalizes identifiers to NFKC."""
    if name.isascii():
        return True
    import unicodedata

    return unicodedata.normalize("NFKC", name) == name
