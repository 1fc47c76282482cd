"""Reads the signatures of torch's functions for the tables, from the dispatcher's schemas or else from Python."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._jit_internal import boolean_dispatched

from tools.catalogue.denied import argument_refusal


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of one overload; `str` is its text in the tables."""

    name: str
    type: str
    default: str | None = None
    keyword_only: bool = False
    variadic: bool = False

    def __str__(self) -> str:
        text = ("*" if self.variadic else "") + self.name + (f": {self.type}" if self.type else "")
        return text if self.default is None else f"{text} = {self.default}"


Signature = tuple[Parameter, ...]

DISPATCHED = frozenset(torch._C._dispatch_get_all_op_names())
SCHEMA_TYPES = {"number": "Scalar", "ScalarType": "dtype", "List[number]": "Scalar[]"}
SCALAR_TYPES = {4: "int64"}  # c10::ScalarType, only the values that are defaults in schemas
ANNOTATIONS = (
    (r"typing\.Literal\[[^]]*\]", "str"),
    (r"(?:tuple|list|(?:collections\.abc\.)?Sequence)\[int(?:, [.\w]+)*\]", "int[]"),
    (r"tuple\[float(?: \| [\w.]+)?(?:, float(?: \| [\w.]+)?)+\]", "float[]"),
    (r"list\[([\w.]+)\]", r"\1[]"),
    (r"^Iterable$", "float[]"),
)
BY_NAME = (
    {"input": "Tensor", "A": "Tensor", "M": "int", "a": "float[]"}
    | dict.fromkeys(("kernel_size", "stride", "padding", "dilation", "output_size", "size"), "int|int[]")
    | dict.fromkeys(("output_ratio", "scale_factor"), "float|float[]")
)
MACHINERY = ("Generator", "Device", "Layout", "MemoryFormat", "Stream", "Storage", "Dimname")


def signatures(name: str, function: Callable[..., Any]) -> list[Signature]:
    """Returns every overload of `function`, called `name` in the tables, without the denied arguments."""
    function = boolean_dispatched[function]["if_false"] if function in boolean_dispatched else function
    method = name.startswith(".")
    if inspect.isfunction(function):
        found = [python_signature(function, method)]
    else:
        found = [_for_python(signature, method) for signature in schemas(function.__name__)]
    kept = [allowed_arguments(name, signature) for signature in found]
    return sorted(set(kept), key=lambda signature: (len(signature), render(signature)))


def schemas(operator: str) -> Iterator[Signature]:
    """Yields the overloads of an `aten` operator that Python can call and that write into no argument."""
    for schema in torch._C._jit_get_schemas_for_operator(f"aten::{operator}"):
        overload = f"{schema.name}.{schema.overload_name}".rstrip(".")
        types = [str(argument.real_type) for argument in schema.arguments]
        written = any(argument.alias_info and argument.alias_info.is_write for argument in schema.arguments)
        if overload in DISPATCHED and not written and "Dimname" not in str(schema):
            yield tuple(
                Parameter(
                    argument.name,
                    _schema_type(kind),
                    _schema_default(argument, kind),
                    argument.kwarg_only,
                )
                for argument, kind in zip(schema.arguments, types, strict=True)
            )


def python_signature(function: Callable[..., Any], method: bool = False) -> Signature:
    """Returns the signature of a function written in Python."""
    parameters = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    return tuple(
        Parameter(
            parameter.name,
            _python_type(parameter),
            None if parameter.default is inspect.Parameter.empty else _literal(parameter.default),
            parameter.kind is inspect.Parameter.KEYWORD_ONLY,
            parameter.kind is inspect.Parameter.VAR_POSITIONAL,
        )
        for parameter in parameters
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    )


def allowed_arguments(name: str, signature: Signature) -> Signature:
    """Returns `signature` without denied arguments; arguments after a denied one become keyword-only."""
    kept: list[Parameter] = []
    removed = False
    for parameter in signature:
        if argument_refusal(name, parameter.name) or parameter.type.rstrip("?") in MACHINERY:
            removed = True
        else:
            kept.append(replace(parameter, keyword_only=True) if removed and not parameter.variadic else parameter)
    return tuple(kept)


def render(signature: Signature) -> str:
    """Returns the text of a signature in the tables: `input: Tensor, dim: int, *, dtype: dtype? = None`."""
    parts: list[str] = []
    starred = False
    for parameter in sorted(signature, key=lambda parameter: parameter.keyword_only):
        if parameter.keyword_only and not starred:
            parts.append("*")
        starred = starred or parameter.keyword_only or parameter.variadic
        parts.append(str(parameter))
    return ", ".join(parts)


def parse(text: str) -> Signature:
    """Parses a signature written by hand in the form that `render` returns."""
    keyword_only = False
    found: list[Parameter] = []
    for part in filter(None, re.split(r",\s*(?![^(\[]*[)\]])", text)):
        if part == "*":
            keyword_only = True
            continue
        declaration, _, default = part.partition(" = ")
        name, _, kind = declaration.partition(": ")
        found.append(Parameter(name.lstrip("*"), kind, default or None, keyword_only, name.startswith("*")))
        keyword_only = keyword_only or name.startswith("*")
    return tuple(found)


def _for_python(signature: Signature, method: bool) -> Signature:
    """Renames a schema's arguments as Python's binding does; a lone list of integers becomes variadic."""
    if method:
        signature = tuple(parameter for parameter in signature if parameter.name != "self")
    else:
        signature = tuple(replace(p, name="input") if p.name == "self" else p for p in signature)
    positional = [parameter for parameter in signature if not parameter.keyword_only]
    if len(positional) == 1 and positional[0].type.startswith("int[]") and positional[0].default is None:
        signature = tuple(replace(p, variadic=True) if p == positional[0] else p for p in signature)
    return signature


def _schema_type(kind: str) -> str:
    optional = kind.startswith("Optional[")
    kind = kind.removeprefix("Optional[").removesuffix("]") if optional else kind
    if kind in SCHEMA_TYPES:
        kind = SCHEMA_TYPES[kind]
    elif kind.startswith("List["):
        inner = kind.removeprefix("List[").removesuffix("]")
        kind = _schema_type(inner).rstrip("?") + "[]"
    return kind + ("?" if optional else "")


def _schema_default(argument: Any, kind: str) -> str | None:
    if not argument.has_default_value():
        return None
    is_dtype = "ScalarType" in kind and isinstance(argument.default_value, int)
    return SCALAR_TYPES[argument.default_value] if is_dtype else _literal(argument.default_value)


def _literal(value: object) -> str:
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else repr(value)


def _python_type(parameter: inspect.Parameter) -> str:
    """Returns the type in the tables of a parameter; torch annotates dtypes as `int`, broadcasting lists as `None`."""
    annotation = parameter.annotation
    if parameter.name == "dtype":
        return "dtype?"
    if annotation in (inspect.Parameter.empty, type(None), None):
        kind = BY_NAME.get(parameter.name, "")
        return kind + "?" if kind and parameter.default is None else kind
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    for pattern, word in ANNOTATIONS:
        text = re.sub(pattern, word, text)
    words = [part for part in text.split(" | ") if part not in ("None", "torch.Size") and "MaskedTensor" not in part]
    joined = "|".join(dict.fromkeys(words)).replace("torch.", "")
    optional = "?" if "None" in text.split(" | ") else ""
    return joined + optional if re.fullmatch(r"[A-Za-z|\[\]]+", joined) and "Any" not in joined else ""
