"""The JSON Schema of a config, from the models and the catalogue: what an editor completes and checks.

An editor checks one file, but steprun merges that file with those that it `extends`. So a mapping that merges may omit
any key, or set it to null. The schema requires keys only in a file without `extends`.
"""

from __future__ import annotations

import json

from runner.catalogue import optimizers
from runner.config.data_models import DataDeclaration, SelectDeclaration
from runner.config.fields import DTYPES
from runner.config.frozen import Frozen
from runner.config.keys import AUTOCAST_DTYPES, TOP_LEVEL_KEYS
from runner.config.models import STEP_MODELS, Autocast, Config, Epochs, Expectation, LossScale, Step, TensorDeclaration
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
from runner.config.schema.catalogue import initial_values, optimizer, optimizer_kinds
from runner.config.schema.forms import (
    EXPRESSION,
    FIELDS,
    NAMES,
    NESTED,
    NULL,
    SCALAR,
    TEXT,
    UNDERSCORED,
    Schema,
    closed,
    described,
    given,
    integer,
    merged,
    not_both,
    or_null,
    properties_of,
    undescribed,
    whole,
)
from runner.config.schema.sweep import sweep
from runner.config.sections.autocast import DYNAMIC
from runner.config.sections.measured import WAYS
from runner.config.sections.names import RESERVED
from runner.config.sections.optimizers import RULE
from runner.config.sections.snapshot import TOLERANCES
from runner.config.sections.steps import BARE, LEAVING

DRAFTS = {"7": "http://json-schema.org/draft-07/schema#", "2020-12": "https://json-schema.org/draft/2020-12/schema"}
"""The supported drafts of JSON Schema; all editors support the first."""

_SHORT_FORMS = {
    "forward": "objective",
    "backward": "objective",
    "step": "optimizer",
    "zero_grad": "optimizer",
    "clip_grad_norm": "max_norm",
    "clip_grad_value": "clip_value",
    "next": "data",
    "evaluate": "data",
    "checkpoint": "tag",
}
"""The field that a step's argument sets if it is not a mapping, by kind of step."""


def json_schema(draft: str = "7") -> Schema:
    """Returns the JSON Schema that every valid config satisfies, in one of the `DRAFTS`."""
    schema = {"$schema": DRAFTS[draft], **_config()}
    if draft == "7":
        return schema
    text = json.dumps(schema).replace("#/definitions/", "#/$defs/")
    return {"$defs" if key == "definitions" else key: value for key, value in json.loads(text).items()}


def _config() -> Schema:
    fields = properties_of(Config)
    names = {"type": "object", "propertyNames": {"$ref": "#/definitions/name"}}

    def by_name(definition: str) -> Schema:
        return {**names, "additionalProperties": {"$ref": f"#/definitions/{definition}"}}

    sections: Schema = {
        "parameters": by_name("parameter"),
        "constants": by_name("constant"),
        "from_run": {"anyOf": [TEXT, merged(FromRun)]},
        "data": by_name("source"),
        "functions": {"type": "object", "propertyNames": _signature(), "additionalProperties": or_null(EXPRESSION)},
        "metrics": by_name("metric"),
        "objectives": by_name("objective"),
        "optimizer": {"$ref": "#/definitions/optimizer"},
        "optimizers": by_name("optimizer"),
        "steps": _program(),
        "log": merged(Log),
        "snapshot": _snapshot(),
        "health": merged(Health),
        "autocast": _autocast(),
        "sweep": sweep(),
    }
    annotations = {
        **fields,
        "extends": {
            "description": "Config files that this file is merged over. Mappings merge, other values replace those of "
            "the base, and `null` deletes a key."
        },
        "optimizer": {"description": "The only optimizer: a class of torch.optim with its arguments, or a rule."},
    }
    sections["extends"] = NAMES
    taken = {**fields, **sections}
    properties = {key: described(or_null(taken[key]), annotations[key]) for key in TOP_LEVEL_KEYS}
    return {
        "description": "A training computation: tensors, an expression, optimizers and a program of steps.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": [
            not_both("optimizer", "optimizers"),
            {"if": {"required": ["extends"]}, "else": _whole()},
        ],
        "definitions": _definitions(),
    }


