"""The JSON Schema of a config, from the models and the catalogue: what an editor completes and checks."""

from __future__ import annotations

import ast
from typing import Any

from runner.catalogue import Argument, Initialiser, Optimizer, initialisers, optimizers
from runner.config.keys import ENGINES, ON_NONFINITE, TENSOR_LOGS
from runner.config.models import (
    STEP_MODELS,
    Config,
    DataDeclaration,
    Expectation,
    ForEach,
    Frozen,
    GroupDeclaration,
    Health,
    InitExpression,
    Log,
    OptimizerDeclaration,
    RuleDeclaration,
    SnapshotDeclaration,
    Step,
    TensorDeclaration,
    ToleranceDeclaration,
    UncertaintyDeclaration,
)
from runner.config.sections.snapshot import TENSORS_KEPT, TOLERANCES
from runner.config.sections.steps import BARE

Schema = dict[str, Any]

_NUMBER: Schema = {"type": ["number", "string"]}
_NESTED: Schema = {
    "type": "array",
    "items": {"anyOf": [{"type": ["number", "boolean", "string"]}, {"$ref": "#/$defs/nested_list"}]},
}
_NAMES: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_SHORT_STEPS: dict[str, Schema] = {
    "forward": {"type": "string"},
    "backward": {"type": "string"},
    "step": _NAMES,
    "zero_grad": _NAMES,
    "clip_grad_norm": _NUMBER,
    "clip_grad_value": _NUMBER,
    "next": _NAMES,
    "evaluate": {"type": "string"},
    "checkpoint": {"type": ["string", "integer"]},
}
"""Step kinds whose argument has a form shorter than a mapping."""


def json_schema() -> Schema:
    """The JSON Schema (draft 2020-12) that every valid config satisfies."""
    fields = _properties(Config)
    nullable = {"type": ["object", "null"]}
    properties: Schema = {
        "name": fields["name"],
        "description": fields["description"],
        "extends": {
            **_NAMES,
            "description": "config files merged under this one: mappings merge, anything else replaces, null deletes",
        },
        "seed": fields["seed"],
        "dtype": fields["dtype"],
        "device": fields["device"],
        "engine": {**fields["engine"], "enum": list(ENGINES)},
        "parameters": {
            **nullable,
            "description": _told(fields, "parameters"),
            "additionalProperties": {"$ref": "#/$defs/tensor"},
        },
        "constants": {
            **nullable,
            "description": _told(fields, "constants"),
            "additionalProperties": {"$ref": "#/$defs/constant"},
        },
        "data": {
            **nullable,
            "description": _told(fields, "data"),
            "additionalProperties": {"$ref": "#/$defs/source"},
        },
        "functions": {
            **nullable,
            "description": _told(fields, "functions"),
            "additionalProperties": {"type": ["string", "number"]},
        },
        "expression": fields["expression"],
        "metrics": {
            **nullable,
            "description": _told(fields, "metrics"),
            "additionalProperties": {"type": ["string", "number"]},
        },
        "optimizer": {"$ref": "#/$defs/optimizer"},
        "optimizers": {
            **nullable,
            "description": _told(fields, "optimizers"),
            "additionalProperties": {"$ref": "#/$defs/optimizer"},
        },
        "steps": {
            "description": _told(fields, "steps") + ": a list of steps, how often to `train`, or for how many epochs",
            "default": ["backward"],
            "anyOf": [
                {"type": "array", "items": {"$ref": "#/$defs/step"}},
                _NUMBER,
                _object({"epochs": _properties(ForEach)["epochs"]}, ["epochs"]),
                {"type": "null"},
            ],
        },
        "log": _log(),
        "snapshot": _snapshot(),
        "on_nonfinite": {**fields["on_nonfinite"], "enum": list(ON_NONFINITE)},
        "health": {**_model(Health), "type": ["object", "null"], "description": _told(fields, "health")},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "steprun config",
        "description": "A training computation: tensors, an expression, optimizers and a program of steps.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {
            "nested_list": _NESTED,
            "init": _init(),
            "tensor": _tensor("a tensor: a number, a nested list, or a declaration; null deletes that of a base"),
            "constant": _constant(),
            "source": _source(),
            "optimizer": _optimizer(),
            "step": _step(),
            "expectation": _expectation(),
        },
    }


