"""Reads parameters and constants: expands short forms and checks initialisers against the catalogue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runner.catalogue import Initialiser, initialisers
from runner.config.data_models import DIALECT_KEYS
from runner.config.fields import check_number
from runner.config.models import InitCall, InitExpression, TensorDeclaration
from runner.config.sections.data import check_dialect
from runner.config.sections.faults import Faults, accepted_names
from runner.config.text.nodes import Path, describe
from runner.errors import did_you_mean

_SAY_INIT = "write `init: 0`, a list, an initialiser such as `init: {normal: {std: 0.02}}`, or `file:`"


def read_parameters(value: Any, scalars: frozenset[str], faults: Faults) -> dict[str, TensorDeclaration]:
    """Returns the valid declarations of `parameters:`; problems of the others are added to `faults`."""
    declared: dict[str, TensorDeclaration] = {}
    for name, written in _mapping(value, "parameters", faults).items():
        path = ("parameters", name)
        tensor = _tensor(written, path, scalars, faults, f"parameter `{name}`")
        if tensor is None:
            continue
        if tensor.init is None and tensor.file is None:
            faults.add(path, f"parameter `{name}` has no `init`", _SAY_INIT, key=True)
            continue
        declared[name] = tensor
    return declared


def read_constants(
    value: Any, scalars: frozenset[str], faults: Faults
) -> dict[str, int | float | bool | str | TensorDeclaration]:
    """Returns the values of `constants:`: scalars as they are, tensors as declarations."""
    declared: dict[str, int | float | bool | str | TensorDeclaration] = {}
    for name, written in _mapping(value, "constants", faults).items():
        path = ("constants", name)
        if isinstance(written, str) and not written.strip():
            faults.add(
                path,
                f"constant `{name}` is empty text",
                "write a number, or an expression over the other scalar constants",
            )
        elif isinstance(written, int | float | bool | str):
            declared[name] = written
        else:
            tensor = _tensor(written, path, scalars, faults, f"constant `{name}`")
            if tensor is None:
                continue
            if tensor.requires_grad:
                faults.add(
                    (*path, "requires_grad"),
                    f"constant `{name}` cannot require a gradient",
                    "declare it under `parameters`",
                )
                continue
            declared[name] = tensor
    return declared


def scalar_names(value: Any) -> frozenset[str]:
    """Returns the names of the scalar constants in the plain value of `constants:`."""
    return (
        frozenset(name for name, written in value.items() if isinstance(written, int | float | str))
        if isinstance(value, dict)
        else frozenset()
    )


def _mapping(value: Any, key: str, faults: Faults) -> dict[str, Any]:
    if value is None or isinstance(value, dict):
        return value or {}
    faults.add(
        (key,),
        f"expected a mapping of names to tensors, found {describe(value)}",
        f"write `{key}:` and below it `name: value`",
    )
    return {}


def _tensor(written: Any, path: Path, scalars: frozenset[str], faults: Faults, noun: str) -> TensorDeclaration | None:
    before = faults.count
    if isinstance(written, dict):
        data = dict(written)
        within: dict[str, Path] = {}
    elif isinstance(written, list) or (isinstance(written, int | float) and not isinstance(written, bool)):
        data = {"init": written} if isinstance(written, list) else {"init": written, "shape": []}
        within = {"init": path, "shape": path}
    else:
        hint = "write it as `{init: …}`" if isinstance(written, str | bool) else _SAY_INIT
        if isinstance(written, str) and _CALL.fullmatch(written.strip()):
            hint = f'write it as `{{init: {{expression: "{written.strip()}"}}}}`'
        faults.add(
            path,
            f"expected a number, a list or a mapping for {noun}, found {describe(written)}",
            hint,
            key=written is None,
        )
        return None
    if data.get("init") is not None:
        data["init"] = _init(data["init"], within.get("init", (*path, "init")), scalars, faults)
    if data.get("init") is not None and data.get("file") is not None:
        faults.add((*path, "file"), f"{noun} has both `init` and `file`", "remove one", key=True)
    if data.get("columns") is not None and data.get("file") is None:
        faults.add((*path, "columns"), f"{noun} has `columns` and no `file`", "say which `file` they are in", key=True)
    if isinstance(data.get("shape"), list):
        place = within.get("shape", (*path, "shape"))
        if not faults.check_each(enumerate(data["shape"]), check_number, place):
            data["shape"] = None
    if data.get("file") is None:
        for key in DIALECT_KEYS:
            if key in data:
                faults.add((*path, key), f"{noun} has `{key}` and no `file`", "say which `file` is meant", key=True)
    tensor = faults.build(TensorDeclaration, data, path, within)
    if tensor is not None:
        check_dialect(tensor, path, faults)
    return tensor if faults.count == before else None


def _init(written: Any, path: Path, scalars: frozenset[str], faults: Faults) -> Any:
    """Returns the normal form of an `init`: a number, text, a nested tuple, an InitCall or an InitExpression."""
    if isinstance(written, list):
        return _nested(written, path, faults)
    if isinstance(written, str):
        if written in initialisers():
            return _call(written, {}, path, path, faults)
        if written.isidentifier() and written not in scalars:
            hint = did_you_mean(
                written,
                [*initialisers(), *scalars],
                "`steprun ops` lists the initialisers; an expression is `{expression: …}`",
            )
            faults.add(path, f"there is no initialiser or scalar constant `{written}`", hint)
        elif not written.strip():
            faults.add(path, "an empty `init`", _SAY_INIT)
        elif (called := _CALL.fullmatch(written.strip())) and _initialiser_called(called["name"]):
            name = _initialiser_called(called["name"])
            faults.add(
                path, f"`init` takes `{name}` as a mapping, not as a call", _as_mapping(name, called["arguments"])
            )
        return written
    if not isinstance(written, dict):
        return written
    if len(written) != 1:
        found = ", ".join(f"`{key}`" for key in written) or "none"
        faults.add(path, f"`init` takes one initialiser, found {found}", "keep one", key=True)
        return None
    name, arguments = next(iter(written.items()))
    if name == "expression":
        return faults.build(InitExpression, written, path)
    if name not in initialisers():
        others = f"initialisers are {', '.join(initialisers())}"
        hint = did_you_mean(name, ["expression", *initialisers()], others)
        faults.add((*path, name), f"there is no initialiser `{name}`", hint, key=True)
        return None
    return _call(name, arguments, path, (*path, name), faults)


_CALL = re.compile(r"(?:torch\.|nn\.init\.|init\.)*(?P<name>[A-Za-z_]+)\((?P<arguments>[^()]*)\)")


def _initialiser_called(name: str) -> str:
    """Returns the initialiser that `name` or `name_` calls, or an empty text."""
    plain = name.removesuffix("_")
    return plain if plain in initialisers() else ""


def _as_mapping(name: str, text: str) -> str:
    """Returns a hint with the call as a mapping: ``write `{uniform: {a: -1, b: 1}}` `` for `-1, 1`."""
    known = [argument.name for argument in initialisers()[name].arguments]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    arguments: dict[str, str] = {}
    for position, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if not equals:
            if position >= len(known):
                return f"`{name}` takes {', '.join(known) or 'no arguments'}"
            key, value = known[position], part
        arguments[key.strip()] = value.strip()
    if not arguments:
        return f"write `{name}`"
    return f"write `{{{name}: {{{', '.join(f'{key}: {value}' for key, value in arguments.items())}}}}}`"


def _nested(written: list[Any], path: Path, faults: Faults) -> tuple[Any, ...] | None:
    before = faults.count
    _check_shape(written, path, faults)
    return _as_tuple(written) if faults.count == before else None


def _check_shape(written: list[Any], path: Path, faults: Faults) -> tuple[int, ...] | None:
    """Returns the shape of a nested list, or None after adding its first problem."""
    first: tuple[int, ...] | None = None
    for index, item in enumerate(written):
        place = (*path, index)
        if isinstance(item, list):
            shape = _check_shape(item, place, faults)
            if shape is None:
                return None
        elif isinstance(item, int | float | str) and item != "":
            shape = ()
        else:
            faults.add(place, f"expected a number in the list, found {describe(item)}", "write a number, or remove it")
            return None
        if first is None:
            first = shape
        elif shape != first:
            message = f"a ragged list: the first item has shape {list(first)}, this one {list(shape)}"
            faults.add(place, message, "give every item the same shape")
            return None
    return (len(written), *(first or ()))


def _as_tuple(written: Any) -> Any:
    return tuple(map(_as_tuple, written)) if isinstance(written, list) else written


def _call(name: str, arguments: Any, path: Path, place: Path, faults: Faults) -> InitCall | None:
    table = initialisers()[name]
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        shown = f"`{{{name}: {{{table.arguments[0].name}: …}}}}`" if table.arguments else f"`{name}`"
        faults.add(place, f"expected a mapping of arguments, found {describe(arguments)}", f"write {shown}")
        return None
    before = faults.count
    known = {argument.name: argument for argument in table.arguments}
    for key, value in arguments.items():
        if key not in known:
            faults.add((*place, key), f"{name} has no argument `{key}`", accepted_names(known, key), key=True)
        elif not isinstance(value, int | float | str) or value == "":
            message = f"expected a number or an expression over scalar constants, found {describe(value)}"
            faults.add((*place, key), message, "write a number, or text such as `2 * n`")
    for key in _missing(table, arguments):
        faults.add(place, f"{name} needs the argument `{key}`", f"write `{{{name}: {{{key}: …}}}}`", key=True)
    return InitCall(name=name, arguments=arguments) if faults.count == before else None


def _missing(table: Initialiser, given: Mapping[str, Any]) -> list[str]:
    return [argument.name for argument in table.arguments if argument.default is None and argument.name not in given]
