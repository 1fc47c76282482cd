"""Building blocks of the JSON Schema: values of fields, models as mappings, and null, which deletes a base's key."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from runner.config.data_models import DataDeclaration, SelectDeclaration
from runner.config.fields import DATES, FILLS
from runner.config.frozen import Frozen
from runner.config.keys import AUTOCAST_DTYPES, ENGINES, MODES, ON_NONFINITE, TENSOR_LOGS, THRESHOLD_MODES
from runner.config.models import (
    Autocast,
    Checkpoint,
    ClipGradNorm,
    ClipGradValue,
    Config,
    Epochs,
    Expectation,
    ForEach,
    LossScale,
    Next,
    Patience,
    ReduceLROnPlateau,
    Repeat,
    Step,
    TensorDeclaration,
    Train,
)
from runner.config.record_models import (
    FromRun,
    Health,
    Log,
    MetricDeclaration,
    ObjectiveDeclaration,
    SnapshotDeclaration,
    ToleranceDeclaration,
    UncertaintyDeclaration,
)
from runner.config.sections.snapshot import TENSORS_KEPT, TOLERANCES

Schema = dict[str, Any]

ANNOTATIONS = ("description", "default")
"""Keywords that an editor shows and that check nothing."""

NULL: Schema = {"type": "null"}
TEXT: Schema = {"type": "string", "pattern": r"\S"}
EXPRESSION: Schema = {"type": ["string", "number"], "pattern": r"\S"}
SCALAR: Schema = {"type": ["string", "number", "boolean"], "pattern": r"\S"}
NAMES: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
COLUMNS: Schema = {
    "anyOf": [
        {"type": ["string", "integer"]},
        {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1},
    ]
}
CLASSES: Schema = {
    "anyOf": [
        {"const": "sorted"},
        {"type": "array", "items": {"type": ["string", "integer", "boolean"]}, "minItems": 1},
    ]
}
NESTED: Schema = {"type": "array", "items": {"anyOf": [SCALAR, {"$ref": "#/definitions/nested_list"}]}}
UNDERSCORED: Schema = {
    "type": "string",
    "pattern": r"^(?:[-+]?(?:\.?(?:inf|Inf|INF)|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?)|\.?(?:nan|NaN|NAN))$",
    "errorMessage": "Expected a number, a list or a mapping.",
}
"""Numbers that other YAML parsers read as text: `1_000`, `inf`, `nan`."""


def number(**limits: float) -> Schema:
    """The schema of a number within limits, or of an expression."""
    return {"type": ["number", "string"], **limits, "pattern": r"\S"}


def integer(minimum: int) -> Schema:
    return {"type": ["integer", "string"], "minimum": minimum, "pattern": r"\S"}


_POSITIVE = number(exclusiveMinimum=0)
_NOT_NEGATIVE = number(minimum=0)
_TOLERANCE: Schema = {
    "tolerance": {"enum": list(TOLERANCES)},
    "rtol": _NOT_NEGATIVE,
    "atol": _NOT_NEGATIVE,
    "ulp": integer(0),
}
FIELDS: dict[type[Frozen], Schema] = {
    TensorDeclaration: {
        "shape": {"type": "array", "items": integer(0)},
        "init": {"$ref": "#/definitions/init"},
        "stacked": integer(0),
        "dtype": {"$ref": "#/definitions/dtype"},
    },
    DataDeclaration: {
        "columns": {"type": "object", "additionalProperties": COLUMNS, "minProperties": 1},
        "batch_size": integer(1),
        "classes": {"type": "object", "additionalProperties": CLASSES},
        "one_hot": {"type": "object", "additionalProperties": CLASSES},
        "fill": {"type": "object", "additionalProperties": {"anyOf": [{"enum": list(FILLS)}, {"type": "number"}]}},
        "dates": {"type": "object", "additionalProperties": {"enum": list(DATES)}},
        "dtype": {"type": "object", "additionalProperties": {"$ref": "#/definitions/dtype"}},
    },
    SelectDeclaration: {"fold": integer(0), "of": integer(2), "from": integer(0), "to": integer(1), "seed": integer(0)},
    Train: {"accumulate": integer(1), "clip_grad_norm": _POSITIVE, "clip_grad_value": _POSITIVE},
    ClipGradNorm: {"max_norm": _POSITIVE, "norm_type": _POSITIVE},
    ClipGradValue: {"clip_value": _POSITIVE},
    Expectation: {"rtol": _NOT_NEGATIVE, "atol": _NOT_NEGATIVE},
    Next: {"data": NAMES},
    ForEach: {"epochs": integer(0), "steps": {"type": "array", "items": {"$ref": "#/definitions/step"}}},
    Epochs: {"epochs": integer(0), "patience": integer(1)},
    Repeat: {"times": integer(0), "steps": {"type": "array", "items": {"$ref": "#/definitions/step"}}},
    Step: {"every": integer(1), "when": SCALAR},
    Log: {"every": integer(1), "tensors": {"enum": list(TENSOR_LOGS)}, "budget": integer(0)},
    ToleranceDeclaration: _TOLERANCE,
    UncertaintyDeclaration: {"runs": integer(3), "factor": number(minimum=1)},
    SnapshotDeclaration: {
        **_TOLERANCE,
        "every": integer(1),
        "tensors": {"enum": list(TENSORS_KEPT)},
        "restart": {"type": "array", "items": integer(0)},
    },
    Health: {
        "vanishing_gradient": _POSITIVE,
        "exploding_gradient": _POSITIVE,
        "unchanged": integer(1),
        "update_ratio": {"type": "array", "items": _NOT_NEGATIVE, "minItems": 2, "maxItems": 2},
    },
    Checkpoint: {"mode": {"enum": list(MODES)}},
    Patience: {"evaluations": integer(1), "mode": {"enum": list(MODES)}, "min_delta": _NOT_NEGATIVE},
    ReduceLROnPlateau: {
        "mode": {"enum": list(MODES)},
        "factor": number(minimum=0, exclusiveMaximum=1),
        "patience": integer(0),
        "threshold_mode": {"enum": list(THRESHOLD_MODES)},
        "cooldown": integer(0),
        "min_lr": _NOT_NEGATIVE,
        "eps": _NOT_NEGATIVE,
    },
    Autocast: {"dtype": {"enum": list(AUTOCAST_DTYPES)}},
    LossScale: {
        "init_scale": _POSITIVE,
        "growth_factor": number(exclusiveMinimum=1),
        "backoff_factor": number(exclusiveMinimum=0, exclusiveMaximum=1),
        "growth_interval": integer(1),
    },
    MetricDeclaration: dict.fromkeys(MetricDeclaration.model_fields, EXPRESSION),
    ObjectiveDeclaration: dict.fromkeys(ObjectiveDeclaration.model_fields, EXPRESSION),
    FromRun: {"run": TEXT, "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
    Config: {
        "seed": {"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9][0-9_]*$"},
        "engine": {"enum": list(ENGINES)},
        "expression": EXPRESSION,
        "on_nonfinite": {"enum": list(ON_NONFINITE)},
    },
}
"""The schemas of fields, by model, where the field's Python type is less strict."""