def _properties(model: type[Frozen]) -> Schema:
    """A model's properties under the keys that a person writes, with descriptions and defaults."""
    model.model_rebuild()  # models are built when they are first used
    schema = model.model_json_schema(by_alias=True)
    return {
        key: {name: part for name, part in value.items() if name != "title"}
        for key, value in schema["properties"].items()
    }


def _told(fields: Schema, key: str) -> str:
    return str(fields[key]["description"])


def _object(properties: Schema, required: list[str] | None = None, description: str | None = None) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    if description:
        schema["description"] = description
    return schema


def _model(model: type[Frozen], **replaced: Schema) -> Schema:
    required = [field.alias or name for name, field in model.model_fields.items() if field.is_required()]
    properties = _properties(model)
    for key, schema in replaced.items():
        properties[key] = {
            **{name: properties[key][name] for name in ("description", "default") if name in properties[key]},
            **schema,
        }
    return _object(properties, required, model.__doc__)


def _log() -> Schema:
    log = _model(Log, tensors={"enum": list(TENSOR_LOGS)})
    return {**log, "type": ["object", "null"], "description": _told(_properties(Config), "log")}


def _snapshot() -> Schema:
    word = {"enum": [*TOLERANCES, None]}
    declared = _model(ToleranceDeclaration, tolerance=word)
    tolerance = {**declared, "minProperties": 1}
    snapshot = _model(
        SnapshotDeclaration,
        tensors={"enum": list(TENSORS_KEPT)},
        tolerance=word,
        uncertainty={"anyOf": [{"type": ["boolean", "null"]}, _model(UncertaintyDeclaration)]},
        tolerances={"type": "object", "additionalProperties": {"anyOf": [{"enum": list(TOLERANCES)}, tolerance]}},
    )
    return {**snapshot, "type": ["object", "null"], "description": _told(_properties(Config), "snapshot")}


def _tensor(description: str) -> Schema:
    declaration = _model(TensorDeclaration, init={"$ref": "#/$defs/init"})
    return {
        "description": description,
        "anyOf": [{"type": "number"}, {"$ref": "#/$defs/nested_list"}, declaration, {"type": "null"}],
    }


def _constant() -> Schema:
    tensor = _tensor(
        "a scalar (a number, a boolean, an expression over the other scalar constants), or a tensor without a gradient"
    )
    return {**tensor, "anyOf": [{"type": ["boolean", "string"]}, *tensor["anyOf"]]}


def _source() -> Schema:
    declared = _model(
        DataDeclaration,
        file={"type": ["string", "null"]},
        columns={"type": "object", "additionalProperties": _NAMES, "minProperties": 1},
        batch_size={"type": ["number", "string", "null"]},
    )
    return {"description": DataDeclaration.__doc__, "anyOf": [declared, {"type": "null"}]}


def _init() -> Schema:
    calls = {name: _call(initialiser) for name, initialiser in initialisers().items()}
    calls["expression"] = _properties(InitExpression)["expression"]
    names = [
        name
        for name, initialiser in initialisers().items()
        if all(argument.default is not None for argument in initialiser.arguments)
    ]
    choices: list[Schema] = [
        {"enum": names, "description": "an initialiser of torch.nn.init with its defaults"},
        {"type": ["number", "boolean", "string", "null"]},
        {"$ref": "#/$defs/nested_list"},
        {**_object(calls), "minProperties": 1, "maxProperties": 1},
    ]
    return {"description": "initial values", "anyOf": choices}


def _call(initialiser: Initialiser) -> Schema:
    schema = _object(
        {argument.name: _argument(argument) for argument in initialiser.arguments}, _required(initialiser.arguments)
    )
    return {**schema, "type": ["object", "null"], "description": f"torch.nn.init.{initialiser.function}"}


