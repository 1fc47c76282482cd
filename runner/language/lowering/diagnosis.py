"""Converts exceptions of torch about an operation into errors in terms of the expression."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.language.measures.operands import OperandError
from runner.language.text.faults import LanguageError, place_of, source_of

_NOISE = (
    re.compile(r"^\[enforce fail at [^\]]*\]\s*\.?\s*"),
    re.compile(r"\n.*", re.DOTALL),
    re.compile(r", but you set 'torch\.use_deterministic_algorithms.*"),
    re.compile(r"\s*\(Could this error message be improved\?.*"),
    re.compile(r"\s*Exception raised from.*", re.DOTALL),
)
_BROADCASTING = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.and_, operator.or_, operator.xor,
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
}  # fmt: skip
_DATA_DEPENDENT = {"DynamicOutputShapeException", "DataDependentOutputException", "UnsupportedOperatorException"}
"""Exceptions of tensors without memory, if an operation reads their values."""

_OF_DTYPES = re.compile(r"expected scalar type|same dtype|must match.*dtype|dtype.*must match")
"""Messages of torch about incompatible dtypes."""

_OF_INTEGERS = re.compile(
    r"to be Long|be Long but|Long, Int;|LongTensor|int32(?:/| or )int64|a long tensor|must be long, int"
    r"|scalar type Long but|not implemented for '(?:Float|Double)'"
)
"""Messages of torch about floating-point numbers where an operation takes integers."""

_OF_FLOATS = re.compile(
    r"could not infer output dtype|input dtype should be either floating point or complex"
    r"|only support(?:s)? floating point and complex dtypes"
)
"""Messages of torch about integers where an operation takes floating-point numbers."""

_FLOATS_HINT = "convert it with `.to(float32)`, or give a batch column a floating `dtype`"
_FIRST_ARE_INTEGERS = frozenset({"embedding", "embedding_bag", "one_hot"})
_INTEGERS_BEFORE_LAST = frozenset({"index_add", "index_copy", "scatter", "scatter_add", "scatter_reduce"})

_OF_TENSORS = re.compile(
    r"must be Tensor, not (?:float|int|bool)\b|but got (?:float|int|bool)$|'(?:float|int|bool)' object has no attribute"
)
"""Messages of torch about numbers where an operation takes tensors."""

READ_BACK = "value out of a tracing tensor"
"""Part of torch's message for an operation that reads a number of a tensor while it is traced."""

READS_BACK = "it reads a number back from a tensor, which no compiled step can"

_COMBINATION = re.compile(r"received an invalid combination of arguments - got \((.*)\), but expected")
_ALLOCATION = re.compile(
    r"can't allocate memory(?:.*tried to allocate (\d+) bytes)?|not enough memory|bad_alloc|out of memory"
    r"|RESOURCE_EXHAUSTED(?:.*allocating (\d+) bytes)?",  # of XLA
    re.DOTALL,
)


class AllocationError(LanguageError):
    """An operation needs more memory than the process may use: `bytes`, if torch reports the number."""

    bytes: int | None = None


