"""The schema of `sweep`."""

from __future__ import annotations

from runner.config.frozen import Frozen
from runner.config.schema.forms import (
    EXPRESSION,
    NAMES,
    Schema,
    closed,
    described,
    integer,
    number,
    properties_of,
    whole,
)
from runner.config.sections.sweep import DISTRIBUTIONS, OVER
from runner.config.sweep_models import (
    HalvingDeclaration,
    RandomDeclaration,
    SpaceDeclaration,
    SweepDeclaration,
    SweepObjective,
)

_AXES: Schema = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "string", "pattern": r"\("}]},
}


def sweep() -> Schema:
    """The schema of a sweep."""
    union = {"type": "array", "minItems": 1, "items": closed(_space(SpaceDeclaration))}
    annotations = properties_of(SweepDeclaration)
    rest = {
        "union": union,
        "where": EXPRESSION,
        "objective": _objective(),
        "halving": _halving(),
        "seed": annotations["seed"],
    }
    return closed(_space(SweepDeclaration) | {key: described(schema, annotations[key]) for key, schema in rest.items()})


def _space(model: type[SpaceDeclaration]) -> Schema:
    point = {"type": "object", "minProperties": 1}
    forms: Schema = {
        "grid": _AXES,
        "zip": {"anyOf": [_AXES, {"type": "array", "minItems": 1, "items": _AXES}]},
        "random": _replaced(RandomDeclaration, samples=integer(1), draw=_draw()),
        "points": {"anyOf": [{"type": "array", "minItems": 1, "items": point}, {"type": "string"}]},
    }
    annotations = properties_of(model)
    return {key: described(schema, annotations[key]) for key, schema in forms.items()}


def _draw() -> Schema:
    values: Schema = {"type": "array", "minItems": 1}
    kinds = {kind: {**values, "description": text} for kind, text in DISTRIBUTIONS.items()}
    kinds["choice"] = {"type": ["array", "string"], "description": DISTRIBUTIONS["choice"]}
    one = {**closed(kinds), "minProperties": 1, "maxProperties": 1}
    return {"type": "object", "minProperties": 1, "additionalProperties": one}


def _objective() -> Schema:
    over = {"anyOf": [{"enum": list(OVER)}, {"type": "string", "pattern": r"^mean\([1-9][0-9]*\)$"}]}
    one = [{"required": ["minimize"]}, {"required": ["maximize"]}]
    return {**_replaced(SweepObjective, over=over, mean_over=NAMES), "oneOf": one}


def _halving() -> Schema:
    at = {"type": "array", "minItems": 1, "items": integer(1)}
    return _replaced(HalvingDeclaration, at=at, keep=number(exclusiveMinimum=0, exclusiveMaximum=1))


def _replaced(model: type[Frozen], **fields: Schema) -> Schema:
    """The schema of a model with other schemas for some of its fields."""
    schema = whole(model)
    annotations = properties_of(model)
    schema["properties"] |= {key: described(field, annotations[key]) for key, field in fields.items()}
    return schema
