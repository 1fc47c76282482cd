"""The JSON Schema of the initialisers and optimizers in the catalogue, with their arguments."""

from __future__ import annotations

import ast

from runner.catalogue import Argument, Initialiser, Optimizer, initialisers, optimizers
from runner.config.models import GroupDeclaration, InitExpression, OptimizerDeclaration, RuleDeclaration
from runner.config.schema.forms import (
    NAMES,
    NULL,
    SCALAR,
    TEXT,
    Schema,
    closed,
    described,
    merged,
    not_both,
    or_null,
    properties_of,
)
from runner.config.sections.optimizers import RULE, RULE_NAMES

_UNIT: Schema = {"minimum": 0, "maximum": 1}
_RATES: Schema = {"items": {"type": ["number", "string"], "minimum": 0, "exclusiveMaximum": 1}}
ARGUMENTS: dict[str, Schema] = {
    "lr": {"minimum": 0},
    "eps": {"minimum": 0},
    "weight_decay": {"minimum": 0},
    "lr_decay": {"minimum": 0},
    "initial_accumulator_value": {"minimum": 0},
    "momentum_decay": {"minimum": 0},
    "rho": _UNIT,
    "betas": {**_RATES, "minItems": 2, "maxItems": 2},
    "line_search_fn": {"enum": ["strong_wolfe", None]},
    "adjust_lr_fn": {"enum": ["original", "match_rms_adamw", None]},
    "mode": {"enum": ["fan_in", "fan_out"]},
}
"""The values that torch accepts for arguments, by name of the argument."""

UNCHECKED = {("torch.optim.Muon", "eps")}
"""Arguments whose values torch does not check, although they have a name in `ARGUMENTS`."""


def initial_values() -> Schema:
    calls = {name: _call(initialiser) for name, initialiser in initialisers().items()}
    calls["expression"] = properties_of(InitExpression)["expression"]
    names = [
        name
        for name, initialiser in initialisers().items()
        if all(argument.default is not None for argument in initialiser.arguments)
    ]
    call = rf"^\s*(?:torch\.|nn\.init\.|init\.)*(?:{'|'.join(initialisers())})_?\([^()]*\)\s*$"
    choices: list[Schema] = [
        {"enum": names, "description": "An initialiser of torch.nn.init with its default arguments."},
        {"type": ["number", "boolean", "null"]},
        {
            **TEXT,
            "not": {"pattern": call},
            "errorMessage": "Write the arguments of an initialiser as a mapping: `{normal: {std: 0.02}}`.",
        },
        {"$ref": "#/definitions/nested_list"},
        {**closed(calls), "minProperties": 1, "maxProperties": 1},
    ]
    return {
        "description": "Initial values: a number, a nested list, an initialiser, or `{expression: …}`.",
        "anyOf": choices,
    }


def _call(initialiser: Initialiser) -> Schema:
    owner = f"torch.nn.init.{initialiser.function}"
    required = [argument.name for argument in initialiser.arguments if argument.default is None]
    schema = closed({argument.name: _argument(argument, owner) for argument in initialiser.arguments}, required)
    return {**schema, "type": "object" if required else ["object", "null"], "description": f"Values from {owner}."}


def optimizer_kinds() -> Schema:
    """The definitions of the arguments of each class of torch.optim, by name."""
    return {
        f"optimizer_{name}": {
            **closed({argument.name: or_null(_argument(argument, _class(table))) for argument in _taken(table)}),
            "type": ["object", "null"],
            "description": f"The optimizer {_class(table)}.",
        }
        for name, table in optimizers().items()
    }


def optimizer() -> Schema:
    """The schema of one optimizer: a class with its arguments or a rule, with parameters, groups and state."""
    kinds: Schema = {name: {"$ref": f"#/definitions/optimizer_{name}"} for name in optimizers()}
    kinds[RULE] = _rule()
    declared = properties_of(OptimizerDeclaration)
    entries = {"type": "object", "additionalProperties": or_null(SCALAR)}
    sides = {
        "parameters": NAMES,
        "groups": {"type": "array", "items": {"type": "object", "required": ["parameters"]}},
        "state": {"type": "object", "additionalProperties": or_null(entries)},
    }
    schema = closed({**kinds, **{key: described(or_null(side), declared[key]) for key, side in sides.items()}})
    one = [{"required": [name]} for name in kinds]
    schema["oneOf"] = [*one, {"not": {"anyOf": one}}]
    schema["allOf"] = [_groups(table) for table in optimizers().values()]
    schema["allOf"].append(not_both(RULE, "groups"))
    return {"description": "A class of torch.optim with its arguments, or a rule.", "anyOf": [schema, NULL]}


def _rule() -> Schema:
    names = {"allOf": [{"$ref": "#/definitions/name"}], "not": {"enum": list(RULE_NAMES)}}
    state = {"type": "object", "propertyNames": names, "additionalProperties": or_null(SCALAR)}
    return {**merged(RuleDeclaration, state=state), "description": RuleDeclaration.__doc__}


def _groups(table: Optimizer) -> Schema:
    """The schema of an optimizer's groups: each has parameters, and arguments of the optimizer's class."""
    places = {
        argument.name: {"$ref": f"#/definitions/optimizer_{table.name}/properties/{argument.name}"}
        for argument in _taken(table)
    }
    names = described(NAMES, properties_of(GroupDeclaration)["parameters"])
    group = {"properties": {"parameters": names, **places}, "additionalProperties": False}
    return {"if": {"required": [table.name]}, "then": {"properties": {"groups": {"items": group}}}}


def _class(table: Optimizer) -> str:
    return f"torch.optim.{table.class_name}"


def _taken(table: Optimizer) -> list[Argument]:
    return [argument for argument in table.arguments if argument.name not in table.refused]


_TYPES: dict[str, str] = {"bool": "boolean", "int": "number", "float": "number", "Tensor": "number", "str": "string"}


def _argument(argument: Argument, owner: str) -> Schema:
    """The schema of an argument. It always accepts text, which may be an expression."""
    limits = {} if (owner, argument.name) in UNCHECKED else ARGUMENTS.get(argument.name, {})
    if argument.type.rstrip("?").endswith("[]"):
        schema: Schema = {"type": ["array", "string"], "items": {"type": ["number", "string", "null"]}}
        limits = limits if "items" in limits else {}
    else:
        kinds = {_TYPES.get(kind, "string") for kind in argument.type.rstrip("?").split("|")}
        schema = {"type": sorted({*kinds, "string", *(["null"] if argument.type.endswith("?") else [])})}
    annotations: Schema = {"description": f"Argument `{argument.name}` of {owner}."}
    if argument.default is not None:
        default = ast.literal_eval(argument.default)
        annotations["default"] = list(default) if isinstance(default, tuple) else default
    return described(limits if "enum" in limits else {**schema, **limits}, annotations)
