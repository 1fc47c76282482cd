"""The types of the models' fields, each with a check that explains what is wrong with a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from runner.config.text.nodes import describe
from runner.errors import did_you_mean, nearest

DTYPES: dict[str, str] = {
    **{
        name: name
        for name in (
            "bfloat16", "float16", "float32", "float64", "complex64", "complex128",
            "bool", "uint8", "int8", "int16", "int32", "int64",
            "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
        )
    },
    "half": "float16", "float": "float32", "double": "float64", "cfloat": "complex64", "cdouble": "complex128",
    "short": "int16", "int": "int32", "long": "int64",
}  # fmt: skip
"""Accepted spellings of dtypes, without the optional `torch.`, and the dtype that each means."""

FLOATING_DTYPES = ("bfloat16", "float16", "float32", "float64", "complex64", "complex128")

_DEVICE = r"cpu|(?:cuda|mps)(?::[0-9]{1,4})?"
_RUN_NAME = r"[A-Za-z0-9_-]+"
FILLS = ("mean", "median")
DATES = ("days", "seconds")
LONGEST_NAME = 100
"""The most characters of a run's name, which becomes part of file and folder names."""


class FieldError(ValueError):
    """A fault of one value: what is wrong, and a hint."""

    def __init__(self, message: str, hint: str) -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)


def expected(what: str, value: object, hint: str) -> FieldError:
    return FieldError(f"expected {what}, found {describe(value)}", hint)


def check_number(value: object) -> int | float | str:
    """Accepts a number, or text: an expression over scalar constants that planning evaluates."""
    what = "a number or an expression over scalar constants"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise expected(what, value, "write a number, or text such as `2 * n`")
    return _not_empty(value, what)


def check_integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise expected("an integer", value, "write a whole number, such as 0")
    return value


def check_seed(value: object) -> int:
    if check_integer(value) < 0:
        raise FieldError(f"a seed is 0 or more, and this is {value}", "write one from 0 to 2^63 - 1")
    return check_integer(value)


def check_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise expected("`true` or `false`", value, "write one of the two; `yes`, `no`, `on` and `off` are text here")
    return value


def check_text(value: object) -> str:
    if not isinstance(value, str):
        raise expected("text", value, "quote it" if isinstance(value, bool | int | float) else "write text here")
    return value


def check_result(value: object) -> str:
    """Accepts the name of a result of `evaluate`."""
    if not isinstance(value, str) or not value.strip():
        raise expected("the name of a result of `evaluate`", value, "write one such as `valid.loss`")
    return value


def check_rate(value: object) -> str:
    """Accepts the name of a parameter that is a rate."""
    if not isinstance(value, str) or not value.strip():
        hint = "declare the parameter `rate: {init: 0.1, requires_grad: false}`, and write its name"
        raise expected("the name of a parameter", value, hint)
    return value


def check_filled(value: object) -> str:
    """Accepts text with a character."""
    return _not_empty(check_text(value), "text")


def check_expression(value: object) -> str:
    """Accepts an expression; a bare number counts as one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    if not isinstance(value, str):
        raise expected("an expression", value, "write text, such as `2 * x`")
    return _not_empty(value, "an expression")


def check_statements(value: object) -> str:
    """Accepts an expression of statements, one a line."""
    if isinstance(value, list | dict):
        raise expected("an expression", value, "write `|` after the key, and one statement on each line below")
    return check_expression(value)


def check_assigned(value: object) -> int | float | bool | str:
    if not isinstance(value, int | float | bool | str):
        raise expected("an expression or a number", value, "write text, such as `2 * x`")
    return _not_empty(value, "an expression or a number")


def check_gradient(value: object) -> int | float | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        hint = "write text, such as `ones(3)`"
        raise expected("an expression for the gradient of the objective", value, hint)
    return _not_empty(value, "an expression for the gradient of the objective")


def check_dtype(value: object) -> str:
    name = value.removeprefix("torch.") if isinstance(value, str) else ""
    if name not in DTYPES:
        raise expected("a dtype", value, f"dtypes are {', '.join(sorted(set(DTYPES.values())))}")
    return DTYPES[name]


def check_floating_dtype(value: object) -> str:
    name = value.removeprefix("torch.") if isinstance(value, str) else ""
    if DTYPES.get(name) not in FLOATING_DTYPES:
        raise expected("a floating or complex dtype", value, f"write one of {', '.join(sorted(FLOATING_DTYPES))}")
    return DTYPES[name]


def check_device(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(_DEVICE, value):
        raise expected("a device", value, "devices are cpu, cuda, cuda:1, mps")
    return value


def check_run_name(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is not None and (not isinstance(value, str) or not re.fullmatch(_RUN_NAME, value)):
        raise expected("a name of letters, digits, `-` and `_`", value, "write one such as `my-run`")
    if value is not None and len(value) > LONGEST_NAME:
        message = f"a name of {len(value):,} characters, and at most {LONGEST_NAME} are allowed"
        raise FieldError(message, "write a shorter one: it becomes part of file names")
    return value


def check_share(value: object) -> tuple[int | float | str, int | float | str]:
    """Accepts the two ends of a share."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise expected("two fractions", value, "write `[0, 0.8]`")
    first, last = map(check_number, value)
    return first, last