def _definitions() -> dict[str, Schema]:
    """The schemas that others refer to."""
    return {
        "name": _name(),
        "dtype": {"enum": [*DTYPES, *(f"torch.{name}" for name in DTYPES)]},
        "nested_list": NESTED,
        "init": initial_values(),
        "parameter": _tensor(),
        "constant": _constant(),
        "source": _source(),
        "metric": _metric(),
        "objective": {"anyOf": [merged(ObjectiveDeclaration), NULL]},
        "optimizer": optimizer(),
        **optimizer_kinds(),
        "step": _step(),
        "expectation": _expectation(),
    }


def _whole() -> Schema:
    """The schema of what a file without `extends` must contain."""
    filled = {"type": ["number", "string", "boolean", "array", "object"]}
    columns = given("columns", then={"required": ["file"]})
    values = [{"required": ["init"]}, {"required": ["file"]}]
    parameter = {**filled, "anyOf": [{"type": ["number", "string", "array"]}, *values]}
    one: Schema = {
        "anyOf": [{"required": [name]} for name in (*optimizers(), RULE)],
        "properties": {RULE: {"type": "object", "required": ["update"]}},
    }
    sources = [{"required": [key]} for key in ("columns", "like")]
    one_way = {"anyOf": [{"required": [way[0]]} for way in WAYS]}
    words = "|".join(STEP_MODELS)
    word = {"pattern": rf"^(?![- ]*(?:{words})\s*$)", "errorMessage": "Expected a list of steps: write `- ` before it."}
    return {
        "required": ["parameters", "expression"],
        "properties": {
            "parameters": {"type": "object", "minProperties": 1, "additionalProperties": {**parameter, **columns}},
            "constants": {"additionalProperties": {**filled, **columns}},
            "data": {"additionalProperties": {"type": "object", "anyOf": sources}},
            "objectives": {"additionalProperties": {"type": "object", "required": ["sum", "over"]}},
            "metrics": {"additionalProperties": {"if": {"type": "object"}, "then": one_way}},
            "optimizer": {"if": {"type": "object"}, "then": one},
            "optimizers": {"additionalProperties": {"type": "object", **one}},
        },
        "if": {"properties": {"constants": {"propertyNames": {"not": {"enum": list(STEP_MODELS)}}}}},
        "then": {"properties": {"steps": word}},
    }


def _name() -> Schema:
    return {
        "pattern": r"^(?:[A-Za-z_]|[^\x00-\x7F])(?:[A-Za-z0-9_]|[^\x00-\x7F])*$",
        "not": {"enum": sorted(RESERVED)},
        "errorMessage": "A name has letters, digits and `_`, and is not a reserved word.",
    }


def _signature() -> Schema:
    return {
        "pattern": r"^\s*[^\s\d()][^\s()]*\s*\([\s\S]*\)\s*$",
        "errorMessage": "Write the function as `name(argument, …): body`.",
    }


def _snapshot() -> Schema:
    words = [("tolerance", "ulp"), ("tolerance", "rtol"), ("tolerance", "atol"), ("ulp", "rtol"), ("ulp", "atol")]
    one = [not_both(first, second) for first, second in words]
    tolerance = {**merged(ToleranceDeclaration), "minProperties": 1, "allOf": one}
    tolerances = {"anyOf": [{"enum": list(TOLERANCES)}, tolerance, NULL]}
    snapshot = merged(
        SnapshotDeclaration,
        uncertainty={"anyOf": [{"type": ["boolean", "null"]}, merged(UncertaintyDeclaration)]},
        tolerances={"type": "object", "additionalProperties": tolerances},
    )
    return {**snapshot, "allOf": one}


def _autocast() -> Schema:
    scaler = {"anyOf": [{"enum": [DYNAMIC]}, merged(LossScale), NULL]}
    names = {"enum": [*FIELDS[Autocast]["dtype"]["enum"], *(f"torch.{name}" for name in AUTOCAST_DTYPES), "half"]}
    return {"anyOf": [names, merged(Autocast, dtype=names, loss_scale=scaler), NULL]}


