"""The JSON Schema: what loads satisfies it, and an editor can complete from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings

from runner.catalogue import initialisers, optimizers
from runner.config import json_schema, load, loads
from runner.config.keys import RESERVED, TOP_LEVEL_KEYS
from runner.config.models import STEP_MODELS
from runner.config.text.nodes import plain
from runner.errors import ConfigError
from tests.config.strategies import LINEAR, mutated
from tests.tables import over

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
HEAD = "parameters: {x: 1}\nexpression: f = x\n"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@over("path", CONFIGS)
def test_every_example_satisfies_the_schema(path: Path) -> None:
    VALIDATOR.validate(plain(load(path).document.root))


@settings(max_examples=200, deadline=None)
@given(mutated())
@example(LINEAR)
def test_every_config_that_loads_satisfies_the_schema(text: str) -> None:
    try:
        config = loads(text)
    except ConfigError:
        return
    VALIDATOR.validate(plain(config.document.root))


@over(
    "text",
    [
        "parmeters: {x: 1}",
        "parameters: {x: {shap: [1]}}",
        "parameters: {x: {init: {normal: {sdt: 1}}}}",
        "optimizer: {adam: {learning_rate: 1}}",
        "optimizer: {adamm: {}}",
        "optimizer: {adam: {}, sgd: {}}",
        "steps: [bakward]",
        "steps: [{backward: {objectiv: f}}]",
        "steps: [{repeat: {times: 2}}]",
        "steps: [{backward: f, step: a}]",
        "log: {tensors: some}",
        "device: gpu",
        "seed: -1",
        "steps: [{repeat: {times: 2, steps: [{train: {optimiser: a}}]}}]",
    ],
)
def test_a_faulty_config_does_not(text: str) -> None:
    with pytest.raises(ConfigError, match=r"."):
        loads(HEAD + text)
    import yaml

    assert not VALIDATOR.is_valid(yaml.safe_load(text))


def test_every_key_step_optimizer_and_initialiser_can_be_completed() -> None:
    assert set(SCHEMA["properties"]) == set(TOP_LEVEL_KEYS) - set(RESERVED)
    step = SCHEMA["$defs"]["step"]["anyOf"][1]["properties"]
    assert set(step) == {*STEP_MODELS, "every", "when"}
    optimizer = SCHEMA["$defs"]["optimizer"]["anyOf"][0]["properties"]
    for name, table in optimizers().items():
        assert set(optimizer[name]["properties"]) == {argument.name for argument in table.arguments}
    init = SCHEMA["$defs"]["init"]["anyOf"][3]["properties"]
    assert set(init) == {*initialisers(), "expression"}


def test_defaults_are_those_of_the_library() -> None:
    adam = SCHEMA["$defs"]["optimizer"]["anyOf"][0]["properties"]["adam"]["properties"]
    assert adam["lr"]["default"] == 0.001
    assert adam["betas"]["default"] == [0.9, 0.999]
    assert adam["amsgrad"]["default"] is False


def described(schema: Any) -> list[str]:
    """Keys of closed mappings anywhere in a schema that have no description."""
    missing = []
    if isinstance(schema, dict):
        if schema.get("additionalProperties") is False:
            missing += [
                key
                for key, value in schema["properties"].items()
                if "description" not in value and "$ref" not in value and "default" not in value
            ]
        missing += [key for value in schema.values() for key in described(value)]
    elif isinstance(schema, list):
        missing += [key for value in schema for key in described(value)]
    return missing


def test_every_key_is_described() -> None:
    required = {
        argument.name for table in initialisers().values() for argument in table.arguments if argument.default is None
    }
    assert set(described(SCHEMA)) <= required


def test_every_field_of_every_model_is_described() -> None:
    from runner.config import models

    kinds = [each for each in vars(models).values() if isinstance(each, type) and issubclass(each, models.Frozen)]
    assert len(kinds) > 15
    for kind in kinds:
        assert kind.__doc__
        assert all(field.description for field in kind.model_fields.values())


def test_the_committed_schema_is_the_one_that_the_models_give() -> None:
    committed = Path(__file__).parents[2] / "docs" / "steprun.schema.json"
    written = json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n"
    assert committed.read_text(encoding="utf-8") == written, "regenerate it: steprun schema > docs/steprun.schema.json"