def check_names(value: object) -> tuple[str, ...] | None:
    """Accepts one name or a list of names, and returns a tuple."""
    if value is None:
        return None
    items = value if isinstance(value, list | tuple) else [value]
    for item in items:
        if not isinstance(item, str) or not item:
            raise expected("a name or a list of names", item, "write `x`, or `[x, y]`")
    if not items:
        raise FieldError("the list has no names", "remove the key, or name one")
    return tuple(items)


def check_columns(value: object) -> str | tuple[str, ...] | None:
    """Accepts one column or a list of columns; a list of one column is still stacked. Numbers are names too."""
    names = check_names([_name(item) for item in value] if isinstance(value, list | tuple) else _name(value))
    return names[0] if names is not None and not isinstance(value, list | tuple) else names


def _name(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check_character(value: object) -> str:
    """Accepts one ASCII character; digits, letters and line ends separate nothing."""
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value.isalnum() or value in "\r\n\0":
        raise expected("one character that is no letter or digit", value, 'write one such as `";"`')
    return value


def check_decimal(value: object) -> str:
    """Accepts a character as `check_character` does that is no part of an integer."""
    character = check_character(value)
    if character in "+-_":
        raise expected("a decimal point", value, 'write one such as `","`')
    return character


def check_encoding(value: object) -> str:
    """Accepts the name of an encoding of text."""
    name = value.lower().replace("-", "_").replace(" ", "_") if isinstance(value, str) else ""
    known = encodings()
    if name not in known:
        shown = nearest(name, known)
        hint = f"did you mean `{shown.replace('_', '-')}`?" if shown else "write one such as utf-8, latin-1 or utf-16"
        raise expected("an encoding of text", value, hint)
    return known[name]


def encodings() -> dict[str, str]:
    """Returns every accepted name of an encoding, and the codec that it means."""
    from encodings.aliases import aliases

    text = {codec for codec in aliases.values() if not codec.endswith("_codec")} | {"utf_8_sig"}
    text -= {"mbcs", "rot_13", "utf_7"}
    return {name: codec for name, codec in (*aliases.items(), *((codec, codec) for codec in text)) if codec in text}


def check_header(value: object) -> bool | tuple[str, ...]:
    """Accepts `true`, `false`, or the names of the columns."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise expected("`true`, `false` or a list of names", value, "write the name of each column in `[…]`")
    for name in value:
        if not isinstance(name, str) or not name.strip():
            raise expected("the name of a column", name, "write a name, in quotes if it looks like a number")
    names = tuple(name.strip() for name in value)
    check_distinct(names, "column")
    return names


def check_distinct(items: Sequence[object], noun: str) -> None:
    """Raises `FieldError` if a list has something twice."""
    seen: set[object] = set()
    for item in items:
        if item in seen:
            raise FieldError(f"the {noun} `{item}` is listed twice", "remove one of them")
        seen.add(item)


def check_class_list(value: object) -> str | tuple[str | int, ...]:
    """Accepts a list of classes, texts or integers, or `sorted`. True and false are texts too."""
    if value == "sorted":
        return "sorted"
    if not isinstance(value, list | tuple) or not value:
        raise expected("a list of classes or `sorted`", value, "write `sorted`, or the classes in their order")
    for item in value:
        if not isinstance(item, str | int) or item == "":
            raise expected("a class", item, "a class is text or an integer")
    classes = tuple(str(item).lower() if isinstance(item, bool) else item for item in value)
    if any(isinstance(item, str) for item in classes):
        classes = tuple(str(item).strip() for item in classes)
    check_distinct(classes, "class")
    return classes


def check_fill(value: object) -> int | float | str:
    """Accepts what replaces missing numbers: a number, `mean` or `median`."""
    if value != value:
        raise FieldError("`fill` replaces NaN, and this is NaN", "write `mean`, `median` or a number")
    if value in FILLS or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    hint = (isinstance(value, str) and did_you_mean(value, FILLS)) or "write `mean`, `median` or a number"
    raise expected("what replaces missing numbers", value, hint)


def check_date(value: object) -> str:
    """Accepts the unit of the numbers that dates become."""
    if not isinstance(value, str) or value not in DATES:
        raise expected("`days` or `seconds`", value, "both count from 1970-01-01")
    return value


def check_missing(value: object) -> tuple[str, ...]:
    """Accepts a list of texts. Null is a blank cell, as empty text is; numbers count as they are written."""
    if not isinstance(value, list | tuple) or not value:
        raise expected("a list of texts", value, "write one such as `[NA, null]`")
    for text in value:
        if text is not None and (isinstance(text, bool) or not isinstance(text, str | int | float)):
            raise expected("a text", text, "write one such as `NA`, or `null` for a blank cell")
    return tuple(dict.fromkeys("" if text is None else str(text).strip() for text in value))


def check_text_or_null(value: object) -> str | None:
    """Accepts text or null."""
    return None if value is None else check_text(value)


Given = TypeVar("Given")


def _not_empty(value: Given, what: str) -> Given:
    if isinstance(value, str) and not value.strip():
        raise FieldError(f"expected {what}, found empty text", "write one, or remove the key")
    return value


_NUMBER_SCHEMA: dict[str, Any] = {"type": ["number", "string"]}
_NAMES_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}

_COLUMNS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": ["string", "integer"]},
        {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1},
    ]
}

if TYPE_CHECKING:
    Number = int | float | str
    Integer = int
    Seed = int
    Flag = bool
    Text = str
    Result = str
    Rate = str
    TextOrNull = str | None
    Expression = str
    Statements = str
    Assigned = int | float | bool | str
    Gradient = int | float | str
    Share = tuple[int | float | str, int | float | str]
    Dtype = str
    FloatingDtype = str
    Device = str
    RunName = str | None
    Character = str
    DecimalPoint = str
    Encoding = str
    Filled = str
    Header = bool | tuple[str, ...]
    Missing = tuple[str, ...]
    Names = tuple[str, ...] | None
    Columns = str | tuple[str, ...] | None
else:

    def _kind(check: Callable[[object], object], schema: dict[str, Any]) -> Any:
        # `Any` instead of the real type: pydantic would build a schema that nothing uses, and take twice as long
        return Annotated[Any, PlainValidator(check), WithJsonSchema(schema)]

    Number = _kind(check_number, _NUMBER_SCHEMA)
    Integer = _kind(check_integer, {"type": "integer"})
    Seed = _kind(check_seed, {"type": "integer", "minimum": 0})
    Flag = _kind(check_flag, {"type": "boolean"})
    Text = _kind(check_text, {"type": "string"})
    Result = _kind(check_result, {"type": "string", "pattern": r"\S"})
    Rate = _kind(check_rate, {"type": "string", "pattern": r"\S"})
    TextOrNull = _kind(check_text_or_null, {"type": ["string", "null"]})
    Expression = _kind(check_expression, {"type": ["string", "number"]})
    Statements = _kind(check_statements, {"type": ["string", "number"]})
    Assigned = _kind(check_assigned, {"type": ["string", "number", "boolean"]})
    Gradient = _kind(check_gradient, _NUMBER_SCHEMA)
    Share = _kind(check_share, {"type": "array", "items": _NUMBER_SCHEMA, "minItems": 2, "maxItems": 2})
    Dtype = _kind(check_dtype, {"enum": [*DTYPES, *(f"torch.{name}" for name in DTYPES)]})
    FloatingDtype = _kind(
        check_floating_dtype, {"enum": [name for name, true in DTYPES.items() if true in FLOATING_DTYPES]}
    )
    Device = _kind(
        check_device,
        {"type": "string", "pattern": f"^(?:{_DEVICE})$", "examples": ["cpu", "cuda", "cuda:1", "mps"]},
    )
    RunName = _kind(
        check_run_name, {"type": ["string", "integer"], "pattern": f"^{_RUN_NAME}$", "maxLength": LONGEST_NAME}
    )
    Names = _kind(check_names, _NAMES_SCHEMA)
    Columns = _kind(check_columns, _COLUMNS_SCHEMA)
    Character = _kind(check_character, {"type": "string", "pattern": "^[^0-9A-Za-z\r\n]$"})
    DecimalPoint = _kind(check_decimal, {"type": "string", "pattern": "^[^0-9A-Za-z+_\r\n-]$"})
    Filled = _kind(check_filled, {"type": "string", "pattern": r"\S"})
    Encoding = _kind(check_encoding, {"type": "string", "examples": ["utf-8", "latin-1", "utf-16", "cp1252"]})
    Header = _kind(
        check_header,
        {
            "anyOf": [
                {"type": "boolean"},
                {"type": "array", "items": {"type": "string", "pattern": r"\S"}, "minItems": 1},
            ]
        },
    )
    Missing = _kind(check_missing, {"type": "array", "items": {"type": ["string", "number", "null"]}, "minItems": 1})
