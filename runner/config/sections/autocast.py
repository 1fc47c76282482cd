"""Reads `autocast`: a dtype, or a mapping with a loss scaler."""

from __future__ import annotations

from typing import Any

from runner.config.fields import DTYPES
from runner.config.keys import AUTOCAST_DTYPES
from runner.config.models import Autocast, LossScale
from runner.config.sections.faults import Faults
from runner.config.text.nodes import Path, describe

DYNAMIC = "dynamic"
"""The short form of a loss scaler with torch's defaults."""

_WRITE = f"write {' or '.join(f'`{name}`' for name in AUTOCAST_DTYPES)}"


def read_autocast(written: Any, faults: Faults) -> Autocast | None:
    path: Path = ("autocast",)
    if written is None:
        return None
    if isinstance(written, str):
        dtype = _dtype(written, path, faults)
        return None if dtype is None else Autocast(dtype=dtype)
    if not isinstance(written, dict):
        faults.add(path, f"expected a dtype or a mapping, found {describe(written)}", _WRITE)
        return None
    before = faults.count
    values = dict(written)
    if isinstance(written.get("dtype"), str):
        values["dtype"] = _dtype(written["dtype"], (*path, "dtype"), faults)
    if written.get("loss_scale") is not None:
        values["loss_scale"] = _loss_scale(written["loss_scale"], (*path, "loss_scale"), faults)
    return faults.build(Autocast, values, path) if faults.count == before else None


def _dtype(written: str, path: Path, faults: Faults) -> str | None:
    name = DTYPES.get(written.removeprefix("torch."), written)
    if name not in AUTOCAST_DTYPES:
        faults.add(path, f"torch's autocast has no dtype `{written}`", _WRITE)
        return None
    return name


def _loss_scale(written: Any, path: Path, faults: Faults) -> LossScale | None:
    if written == DYNAMIC:
        return LossScale()
    if not isinstance(written, dict):
        message = f"expected `{DYNAMIC}` or a mapping, found {describe(written)}"
        faults.add(path, message, f"write `loss_scale: {DYNAMIC}`, or `loss_scale: {{init_scale: 1024}}`")
        return None
    return faults.build(LossScale, written, path)
