"""Builds a config from a document: expands short forms and collects every problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runner.config.document import Document
from runner.config.fields import LONGEST_NAME, check_expression
from runner.config.keys import ENGINES, ON_NONFINITE, RESERVED, TENSOR_LOGS, TOP_LEVEL_KEYS, not_built
from runner.config.models import Config
from runner.config.record_models import Health, Log
from runner.config.sections.autocast import read_autocast
from runner.config.sections.data import read_sources
from runner.config.sections.faults import Faults, TooManyFaults
from runner.config.sections.from_run import read_from_run
from runner.config.sections.measured import read_metrics, read_objectives
from runner.config.sections.names import (
    check_data_names,
    check_function_names,
    check_measured_names,
    check_tensor_names,
)
from runner.config.sections.optimizers import read_optimizers
from runner.config.sections.snapshot import read_snapshot
from runner.config.sections.steps import read_program
from runner.config.sections.sweep import read_sweep
from runner.config.sections.tensors import read_constants, read_parameters, scalar_names
from runner.config.text.nodes import describe, plain
from runner.errors import Problem, did_you_mean, nearest


def build_config(document: Document, problems: list[Problem], most: int) -> Config | None:
    """Returns the config of a document, or None if it is not valid; `problems` then has at most `most` new entries."""
    try:
        config = _config(plain(document.root), Faults(document, problems, most))
    except TooManyFaults:
        return None
    if config is None or problems:
        return None
    config._document = document
    return config


def _config(data: dict[str, Any], faults: Faults) -> Config | None:
    _check_keys(data, faults)
    check_tensor_names(data, faults)
    check_function_names(data, faults)
    check_measured_names(data, faults)
    check_data_names(data, faults)
    scalars = scalar_names(data.get("constants"))
    values: dict[str, Any] = {
        key: data[key]
        for key in ("name", "description", "seed", "dtype", "device", "engine", "expression", "on_nonfinite")
        if key in data
    }
    values["autocast"] = read_autocast(data.get("autocast"), faults)
    values["parameters"] = read_parameters(data.get("parameters"), scalars, faults)
    values["constants"] = read_constants(data.get("constants"), scalars, faults)
    values["from_run"] = read_from_run(data.get("from_run"), faults)
    values["data"] = read_sources(data.get("data"), faults)
    values["optimizers"] = read_optimizers(data, faults)
    values["single_optimizer"] = data.get("optimizer") is not None
    values["steps"] = read_program(data.get("steps"), scalars, faults)
    values["log"] = _log(data.get("log"), faults)
    values["snapshot"] = read_snapshot(data.get("snapshot"), faults)
    values["sweep"] = read_sweep(data.get("sweep"), faults)
    values["health"] = _health(data.get("health"), faults)
    values["metrics"] = read_metrics(data.get("metrics"), faults)
    values["objectives"] = read_objectives(data.get("objectives"), faults)
    functions = values["functions"] = {} if data.get("functions") is None else data["functions"]
    if isinstance(functions, dict) and not faults.check_each(functions.items(), check_expression, ("functions",)):
        values["functions"] = {}
    if data.get("name") is None:
        values["name"] = faults.document.name
    _check_choice(data.get("engine"), ("engine",), ENGINES, "engine", faults)
    _check_choice(data.get("on_nonfinite"), ("on_nonfinite",), ON_NONFINITE, "choice", faults)
    if data.get("parameters") in (None, {}) and "parameters" not in faults.misspelt:
        hint = "write `parameters: {x: {shape: [1], init: 100}}`"
        faults.add(("parameters",), "a config needs at least one parameter", hint, key=True)
    return faults.build(Config, values, ())


def run_name(stem: str) -> str:
    """Returns the default name of a run, from the name of its file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:LONGEST_NAME] or "run"


def _check_keys(data: dict[str, Any], faults: Faults) -> None:
    for key in data:
        if key in RESERVED:
            faults.add((key,), not_built(f"`{key}`"), RESERVED[key], key=True)
        elif key not in TOP_LEVEL_KEYS:
            faults.misspelt |= {nearest(key, TOP_LEVEL_KEYS) or ""}
            hint = _hint_for_other_tools(key, data[key]) or did_you_mean(
                key, TOP_LEVEL_KEYS, f"a config takes {', '.join(TOP_LEVEL_KEYS)}"
            )
            if ":" in key:
                hint = f"put a space after `:`; {hint}"
            faults.add((key,), f"a config has no key `{key}`", hint, key=True)


def _hint_for_other_tools(key: str, value: Any) -> str | None:
    """Returns the hint for a top-level key that other tools use and configs do not have, or None for other keys."""
    shown = value if isinstance(value, (int, float, str)) and len(str(value)) <= _LONGEST_VALUE else "…"
    hint = _KEYS_OF_OTHER_TOOLS.get(key)
    return hint and hint.replace("VALUE", str(shown))


_LONGEST_VALUE = 20
_KEYS_OF_OTHER_TOOLS: Mapping[str, str] = {
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs", "n_epochs"), "write `steps: {epochs: VALUE}`"),
    **dict.fromkeys(("iterations", "num_steps", "max_steps", "n_steps"), "write `steps: VALUE`"),
    **dict.fromkeys(("lr", "learning_rate"), "write `optimizer: {adam: {lr: VALUE}}`"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "write an expression of `t`: `optimizer: {adam: {lr: 0.1 / t}}`"),
    **dict.fromkeys(("amp", "mixed_precision", "precision"), "write `autocast: bfloat16`"),
    **dict.fromkeys(("early_stopping", "patience"), "write `steps: {epochs: …, evaluate: valid, patience: VALUE}`"),
    "batch_size": "write it next to the file: `data: {train: {file: …, batch_size: VALUE}}`",
    **dict.fromkeys(("loss", "model", "forward", "criterion", "objective"), "write it as the `expression`"),
    **dict.fromkeys(("weights", "variables"), "declare them under `parameters:`"),
}


def _log(written: Any, faults: Faults) -> Log | None:
    if written is None:
        return Log()
    if not isinstance(written, dict):
        faults.add(("log",), f"expected a mapping, found {describe(written)}", "write `log: {every: 10}`")
        return Log()
    _check_choice(written.get("tensors"), ("log", "tensors"), TENSOR_LOGS, "choice", faults)
    return faults.build(Log, written, ("log",)) or Log()


def _health(written: Any, faults: Faults) -> Health | None:
    if written is None:
        return Health()
    if not isinstance(written, dict):
        hint = "write `health: {exploding_gradient: 1e3}`"
        faults.add(("health",), f"expected a mapping, found {describe(written)}", hint)
        return Health()
    return faults.build(Health, written, ("health",)) or Health()


def _check_choice(written: Any, path: tuple[str, ...], choices: tuple[str, ...], noun: str, faults: Faults) -> None:
    if isinstance(written, str) and written not in choices:
        faults.add(path, f"there is no {noun} `{written}`", f"write {' or '.join(f'`{choice}`' for choice in choices)}")
