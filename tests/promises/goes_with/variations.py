"""The columns of the table: what else a run can have, as a change of a config and of the model by hand."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from tests.promises.goes_with.by_hand import Hand, weights
from tests.promises.goes_with.capabilities import SKELETON, Capability

Written = dict[str, Any]

MODEL = "tanh(x @ w + b)"


def config_of(capability: Capability, column: str) -> Written:
    """The config of a cell."""
    model, dtype = MODEL, torch.float32
    columns = _columns(capability, column)
    for variation in columns:
        model = variation.model(model)
        dtype = variation.of_weights or variation.dtype or dtype
    written: Written = {}
    for text in (SKELETON, capability.config, capability.instead.get(column, "")):
        for name, each in weights().items():
            text = text.replace(f"{{{name}}}", str(each.tolist()))
        text = text.replace("{h}", model).replace("{dtype}", str(dtype).removeprefix("torch."))
        written.update(yaml.safe_load(text) or {})
    for variation in columns:
        variation.change(written)
    return written


def hand_of(capability: Capability, column: str) -> Hand:
    """The model of a cell by hand, before its first step."""
    columns = _columns(capability, column)
    dtype = next((each.dtype for each in columns if each.dtype), torch.float32)
    of_weights = next((each.of_weights for each in columns if each.of_weights), dtype)
    drawing = VARIATIONS["random numbers"] in columns
    hand = Hand(dtype, of_weights, drawing, capability.objective)
    groups = [[hand.w, hand.b]]
    if VARIATIONS["two optimizers"] in columns:
        groups = [[hand.w], [hand.b]]
    hand.optimizers = [capability.optimizer(group) for group in groups]
    if VARIATIONS["L-BFGS"] in columns:
        rates = [each.param_groups[0]["lr"] for each in hand.optimizers]
        hand.optimizers = [
            torch.optim.LBFGS(group, lr=rate, max_iter=3) for group, rate in zip(groups, rates, strict=True)
        ]
    return hand


def memory_of(capability: Capability, column: str) -> int | None:
    """The bytes that a cell may take; None: those of the machine."""
    return next((each.memory for each in _columns(capability, column) if each.memory), None)


def _columns(capability: Capability, column: str) -> list[Variation]:
    names = {capability.as_column or column, column}
    return [variation for name, variation in VARIATIONS.items() if name in names]


def _nothing(written: Written) -> None:
    pass


def _same(model: str) -> str:
    return model


def _bfloat16(written: Written) -> None:
    written["dtype"] = "bfloat16"


def _complex(written: Written) -> None:
    for name in ("w", "b"):
        written["parameters"][name]["dtype"] = "complex64"


def _two(written: Written) -> None:
    if "optimizers" in written:
        del written["optimizer"]
        return
    one = written.pop("optimizer")
    first, second = {**one, "parameters": ["w"]}, {**one, "parameters": ["b"]}
    second.pop("state", None)
    written["optimizers"] = {"first": first, "second": second}


def _lbfgs(written: Written) -> None:
    if "optimizers" in written:
        written["optimizers"] = {name: _searched(each) for name, each in written["optimizers"].items()}
    else:
        written["optimizer"] = _searched(written["optimizer"])


def _searched(old: Written) -> Written:
    kind = next(name for name in old if name not in ("groups", "state", "parameters"))
    rest = {name: each for name, each in old.items() if name != kind}
    return {"lbfgs": {"lr": old[kind].get("lr", 0.1), "max_iter": 3}, **rest}


def _engine(name: str, device: str = "cpu") -> Callable[[Written], None]:
    def change(written: Written) -> None:
        written["engine"] = name
        written["device"] = device

    return change


@dataclass(frozen=True, slots=True)
class Variation:
    """A column of the table."""

    change: Callable[[Written], None] = _nothing
    model: Callable[[str], str] = _same
    dtype: torch.dtype | None = None
    of_weights: torch.dtype | None = None
    memory: int | None = None


VARIATIONS: Mapping[str, Variation] = {
    "by hand": Variation(),
    "bfloat16": Variation(_bfloat16, dtype=torch.bfloat16),
    "complex": Variation(_complex, lambda model: model.replace("x @", "x.to(complex64) @"), of_weights=torch.complex64),
    "two optimizers": Variation(_two),
    "L-BFGS": Variation(_lbfgs),
    "random numbers": Variation(model=lambda model: f"{model} * dropout(ones(2), 0.25, training)"),
    "larger than memory": Variation(memory=700_000),
    "compile": Variation(_engine("compile")),
    "cudagraph": Variation(_engine("cudagraph", "cuda")),
    "xla": Variation(_engine("xla")),
    "resume": Variation(),
    "check": Variation(),
    "compare": Variation(),
    "lanes": Variation(),
    "processes": Variation(),
}