def _optimizer() -> Schema:
    kinds = {name: _optimizer_kind(optimizer) for name, optimizer in optimizers().items()}
    kinds["rule"] = _model(RuleDeclaration)
    declared = _properties(OptimizerDeclaration)
    groups: Schema = {
        "description": _told(declared, "groups"),
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"parameters": {**_NAMES, "description": _told(_properties(GroupDeclaration), "parameters")}},
            "required": ["parameters"],
        },
    }
    state: Schema = {
        "description": _told(declared, "state"),
        "type": "object",
        "additionalProperties": {"type": "object", "additionalProperties": {"type": ["number", "string", "boolean"]}},
    }
    sides = {"parameters": {**_NAMES, "description": _told(declared, "parameters")}, "groups": groups, "state": state}
    schema = _object({**kinds, **sides})
    schema["oneOf"] = [{"required": [name]} for name in kinds]
    return {
        "description": "one class of torch.optim with its arguments, or a rule",
        "anyOf": [schema, {"type": "null"}],
    }


def _optimizer_kind(optimizer: Optimizer) -> Schema:
    taken = [argument for argument in optimizer.arguments if argument.name not in optimizer.refused]
    schema = _object({argument.name: _argument(argument) for argument in taken}, _required(taken))
    return {**schema, "type": ["object", "null"], "description": f"torch.optim.{optimizer.class_name}"}


def _required(arguments: tuple[Argument, ...] | list[Argument]) -> list[str]:
    return [argument.name for argument in arguments if argument.default is None]


_TYPES: dict[str, str] = {"bool": "boolean", "int": "number", "float": "number", "Tensor": "number", "str": "string"}


def _argument(argument: Argument) -> Schema:
    """An argument's schema; text may always stand for a value, as an expression."""
    if argument.type.rstrip("?").endswith("[]"):
        schema: Schema = {"type": ["array", "string"], "items": {"type": ["number", "string", "null"]}}
    else:
        kinds = {_TYPES.get(kind, "string") for kind in argument.type.rstrip("?").split("|")}
        schema = {"type": sorted({*kinds, "string", *(["null"] if argument.type.endswith("?") else [])})}
    if argument.default is not None:
        default = ast.literal_eval(argument.default)
        schema["default"] = list(default) if isinstance(default, tuple) else default
    return schema


def _step() -> Schema:
    side = _properties(Step)
    kinds = {kind: _step_argument(kind) for kind in STEP_MODELS}
    long_form = _object(
        {
            **kinds,
            "every": side["every"],
            "when": {"type": ["string", "boolean", "number"], "description": _told(side, "when")},
        }
    )
    long_form["oneOf"] = [{"required": [kind]} for kind in kinds]
    return {
        "description": "one step: a word, or one step key with `every` and `when` beside it",
        "anyOf": [{"enum": list(BARE)}, long_form],
    }


def _step_argument(kind: str) -> Schema:
    model = STEP_MODELS[kind]
    forms: list[Schema] = [_SHORT_STEPS[kind]] if kind in _SHORT_STEPS else []
    forms.append(_long_argument(kind, model))
    if kind in BARE:
        forms.append({"type": "null"})
    return {"description": model.__doc__, "anyOf": forms}


def _long_argument(kind: str, model: type[Frozen]) -> Schema:
    if kind == "assign":
        values = {"type": ["string", "number", "boolean"]}
        return {"type": "object", "additionalProperties": values, "minProperties": 1}
    if kind == "expect":
        return {"type": "object", "additionalProperties": {"$ref": "#/$defs/expectation"}, "minProperties": 1}
    if kind in ("repeat", "for_each"):
        return _model(model, steps={"type": "array", "items": {"$ref": "#/$defs/step"}})
    if kind == "stop":
        return {"type": "null"}
    if kind == "next":
        return _model(model, data=_NAMES)
    return _model(model)


def _expectation() -> Schema:
    value: Schema = {"anyOf": [{"type": ["number", "string", "boolean", "null"]}, {"$ref": "#/$defs/nested_list"}]}
    return {"description": Expectation.__doc__, "anyOf": [*value["anyOf"], _model(Expectation, value=value)]}
