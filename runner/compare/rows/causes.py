"""Derives likely causes from the first row that differs, as sentences that a user can act on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from torch import Tensor

from runner.compare.numbers.differences import Difference
from runner.compare.numbers.relations import accumulated, relation, update_relation
from runner.compare.rows.results import Divergence, FirstDifference
from runner.errors import listing
from runner.plan.rows.columns import Column, Role

START = "start"
_MOST_NAMES = 6


BATCH, RANDOM = "the batch", "a random draw"
"""Inputs that a step may draw, and that rows do not contain."""


def causes(
    first_difference: FirstDifference, *, draws: Collection[str] = (BATCH, RANDOM), every: int = 1
) -> tuple[str, ...]:
    """The likely causes of the first difference: where it begins, then what it looks like.

    Args:
        draws: which of `BATCH` and `RANDOM` the steps draw.
        every: iterations of a loop from one row to the next.
    """
    unseen = every > 1 and first_difference.place.step != START
    between = (f"a row is kept every {every} iterations: it may have begun in one between",) if unseen else ()
    return (*_origin(first_difference, draws), *_appearance(first_difference), *between)


# --- where it begins


def _origin(first_difference: FirstDifference, draws: Collection[str]) -> Iterator[str]:
    role = first_difference.divergences[0].column.role
    if first_difference.place.step == START:
        names = _names(first_difference, role)
        yield f"the initial values of {names} differ: look at their `init`, the seed and the files"
        return
    yield from _ORIGINS[role](first_difference, draws)


def _value(first_difference: FirstDifference, draws: Collection[str]) -> Iterator[str]:
    born = first_difference.divergences[0].column.name
    later = [each.column.name for each in first_difference.divergences if each.column.role == "value"][1:]
    equal_before = [column.name for column in first_difference.equal if column.role == "value"]
    if first_difference.place.step == "evaluate":
        yield f"the weights match and `{born}` differs: look at what is evaluated, and at its data"
        return
    if later:
        yield f"`{born}` differs before `{later[-1]}` does: look at the expression of `{born}`"
    else:
        yield f"the weights match and `{born}` differs: look at its expression"
    if equal_before:
        random = f"; it may also be {RANDOM}" if RANDOM in draws else ""
        yield f"{_listed(equal_before)} {_are(equal_before)} bit-equal in this row{random}"
    elif draws:
        yield f"nothing computed in this row is equal: it may also be {' or '.join(draws)}"


def _norm(first_difference: FirstDifference, draws: Collection[str]) -> Iterator[str]:
    yield "the values match and the norm of the gradients differs: look at `clip_grad_norm`, or at a gradient before it"


def _gradient(first_difference: FirstDifference, draws: Collection[str]) -> Iterator[str]:
    names = _names(first_difference, "gradient")
    parameters = [each.column.name.removesuffix(".grad") for each in _with_role(first_difference, "gradient")]
    differ = "differs" if len(parameters) == 1 else "differ"
    kinds = {each.difference.kind for each in _with_role(first_difference, "gradient")}
    if kinds == {"missing"}:
        yield f"there is no gradient in {names}, where one was expected"
    elif kinds == {"new"}:
        yield f"there is a gradient in {names}, where none was expected: is a `zero_grad` missing?"
    elif not _computes(first_difference):
        yield f"nothing is computed in `{first_difference.place.path}`, and {names} {differ}: look at that step"
    elif [column for column in (*first_difference.equal, *first_difference.within) if column.role == "gradient"]:
        matching = f"values and other gradients {_closeness(first_difference, 'value', 'gradient')}"
        yield f"{matching}, {names} {differ}: look at how {_listed(parameters)} enters the expression"
    else:
        closeness = _closeness(first_difference, "value")
        yield f"values {closeness}, {names} {differ}: look at `backward` and what follows it"
    yield from _accumulation(first_difference)


def _weight(first_difference: FirstDifference, draws: Collection[str]) -> Iterator[str]:
    names = _names(first_difference, "weight")
    if first_difference.place.step == "assign":
        yield f"everything before matches, and {names} differs: look at the `assign` in `{first_difference.place.path}`"
        return
    gradients = [column for column in first_difference.equal if column.role == "gradient"]
    matching = f"gradients {_closeness(first_difference, 'gradient')}" if gradients else "everything before matches"
    yield f"{matching}, update of {names} differs: look at the optimizer"
    state = [each.column.name for each in _with_role(first_difference, "state")]
    if state:
        yield f"its state differs too: {_listed(state)}"


def _state(first_difference: FirstDifference, draws: Collection[str]) -> Iterator[str]:
    closeness, names = _closeness(first_difference, "weight"), _names(first_difference, "state")
    yield f"weights {closeness}, state {names} differs: look at the optimizer"


_ORIGINS: Mapping[Role, Callable[[FirstDifference, Collection[str]], Iterator[str]]] = {
    "value": _value,
    "norm": _norm,
    "gradient": _gradient,
    "weight": _weight,
    "state": _state,
}


def _accumulation(first_difference: FirstDifference) -> Iterator[str]:
    for each in _with_role(first_difference, "gradient"):
        found, expected, before = _tensors(first_difference, each.column)
        if found is None or expected is None or before is None:
            continue
        if accumulated(found, expected, before):
            yield f"`{each.column.name}` still contains the gradient of the previous row: a `zero_grad` is missing"
            return
        if accumulated(expected, found, before):
            yield f"`{each.column.name}` no longer contains the gradient of the previous row: a `zero_grad` is new"
            return


# --- what it looks like


def _appearance(first_difference: FirstDifference) -> Iterator[str]:
    first = first_difference.divergences[0]
    found, expected, before = _tensors(first_difference, first.column)
    seen = None
    if found is not None and expected is not None:
        if first.column.role == "weight" and before is not None and first_difference.place.step != "assign":
            seen = update_relation(found, expected, before)
        else:
            described = relation(found, expected)
            seen = None if described is None else f"`{first.column.name}` {described}"
    if seen is not None:
        yield seen
    values = first.difference.values
    if values is not None and values.one_sided_nan:
        yield _nan(first.difference, first.column.name)


def _nan(difference: Difference, name: str) -> str:
    values = difference.values
    assert values is not None
    count = f"{values.one_sided_nan:,} of {values.elements:,} elements"
    arrives = values.worst.found != values.worst.found
    return (
        f"`{name}` {'is' if arrives else 'is no longer'} NaN in {count}"
        if values.elements > 1
        else (f"`{name}` {'is' if arrives else 'is no longer'} NaN")
    )


def _tensors(first_difference: FirstDifference, column: Column) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The tensors of a column: found, expected, and expected before the step; None for each that is missing."""
    sides = [first_difference.found, first_difference.expected, first_difference.before]
    values = [None if row is None or column.name not in row else row[column.name] for row in sides]
    found, expected, before = (value if isinstance(value, Tensor) else None for value in values)
    return found, expected, before


# --- words


def _with_role(first_difference: FirstDifference, role: Role) -> list[Divergence]:
    return [each for each in first_difference.divergences if each.column.role == role]


def _computes(first_difference: FirstDifference) -> bool:
    return any(column.role == "value" for column in (*first_difference.equal, *first_difference.within)) or bool(
        _with_role(first_difference, "value")
    )


def _closeness(first_difference: FirstDifference, *roles: Role) -> str:
    """Returns how closely the columns of some roles match in this row, as words."""
    compared = [column for column in first_difference.equal if column.role in roles]
    others = [each for each in first_difference.within if each.role in roles]
    return "bit-equal" if compared and not others else "within the tolerance"


def _names(first_difference: FirstDifference, role: Role) -> str:
    return _listed([each.column.name for each in _with_role(first_difference, role)])


def _listed(names: Sequence[str]) -> str:
    return listing([f"`{name}`" for name in names], _MOST_NAMES)


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
