"""The schema in yaml-language-server, which editors ask: what it marks, completes and shows.

The server is the program that STEPRUN_YAML_LANGUAGE_SERVER names, else `yaml-language-server` on PATH;
`npm install yaml-language-server` installs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.config.bad_configs import BAD, DETECTED, lines_of_faults
from tests.config.language_server import LanguageServer

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SCHEMA = ROOT / "docs" / "steprun.schema.json"
HEAD = "parameters: {x: 1}\nexpression: f = x ** 2\n"
NAMED = os.environ.get("STEPRUN_YAML_LANGUAGE_SERVER")
PROGRAM = NAMED or shutil.which("yaml-language-server")
ERROR = 1

MARKED_AT_THE_MAPPING = {"two_initialisers": 5, "two_optimizers_in_one": 5, "two_steps_in_one": 6}
"""Where two keys exclude one another, steprun marks the second, and the server the first line of their mapping."""

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node, which runs yaml-language-server"),
    pytest.mark.skipif(
        PROGRAM is None, reason="yaml-language-server is not on PATH, and STEPRUN_YAML_LANGUAGE_SERVER names none"
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageServer]:
    assert PROGRAM is not None
    settings = {
        "schemas": {SCHEMA.as_uri(): "*.yaml"},
        "schemaStore": {"enable": False},
        **dict.fromkeys(("validate", "hover", "completion"), True),
    }
    with LanguageServer([PROGRAM, "--stdio"], settings) as running:
        yield running


def lines(diagnostics: list[dict[str, Any]]) -> set[int]:
    """The lines, from 1, that errors begin in."""
    return {each["range"]["start"]["line"] + 1 for each in diagnostics if each["severity"] == ERROR}


def test_no_example_has_a_mark(server: LanguageServer) -> None:
    marks = server.diagnostics({path: path.read_text(encoding="utf-8") for path in CONFIGS})
    assert len(marks) == len(CONFIGS) > 20
    assert {path.name: found for path, found in marks.items() if found} == {}


def test_a_bad_config_is_marked_in_the_line_that_steprun_names(server: LanguageServer) -> None:
    marks = server.diagnostics({BAD[name]: BAD[name].read_text(encoding="utf-8") for name in DETECTED})
    for name in DETECTED:
        found = lines(marks[BAD[name]])
        if name in MARKED_AT_THE_MAPPING:
            assert found == {MARKED_AT_THE_MAPPING[name]}, name
        else:
            assert found & lines_of_faults(name), name


def test_every_misspelt_key_is_marked(server: LanguageServer) -> None:
    path = BAD["misspelt_at_every_depth"]
    (found,) = server.diagnostics({path: path.read_text(encoding="utf-8")}).values()
    assert lines_of_faults(path.stem) <= lines(found)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("optimizer: {adam: {learning_rate: 1}}\n", 3, "Property learning_rate is not allowed."),
        ("steps:\n  - backward\n  - bakward\n", 5, 'Value must be "forward" | "backward"'),
        ("steps:\n  - repeat:\n      times: -1\n      steps: [backward]\n", 5, "below the minimum of 0"),
        ("metrics:\n  m: f\n  lambda: f\n", 5, "Matches a schema that is not allowed."),
        ("functions:\n  square: x\n", 4, "Write the function as `name(argument, …): body`."),
        ("log:\n  every: 2\n  tensors: some\n", 5, 'Valid values: "full", "stats", "digest", "none"'),
        ("constants:\n  c:\n    requires_grad: true\n", 5, "Value is not accepted."),
        ("steps: train\n", 3, "Expected a list of steps: write `- ` before it."),
    ],
)
def test_what_a_person_is_told(server: LanguageServer, tmp_path: Path, text: str, line: int, message: str) -> None:
    (found,) = server.diagnostics({tmp_path / "config.yaml": HEAD + text}).values()
    assert lines(found) == {line}
    assert any(message in each["message"] for each in found), found


def test_the_first_line_of_a_config_names_the_schema(tmp_path: Path) -> None:
    assert PROGRAM is not None
    shutil.copy(SCHEMA, tmp_path / "steprun.schema.json")
    first = "# yaml-language-server: $schema=steprun.schema.json\n"
    assert first in (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    texts = {tmp_path / "with.yaml": first + HEAD + "sede: 1\n", tmp_path / "without.yaml": HEAD + "sede: 1\n"}
    with LanguageServer([PROGRAM, "--stdio"], {"validate": True, "schemaStore": {"enable": False}}) as plain:
        marked, unmarked = plain.diagnostics(texts).values()
    assert lines(marked) == {4}
    assert unmarked == []


def labels(server: LanguageServer, path: Path, text: str) -> list[str]:
    """What the server completes at the `¦` in a text."""
    before, after = text.split("¦")
    server.diagnostics({path: before + after})
    line, character = before.count("\n"), len(before.rpartition("\n")[2])
    return [item["label"] for item in server.at("textDocument/completion", path, line, character)["items"]]


OPTIMIZERS = {"adam", "adamw", "sgd", "lbfgs", "muon", "rule", "parameters", "groups", "state"}
STEPS = {"forward", "backward", "step", "train", "repeat", "for_each", "assign", "expect", "evaluate", "stop"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer:\n  ¦\n", OPTIMIZERS),
        ("optimizer: {\n  ¦\n}\n", OPTIMIZERS),
        ("optimizer: {a¦}\n", OPTIMIZERS),
        ("optimizer:\n  adam:\n    ¦\n", {"lr", "betas", "eps", "weight_decay", "amsgrad"}),
        ("optimizer: {sgd: {m¦}}\n", {"lr", "momentum", "nesterov"}),
        ("optimizer:\n  sgd:\n  groups:\n    - parameters: x\n      ¦\n", {"lr", "momentum", "nesterov"}),
        ("steps:\n  - ¦\n", STEPS),
        ("steps:\n  - repeat:\n      times: 2\n      steps:\n        - ¦\n", STEPS),
        ("steps:\n  - train: {a¦}\n", {"objective", "optimizer", "accumulate", "clip_grad_norm", "data"}),
        ("constants:\n  c:\n    ¦\n", {"shape", "init", "dtype", "file", "columns"}),
        ("engine: ¦\n", {"eager", "compile", "cudagraph"}),
        ("¦\n", {"optimizer", "optimizers", "steps", "log", "metrics", "seed"}),
    ],
)
def test_completion_offers_the_keys(server: LanguageServer, tmp_path: Path, text: str, expected: set[str]) -> None:
    offered = labels(server, tmp_path / "config.yaml", HEAD + text)
    assert expected <= set(offered)
    if "sgd" in text:
        assert "betas" not in offered


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("se¦ed: 1\n", "Seed from which every random stream derives, 0 or more. Default: 0."),
        ("optimizer: {ad¦am: {lr: 1}}\n", "The optimizer torch.optim.Adam."),
        ("optimizer: {adam: {l¦r: 1}}\n", "Argument lr of torch.optim.Adam. Default: 0.001."),
        ("steps:\n  - tr¦ain\n", "Run one training step: zero_grad, backward, clipping and step."),
        ("steps:\n  - back¦ward: f\n", "Compute an objective, and add its gradients to those that are there."),
        (
            "steps:\n  - train: {accu¦mulate: 2}\n",
            "Number of micro-batches whose gradients are averaged into one step. Default: 1.",
        ),
        ("log: {tensors: st¦ats}\n", "How to store larger tensors: full elements, stats, a digest, or none."),
    ],
)
def test_hover_shows_the_description(server: LanguageServer, tmp_path: Path, text: str, shown: str) -> None:
    before, after = (HEAD + text).split("¦")
    path = tmp_path / "config.yaml"
    server.diagnostics({path: before + after})
    line, character = before.count("\n"), len(before.rpartition("\n")[2])
    found = server.at("textDocument/hover", path, line, character)["contents"]["value"]
    assert found.replace("\\", "").replace("`", "").startswith(shown)
