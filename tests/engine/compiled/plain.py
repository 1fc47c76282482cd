"""Regions without a compiler: the same step called in a loop, for tests of everything around it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from runner.engine.compiled import machine_code
from runner.engine.compiled.regions import Region
from runner.engine.compiled.training import Step, Tensors


def plain_region(step: Step, *, several: bool) -> Region:
    """What `compiled_region` gives, uncompiled."""

    def region(carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
        stacked: list[Tensors] = []
        with mock.patch("torch.compiler.is_compiling", return_value=True):  # as torch's optimizers ask
            for place in range(each[0].shape[0]):
                carry, outputs = step(carry, [value[place] for value in each], fixed)
                stacked.append(outputs)
        return carry, [torch.stack(values) for values in zip(*stacked, strict=True)]

    return region


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take regions as they are."""
    monkeypatch.setattr(machine_code, "compiled_region", plain_region)


def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's compiler trace regions, and make no machine code of them."""
    compile = torch.compile

    def traced_only(function: Any, *, options: object, **given: Any) -> Any:
        return compile(function, backend="eager", **given)

    monkeypatch.setattr(torch, "compile", traced_only)