def properties_of(model: type[Frozen]) -> Schema:
    """The schemas of a model's fields, by key of the config. A field whose default is None also accepts null."""
    model.model_rebuild()  # pydantic builds models on first use
    schemas = model.model_json_schema(by_alias=True)["properties"]
    found: Schema = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        annotations = {**schemas[key], "description": field.description}
        taken = described(
            FIELDS.get(model, {}).get(key, {part: annotations[part] for part in annotations if part != "title"}),
            annotations,
        )
        found[key] = or_null(taken) if annotations.get("default", ...) is None else taken
    return found


def described(schema: Schema, by: Schema) -> Schema:
    """Returns a schema with the description and the default of another one, `by`."""
    without = undescribed(schema)
    annotations: Schema = {key: by[key] for key in ANNOTATIONS if key in by}
    default = annotations.get("default")
    if default not in (None, []) and "Default: " not in annotations["description"]:
        annotations["description"] += f" Default: `{json.dumps(default).strip(chr(34))}`."
    if "$ref" in without:  # draft 7 ignores keywords next to `$ref`
        without = {"allOf": [without]}
    return {**annotations, **without}


def undescribed(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in ANNOTATIONS}


def or_null(schema: Schema) -> Schema:
    """Returns a schema that also accepts null, which deletes the value of a base."""
    if "enum" in schema:
        return {**schema, "enum": [*(value for value in schema["enum"] if value is not None), None]}
    if "anyOf" in schema:
        return schema if NULL in schema["anyOf"] else {**schema, "anyOf": [*schema["anyOf"], NULL]}
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        return {**schema, "type": [*(kind for kind in kinds if kind != "null"), "null"]}
    return {**{key: schema[key] for key in ANNOTATIONS if key in schema}, "anyOf": [undescribed(schema), NULL]}


def given(*keys: str, then: Schema) -> Schema:
    """Returns a schema that requires `then` of mappings in which all `keys` are set and not null."""
    return {"if": {"required": list(keys), "properties": {key: {"not": NULL} for key in keys}}, "then": then}


def not_both(first: str, second: str) -> Schema:
    return given(first, second, then={"properties": {second: False}})


def closed(properties: Schema, required: Iterable[str] = ()) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def merged(model: type[Frozen], **replaced: Schema) -> Schema:
    """The schema of a mapping that merges with that of a base: each key may be missing or null."""
    properties = properties_of(model)
    properties |= {key: described(schema, properties[key]) for key, schema in replaced.items()}
    return closed({key: or_null(schema) for key, schema in properties.items()})


def whole(model: type[Frozen]) -> Schema:
    """The schema of a mapping that does not merge, as in a list: keys of required fields are required."""
    required = [field.alias or name for name, field in model.model_fields.items() if field.is_required()]
    return closed(properties_of(model), required)
