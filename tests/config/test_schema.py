"""The JSON Schema: what compiles satisfies it, and it rejects what it can see of a faulty config."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings

import runner
from runner.catalogue import initialisers, optimizers
from runner.config import json_schema, load, loads
from runner.config.keys import RESERVED, TOP_LEVEL_KEYS
from runner.config.models import STEP_MODELS
from runner.config.schema.catalogue import ARGUMENTS
from runner.config.text.nodes import plain
from runner.errors import ConfigError
from tests.config.bad_configs import DETECTED, readable
from tests.config.strategies import LINEAR, mutated
from tests.effort import tried
from tests.tables import over

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
NEWER = jsonschema.Draft202012Validator(json_schema("2020-12"))
HEAD = "parameters: {x: 1}\nexpression: f = x\n"


def in_schema(definition: str) -> Any:
    return SCHEMA["definitions"][definition]


def mapping_of(definition: str) -> Any:
    """The one form of a definition that is a mapping."""
    (found,) = [form for form in in_schema(definition)["anyOf"] if "properties" in form]
    return found["properties"]


def test_the_schema_is_one_in_each_draft() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(NEWER.schema)
    assert SCHEMA["$schema"] == jsonschema.Draft7Validator.META_SCHEMA["$schema"]
    assert NEWER.schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$schema"]


def test_nothing_stands_beside_a_reference_for_draft_7_reads_nothing_there() -> None:
    def references(schema: Any) -> list[dict[str, Any]]:
        if isinstance(schema, list):
            return [found for item in schema for found in references(item)]
        if not isinstance(schema, dict):
            return []
        return [schema] * ("$ref" in schema) + [found for item in schema.values() for found in references(item)]

    assert len(references(SCHEMA)) > 50
    assert all(set(schema) == {"$ref"} for schema in references(SCHEMA))


@over("path", CONFIGS)
def test_every_example_satisfies_the_schema(path: Path) -> None:
    value = plain(load(path).document.root)
    VALIDATOR.validate(value)
    NEWER.validate(value)


@settings(max_examples=tried(200), deadline=None)
@given(mutated())
@example(LINEAR)
def test_what_the_schema_rejects_does_not_compile(text: str) -> None:
    try:
        config = loads(text)
    except ConfigError:
        return
    if not VALIDATOR.is_valid(plain(config.document.root)):
        with pytest.raises(ConfigError, match=r"."):
            runner.compile(config)


@over(
    "text",
    [
        "constants: {n: 2}\noptimizer: {sgd: }\nsteps: 3 * n",
        "constants: {train: 2}\noptimizer: {sgd: }\nsteps: train",
        "constants: {n: 2}\nsteps: [{repeat: {times: n // 2, steps: [backward, stop, {stop: , every: n}]}}]",
        "steps: [{expect: {x.grad: null}}, backward, {expect: {'x . grad': {value: 2}, f: 2 / 2, f > 0: true}}]",
        "steps: [train]\noptimizer: {adam: {lr: 0.1 / t, betas: [0.9, 1 - 0.001], weight_decay: '0'}}",
        "optimizers: {a_1: {sgd: , parameters: x, groups: [{parameters: [x], lr: 1}]}}\nsteps: [backward, {step: a_1}]",
        "optimizer:\n  rule:\n    state: {v: 0}\n    update: |\n      v = v + grad\n      param = param - v\nsteps: 2",
        "constants: {size: 1.0, c: {init: 3, requires_grad: false}, b: true, l: [1, 2], e: 2 * size}",
        "functions: {'g (a, b=(1))': a + b}\nmetrics: {m: 2}",
        "seed: 1\nname: 7\ndtype: double\ndevice: cpu\nlog: {every: 2, tensors: none, include: x, budget: 2 ** 20}",
        "data: {d: {columns: {y: y.npy}, batch_size: 2 * 2}}\nsteps: [backward, {next: d}, {next: {data: [d]}}]",
        "snapshot: {rtol: 0, atol: 1e-3, uncertainty: false, tolerances: {x: dtype}}",
        "health: {vanishing_gradient: 1e-9, unchanged: 3, update_ratio: [0, 1]}",
    ],
)
def test_short_forms_and_expressions_satisfy_the_schema(text: str, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.zeros((8, 2)))
    config = loads("parameters: {x: 1.0}\nexpression: f = x * x\n" + text, base=str(tmp_path))
    runner.compile(config)
    VALIDATOR.validate(plain(config.document.root))


@over("number", ["inf", "-inf", "nan", "1_000", "1_0.5e3", ".5", "1e-3"])
def test_a_number_that_other_readers_of_yaml_take_for_text_satisfies_the_schema(number: str) -> None:
    text = f"parameters: {{x: {number}}}\nexpression: f = x"
    VALIDATOR.validate(plain(loads(text).document.root))
    VALIDATOR.validate(yaml.safe_load(text))


@over(
    ("base", "extending"),
    [
        ("optimizer: {adam: {lr: 1}}", "optimizer: {adam: {lr: null, eps: 1}}"),
        ("optimizer: {sgd: {}}", "optimizer: {groups: [{parameters: x, lr: 1}]}"),
        ("optimizer: {sgd: {}}", "optimizer: null\noptimizers: {a: {adam: {}, parameters: x}}"),
        ("seed: 3\nlog: {every: 2}", "seed: null\nlog: {every: null, state: true}"),
        ("constants: {c: {init: 1}}", "parameters: {x: {dtype: float64, stacked: null}}\nconstants: {c: null}"),
        ("metrics: {m: f}\non_nonfinite: warn", "metrics: {m: null}\non_nonfinite: null\nexpression: f = 2 * x"),
    ],
)
def test_a_file_that_extends_another_may_leave_out_and_delete(base: str, extending: str, tmp_path: Path) -> None:
    written = "parameters: {x: {init: 1, stacked: 0}}\nexpression: f = x * x\nsteps: [backward]\n" + base
    (tmp_path / "base.yaml").write_text(written, encoding="utf-8")
    (tmp_path / "over.yaml").write_text("extends: base.yaml\n" + extending, encoding="utf-8")
    runner.compile(load(tmp_path / "over.yaml"))
    VALIDATOR.validate(yaml.safe_load((tmp_path / "over.yaml").read_text(encoding="utf-8")))


@over(
    "text",
    [
        "parmeters: {x: 1}",
        "constants: {y: {shap: [1]}}",
        "constants: {y: {init: {normal: {sdt: 1}}}}",
        "constants: {y: {columns: a}}",
        "constants: {lambda: 1}",
        "optimizer: {adam: {learning_rate: 1}}",
        "optimizer: {adamm: {}}",
        "optimizer: {adam: {}, sgd: {}}",
        "optimizer: {adam: {lr: -1}}",
        "optimizer: {adam: {betas: [0.9, 1]}}",
        "optimizer: {adam: {betas: 0.9}}\nsteps: 1",
        "optimizer: {adam: {}, groups: [{parameters: x, momentum: 1}]}",
        "optimizer: {parameters: x}",
        "optimizer: {rule: {state: {grad: 1}, update: param = grad}}",
        "optimizer: {rule: {state: {v: 1}}}",
        "optimizer: {lbfgs: {line_search_fn: wolfe}}",
        "steps: [bakward]",
        "steps: [{backward: {objectiv: f}}]",
        "steps: [{repeat: {times: 2}}]",
        "steps: [{repeat: {times: 0.5, steps: [backward]}}]",
        "steps: [{backward: f, step: a}]",
        "steps: [{every: 2}]",
        "steps: [{backward: , every: 2}]",
        "steps: [stop]",
        "steps: backward",
        "steps: -1",
        "steps: {epochs: -1}",
        "steps: [{clip_grad_norm: 0}]",
        "steps: [{expect: {f: {value: 1, rtol: -1}}}]",
        "steps: [{expect: {f: null}}]",
        "log: {tensors: some}",
        "log: {every: 0}",
        "snapshot: {ulp: 4, rtol: 0}",
        "snapshot: {uncertainty: {runs: 2}}",
        "health: {update_ratio: [1]}",
        "device: gpu",
        "seed: -1",
        "functions: {f: 1}",
        "metrics: {2x: 1}",
        "steps: [{repeat: {times: 2, steps: [{train: {optimiser: a}}]}}]",
    ],
)
def test_a_faulty_config_does_not(text: str) -> None:
    with pytest.raises(ConfigError, match=r"."):
        runner.compile(loads(HEAD + text))
    VALIDATOR.validate(yaml.safe_load(HEAD))
    assert not VALIDATOR.is_valid(yaml.safe_load(HEAD + text))


@over("text", ["", "parameters: {x: 1}", "expression: 1", "parameters: {x: {}}\nexpression: x"])
def test_what_a_config_needs_is_required(text: str) -> None:
    with pytest.raises(ConfigError, match=r"."):
        loads(text)
    assert not VALIDATOR.is_valid(yaml.safe_load(text) or {})


@pytest.mark.slow
def test_the_schema_rejects_the_bad_configs_with_a_fault_that_it_can_see() -> None:
    rejected = {name for name, value in readable().items() if not VALIDATOR.is_valid(value)}
    assert set(DETECTED) <= rejected
    assert rejected == {name for name, value in readable().items() if not NEWER.is_valid(value)}


def test_every_key_step_optimizer_and_initialiser_can_be_completed() -> None:
    assert set(SCHEMA["properties"]) == set(TOP_LEVEL_KEYS) - set(RESERVED)
    assert set(mapping_of("step")) == {*STEP_MODELS, "every", "when"}
    for name, table in optimizers().items():
        assert mapping_of("optimizer")[name] == {"$ref": f"#/definitions/optimizer_{name}"}
        assert set(in_schema(f"optimizer_{name}")["properties"]) == {argument.name for argument in table.arguments}
    assert set(mapping_of("init")) == {*initialisers(), "expression"}


def test_defaults_are_those_of_the_library() -> None:
    adam = in_schema("optimizer_adam")["properties"]
    assert adam["lr"]["default"] == 0.001
    assert adam["betas"]["default"] == [0.9, 0.999]
    assert adam["amsgrad"]["default"] is False


OUT_OF_RANGE = [
    (name, argument.name, bound, schema)
    for name, table in optimizers().items()
    for argument in table.arguments
    for schema in [in_schema(f"optimizer_{name}")["properties"][argument.name]]
    for bound in ("minimum", "maximum")
    if bound in schema
]


@over(("name", "argument", "bound", "schema"), OUT_OF_RANGE)
def test_torch_refuses_numbers_that_the_schema_refuses(
    name: str, argument: str, bound: str, schema: dict[str, Any]
) -> None:
    kind = getattr(torch.optim, optimizers()[name].class_name)
    wrong = schema[bound] + (-0.5 if bound == "minimum" else 0.5)
    kind([torch.zeros(2, 2, requires_grad=True)], **{argument: schema[bound]})
    with pytest.raises(ValueError, match=r"(?i)invalid|should be|negative|must be"):
        kind([torch.zeros(2, 2, requires_grad=True)], **{argument: wrong})


@over("name", [name for name in optimizers() if "betas" in in_schema(f"optimizer_{name}")["properties"]])
def test_torch_refuses_betas_that_the_schema_refuses(name: str) -> None:
    kind = getattr(torch.optim, optimizers()[name].class_name)
    for betas in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)):
        assert not VALIDATOR.is_valid(with_betas(name, betas))
        with pytest.raises(ValueError, match=r"(?i)invalid"):
            kind([torch.ones(1, requires_grad=True)], betas=betas)


@over(
    ("name", "betas"),
    itertools.product(
        [name for name in optimizers() if "betas" in in_schema(f"optimizer_{name}")["properties"]],
        [(0.9,), (0.9, 0.9, 0.9)],  # some releases of torch ignore a third one
    ),
)
def test_other_numbers_of_betas_are_refused(name: str, betas: tuple[float, ...]) -> None:
    value = with_betas(name, betas)
    assert not VALIDATOR.is_valid(value)
    with pytest.raises(ConfigError, match=f"`betas` takes 2 numbers, not {len(betas)}"):
        runner.compile(loads(json.dumps(value)))


def with_betas(name: str, betas: tuple[float, ...]) -> dict[str, Any]:
    return {
        "parameters": {"x": [1.0]},
        "expression": "f = x.sum()",
        "optimizer": {name: {"betas": list(betas)}},
        "steps": 1,
    }


def test_torch_takes_the_words_that_the_schema_takes() -> None:
    words = {name: limits["enum"] for name, limits in ARGUMENTS.items() if "enum" in limits}
    assert set(words) == {"line_search_fn", "adjust_lr_fn", "mode"}
    for word in words["adjust_lr_fn"]:
        torch.optim.Muon([torch.zeros(2, 2, requires_grad=True)], adjust_lr_fn=word)
    with pytest.raises(ValueError, match="not supported"):
        torch.optim.Muon([torch.zeros(2, 2, requires_grad=True)], adjust_lr_fn="other")
    for word in words["mode"]:
        torch.nn.init.kaiming_normal_(torch.zeros(2, 2), mode=word)
    with pytest.raises(ValueError, match="not supported"):
        torch.nn.init.kaiming_normal_(torch.zeros(2, 2), mode="other")
    for word in words["line_search_fn"]:
        one_step_of_lbfgs(word)
    with pytest.raises(RuntimeError, match="strong_wolfe"):
        one_step_of_lbfgs("other")


def one_step_of_lbfgs(line_search: str | None) -> None:
    x = torch.ones(1, requires_grad=True)

    def closure() -> torch.Tensor:
        x.grad = None
        objective = (x * x).sum()
        objective.backward()
        return objective

    torch.optim.LBFGS([x], line_search_fn=line_search).step(closure)


def undescribed(schema: Any) -> list[str]:
    """Keys of closed mappings anywhere in a schema that have no description."""
    missing = []
    if isinstance(schema, dict):
        if schema.get("additionalProperties") is False:
            missing += [key for key, value in schema["properties"].items() if not {"description", "$ref"} & set(value)]
        missing += [key for value in schema.values() for key in undescribed(value)]
    elif isinstance(schema, list):
        missing += [key for value in schema for key in undescribed(value)]
    return missing


def descriptions(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [text for item in schema for text in descriptions(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["description"]] if isinstance(schema.get("description"), str) else []
    return own + [text for item in schema.values() for text in descriptions(item)]


def test_every_key_is_described() -> None:
    assert undescribed(SCHEMA) == []


def test_a_description_is_a_few_short_sentences() -> None:
    assert len(descriptions(SCHEMA)) > 200
    for text in descriptions(SCHEMA):
        assert text[0].isupper() or text[0] == "`", text
        assert text.endswith("."), text
        assert len(text) <= 230, text


def test_every_field_of_every_model_is_described() -> None:
    from runner.config import models, record_models
    from runner.config.frozen import Frozen

    found = {**vars(models), **vars(record_models)}.values()
    kinds = [each for each in found if isinstance(each, type) and issubclass(each, Frozen)]
    assert len(kinds) > 15
    for kind in kinds:
        assert kind.__doc__
        assert all(field.description for field in kind.model_fields.values())


def test_the_committed_schema_is_the_one_that_the_models_give() -> None:
    committed = Path(__file__).parents[2] / "docs" / "steprun.schema.json"
    written = json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n"
    assert committed.read_text(encoding="utf-8") == written, "regenerate it: steprun schema > docs/steprun.schema.json"