def explain(
    error: Exception,
    node: ast.AST,
    text: str,
    origin: Hashable | None,
    target: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> LanguageError:
    """Builds the error of one operation, at its place: the mismatched shapes, else the message of torch."""
    place = place_of(node, text)
    shown = source_of(node, text)
    memory = memory_message(error)
    if memory is not None:
        more = "make it smaller, or raise the limit with --max-memory"
        fault = AllocationError(f"`{shown}` {memory}", more, place, origin)
        fault.bytes = _bytes_tried(error)
        return fault
    if type(error).__name__ in _DATA_DEPENDENT:
        message = f"the result of `{shown}` depends on data, but a config of more than 64 MiB is planned without it"
        return LanguageError(message, "write it with a mask: `where(x > 0, x, 0)`", place, origin)
    message = _shapes(node, text, target, args) or torch_message(error)
    hint = error.hint if isinstance(error, OperandError) else _hint(message, target, node, args)
    if _OF_FLOATS.search(message):
        kinds = [dtype_name(value.dtype) for value in args if isinstance(value, Tensor)]
        message = f"`{shown}` needs floating-point numbers, and its tensor is {kinds[0]}" if kinds else message
        return LanguageError(message, _FLOATS_HINT, place, origin)
    if hint is None and _OF_INTEGERS.search(message) and any(_is_floating(value) for value in args):
        hint = _integers_hint(node)
    if not message.startswith(("shapes", "inner")):
        message = f"`{shown}`: {message}"
        tensors = [value for value in args if isinstance(value, Tensor)]
        shapes = [f"{tuple(value.shape)}" for value in tensors]
        if hint is None and len(shapes) == 1:
            hint = f"its tensor has the shape {shapes[0]}"
        elif hint is None and len({value.dtype for value in tensors}) > 1:
            dtypes = [dtype_name(value.dtype) for value in tensors]
            hint = f"its tensors are {', '.join(map(' '.join, zip(dtypes, shapes, strict=True)))}"
        elif hint is None and shapes:
            hint = f"its tensors have the shapes {', '.join(shapes)}"
        elif hint is None and isinstance(node, ast.Call):
            hint = f"`steprun ops {source_of(node.func, text)}` shows what it takes"
        elif hint is None:
            hint = "use a smaller index" if isinstance(node, ast.Subscript) else "change its operands"
    return LanguageError(message, hint, place, origin)


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _integers_hint(node: ast.AST) -> str:
    """Names the operand that should be integers, where it has a name."""
    found: ast.AST = node
    if isinstance(node, ast.Subscript):
        found = node.slice
    elif isinstance(node, ast.Call) and node.args:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        place = 0 if name in _FIRST_ARE_INTEGERS else -2 if name in _INTEGERS_BEFORE_LAST else -1
        named = [word.value for word in node.keywords if word.arg in ("target", "index", "indices")]
        found = named[0] if named else node.args[place if -place <= len(node.args) else 0]
    if isinstance(found, ast.Name):
        return f"`{found.id}` has to be integers: `{found.id}.to(int64)`, or `dtype: {{{found.id}: int64}}` in its data"
    return "convert its floating-point operand: `y.to(int64)`, or `dtype: {y: int64}` in its data"


def memory_message(error: BaseException) -> str | None:
    """Returns the message for a failed allocation; None for any other error."""
    if not isinstance(error, MemoryError) and not _ALLOCATION.search(str(error)):
        return None
    tried = _bytes_tried(error)
    if tried is None:
        return "does not fit into memory"
    size = f"{tried / 2**30:,.1f} GiB" if tried >= 1 << 30 else f"{tried / 2**20:.1f} MiB"
    return f"does not fit into memory: it needs {size}"


def _bytes_tried(error: BaseException) -> int | None:
    tried = _ALLOCATION.search(str(error))
    found = None if tried is None else tried[1] or tried[2]
    return int(found) if found else None


def device_hint(message: str) -> str | None:
    """Returns a hint for an operation that torch rejects as nondeterministic on this device; else None."""
    return "use another operation, or `device: cpu`" if "deterministic implementation" in message else None


def torch_message(error: BaseException) -> str:
    """Returns the first line of a message of torch, without its prefixes and full stop."""
    text = str(error)
    for noise in _NOISE:
        text = noise.sub("", text)
    if READ_BACK in text:
        return READS_BACK
    taken = _COMBINATION.search(text)
    if taken:
        return f"it does not take ({taken[1]})"
    text = text.strip().rstrip(".:")
    if re.match(r"[A-Z][a-z]*\b", text):
        text = text[0].lower() + text[1:]
    return text or type(error).__name__


def _shapes(node: ast.AST, text: str, target: Any, args: tuple[Any, ...]) -> str | None:
    if (
        not isinstance(node, (ast.BinOp, ast.Compare))
        or len(args) != 2
        or not all(isinstance(value, Tensor) for value in args)
    ):
        return None
    left, right = (tuple(value.shape) for value in args)
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.left, node.comparators[0])
    names = [source_of(side, text) for side in sides]
    operands = f"`{names[0]}` is {left}, `{names[1]}` is {right}"
    if target is operator.matmul and left and right and left[-1] != right[-2 if len(right) > 1 else -1]:
        return f"inner sizes {left[-1]} and {right[-2 if len(right) > 1 else -1]} of a product differ: {operands}"
    if target in _BROADCASTING and not _broadcast(left, right):
        return f"shapes {left} and {right} do not broadcast: {operands}"
    return None


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    return all(a == b or a == 1 or b == 1 for a, b in zip(reversed(left), reversed(right), strict=False))


def _hint(message: str, target: Any, node: ast.AST, args: Sequence[Any]) -> str | None:
    if message.startswith("inner sizes"):
        return "transpose one side with `.mT`, or change its shape"
    if message.startswith("shapes"):
        return "sizes are compared from the last dimension on; `unsqueeze` or `reshape` one side"
    if _OF_TENSORS.search(message):
        return "make a tensor of the number: `tensor(…)`"
    if target is operator.xor:
        return "`^` is exclusive or; a power is `x ** 2`"
    of_integers = _OF_INTEGERS.search(message) is not None  # torch before 2.13 words it as if dtypes differed
    if "result type" in message or (_OF_DTYPES.search(message) and not of_integers):
        cast = _cast(node, args)
        if cast is not None and "result type" in message:
            return f"cast it: `{cast[0]}.to({cast[1]})`, or write `dtype: {{{cast[0]}: {cast[1]}}}` in its data"
        if cast is not None:
            return f"cast one side: `{cast[0]}.to({cast[1]})`"
        return "cast one side with `.to(float32)`"
    return device_hint(message)


def _cast(node: ast.AST, args: Sequence[Any]) -> tuple[str, str] | None:
    """An operand with a name, one of integers first, and the dtype of another operand; None if there is none."""
    operands = _operands(node, len(args))
    tensors = [(operand, value) for operand, value in zip(operands, args, strict=False) if isinstance(value, Tensor)]
    for operand, value in sorted(tensors, key=lambda each: each[1].is_floating_point() or each[1].is_complex()):
        others = [other.dtype for _, other in tensors if other.dtype != value.dtype and other.is_floating_point()]
        if isinstance(operand, ast.Name) and others:
            return operand.id, dtype_name(others[0])
    return None


def _operands(node: ast.AST, count: int) -> Sequence[ast.AST]:
    """The nodes of the first `count` arguments of an operation; of a method, its own tensor is the first."""
    if isinstance(node, ast.BinOp):
        return node.left, node.right
    if not isinstance(node, ast.Call):
        return ()
    own = [node.func.value] if isinstance(node.func, ast.Attribute) and count > len(node.args) else []
    return [*own, *node.args]
