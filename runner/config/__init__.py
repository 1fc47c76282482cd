"""Reads configs: YAML with `extends` and overrides, checked against models.

In: files, standard input, overrides. Out: a frozen `Config`, with the place of every value.
Imports no torch. A config with faults raises one error that lists each of them at its place.

    config = load("configs/linear.yaml", ["learning_rate=0.1"])
    config.parameters["x1"].init
    config.document.problem(("expression",), "what is wrong", at=(1, 4, 2))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.config.data_models import DataDeclaration, Dialect, SelectDeclaration
from runner.config.document import Document
from runner.config.limits import Limits
from runner.config.load import load, loads, overridden, rewritten
from runner.config.models import (
    Assign,
    Backward,
    ClipGradNorm,
    ClipGradValue,
    Config,
    Evaluate,
    Expect,
    Expectation,
    ForEach,
    Forward,
    GroupDeclaration,
    Init,
    InitCall,
    InitExpression,
    Next,
    OptimizerDeclaration,
    OptimizerStep,
    Repeat,
    RuleDeclaration,
    Step,
    Stop,
    TensorDeclaration,
    Train,
    ZeroGrad,
)
from runner.config.record_models import Log

__all__ = [
    "Assign",
    "Backward",
    "ClipGradNorm",
    "ClipGradValue",
    "Config",
    "DataDeclaration",
    "Dialect",
    "Document",
    "Evaluate",
    "Expect",
    "Expectation",
    "ForEach",
    "Forward",
    "GroupDeclaration",
    "Init",
    "InitCall",
    "InitExpression",
    "Limits",
    "Log",
    "Next",
    "OptimizerDeclaration",
    "OptimizerStep",
    "Repeat",
    "RuleDeclaration",
    "SelectDeclaration",
    "Step",
    "Stop",
    "TensorDeclaration",
    "Train",
    "ZeroGrad",
    "declared_dtypes",
    "json_schema",
    "load",
    "loads",
    "overridden",
    "rewritten",
]


def declared_dtypes(config: Config) -> Iterator[tuple[str, str]]:
    """Yields each dtype that a tensor or batch column declares, after the path that an override would write."""
    for key, declared in (("parameters", config.parameters), ("constants", config.constants)):
        for name, tensor in declared.items():
            if isinstance(tensor, TensorDeclaration) and tensor.dtype is not None:
                yield f"{key}.{name}.dtype", tensor.dtype
    for source, data in config.data.items():
        yield from ((f"data.{source}.dtype.{column}", dtype) for column, dtype in data.dtype.items())


def json_schema(draft: str = "7") -> dict[str, Any]:
    """Returns the JSON Schema of configs, for editors, in draft `7` or `2020-12`."""
    from runner.config.schema.config import json_schema as build

    return build(draft)
