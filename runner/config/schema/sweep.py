"""The schema of `sweep`."""

from __future__ import annotations

from runner.config.schema.forms import (
    EXPRESSION,
    NAMES,
    NULL,
    Schema,
    closed,
    integer,
    number,
    properties_of,
    undescribed,
    whole,
)
from runner.config.sections.sweep import DISTRIBUTIONS, OVER
from runner.config.sweep_models import (
    HalvingDeclaration,
    ObjectiveDeclaration,
    RandomDeclaration,
    SpaceDeclaration,
    SweepDeclaration,
)

_AXES: Schema = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "string", "pattern": r"\("}]},
}


def sweep() -> Schema:
    """The schema of a sweep."""
    spaces = {"union": {"type": "array", "minItems": 1, "items": closed(_space(SpaceDeclaration))}}
    rest = {
        "where": EXPRESSION,
        "objective": _objective(),
        "halving": _halving(),
        "seed": properties_of(SweepDeclaration)["seed"],
    }
    fields = _space(SweepDeclaration) | spaces | rest
    told = properties_of(SweepDeclaration)
    return closed({name: {**undescribed(schema), **_told(told[name])} for name, schema in fields.items()})


def _told(schema: Schema) -> Schema:
    return {key: schema[key] for key in ("description",) if key in schema}


def _space(model: type[SpaceDeclaration]) -> Schema:
    told = properties_of(model)
    pair = {"type": "array", "minItems": 1}
    distribution = {"anyOf": [closed({kind: {**pair}}, [kind]) for kind in DISTRIBUTIONS]}
    distribution["anyOf"].append(closed({"choice": {"type": "string"}}, ["choice"]))
    draw = {"type": "object", "minProperties": 1, "additionalProperties": distribution}
    random = {**whole(RandomDeclaration)}
    random["properties"] = {"samples": integer(1), "draw": {**draw, **_told(random["properties"]["draw"])}}
    point = {"type": "object", "minProperties": 1}
    forms = {
        "grid": _AXES,
        "zip": {"anyOf": [_AXES, {"type": "array", "minItems": 1, "items": _AXES}]},
        "random": random,
        "points": {"anyOf": [{"type": "array", "minItems": 1, "items": point}, {"type": "string"}]},
    }
    return {name: {**schema, **_told(told[name])} for name, schema in forms.items()}


def _objective() -> Schema:
    schema = whole(ObjectiveDeclaration)
    schema["properties"]["over"] = {"anyOf": [{"enum": list(OVER)}, {"pattern": r"^mean\([1-9][0-9]*\)$"}]}
    schema["properties"]["mean_over"] = NAMES
    return {**schema, "oneOf": [{"required": ["minimize"]}, {"required": ["maximize"]}]}


def _halving() -> Schema:
    schema = whole(HalvingDeclaration)
    schema["properties"]["at"] = {"type": "array", "minItems": 1, "items": integer(1)}
    schema["properties"]["keep"] = number(exclusiveMinimum=0, exclusiveMaximum=1)
    return {"anyOf": [schema, NULL]}