def _tensor(**replaced: Schema) -> Schema:
    declared = merged(TensorDeclaration, **replaced)
    declared |= not_both("init", "file")
    short: list[Schema] = [{"type": "number"}, {"$ref": "#/definitions/nested_list"}]
    return {
        "description": "A tensor: a number, a nested list, or a mapping that declares it.",
        "anyOf": [*short, declared, UNDERSCORED, NULL],
    }


def _constant() -> Schema:
    tensor = _tensor(requires_grad={"enum": [False]})
    return {
        "description": "A scalar (a number, a boolean, or an expression over the other scalar constants), or a tensor "
        "without a gradient.",
        "anyOf": [SCALAR, *(form for form in tensor["anyOf"][1:] if form is not UNDERSCORED)],
    }


def _source() -> Schema:
    columns = {**FIELDS[DataDeclaration]["columns"], "propertyNames": {"$ref": "#/definitions/name"}}
    select = {"anyOf": [{"type": "string"}, merged(SelectDeclaration)]}
    source = merged(DataDeclaration, columns=columns, select=select)
    return {"description": DataDeclaration.__doc__, "anyOf": [source, NULL]}


def _metric() -> Schema:
    declared = merged(MetricDeclaration)
    declared["anyOf"] = [
        {"properties": {key: NULL for key in MetricDeclaration.model_fields if key not in way}} for way in WAYS
    ]
    return {"description": MetricDeclaration.__doc__, "anyOf": [EXPRESSION, declared, NULL]}


def _program() -> Schema:
    in_no_loop = {
        "not": {"const": "stop"},
        "properties": dict.fromkeys(LEAVING, False),
        **given("every", then={"properties": {"every": False}}),
    }
    step = {"allOf": [{"$ref": "#/definitions/step"}, in_no_loop]}
    short = properties_of(Epochs)
    epochs = {**closed(short, ["epochs"]), **given("patience", then={"required": ["evaluate"]})}
    return {"anyOf": [{"type": "array", "items": step}, integer(0), epochs, NULL]}


def _step() -> Schema:
    side = properties_of(Step)
    kinds = {kind: _step_argument(kind) for kind in STEP_MODELS}
    long_form = closed({**kinds, "every": side["every"], "when": side["when"]})
    long_form["oneOf"] = [{"required": [kind]} for kind in kinds]
    words = [{"const": kind, "description": STEP_MODELS[kind].__doc__} for kind in BARE]
    return {
        "description": "A step: a word, or a mapping with one step; the mapping may also have `every` and `when`.",
        "anyOf": [*words, long_form],
    }


def _step_argument(kind: str) -> Schema:
    model = STEP_MODELS[kind]
    forms = [undescribed(properties_of(model)[_SHORT_FORMS[kind]])] if kind in _SHORT_FORMS else []
    forms.append(_long_argument(kind, model))
    if kind in BARE and kind != "stop":
        forms.append(NULL)
    return {"description": model.__doc__, "anyOf": forms}


def _long_argument(kind: str, model: type[Frozen]) -> Schema:
    if kind == "assign":
        return {"type": "object", "additionalProperties": SCALAR, "minProperties": 1}
    if kind == "expect":
        expected = {"$ref": "#/definitions/expectation"}
        value = {"allOf": [expected], "not": NULL, "errorMessage": "Only a gradient, such as `x.grad`, can be null."}
        gradients = {r"\.\s*grad\b": expected}
        return {"type": "object", "patternProperties": gradients, "additionalProperties": value, "minProperties": 1}
    if kind == "stop":
        return NULL
    return whole(model)


def _expectation() -> Schema:
    forms: list[Schema] = [or_null(SCALAR), {"$ref": "#/definitions/nested_list"}]
    declared = whole(Expectation)
    declared["properties"]["value"] = described({"anyOf": forms}, declared["properties"]["value"])
    return {"description": Expectation.__doc__, "anyOf": [*forms, declared]}
