"""Foreign numeric cases: JSON records with their arrays, as other people's suites and papers state them."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = "STEPRUN_CASES"
"""The environment variable that names the folder of cases."""

DTYPES: Mapping[str, torch.dtype] = {"float64": torch.float64, "float32": torch.float32}
"""Every case is run in both."""

NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True, slots=True)
class Case:
    """One record: inputs, expressions, what is expected of them and how near."""

    source: str  # the folder's name
    folder: Path
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.record["id"])

    @property
    def kind(self) -> str:
        return str(self.record["kind"])

    def arrays(self, field: str) -> dict[str, Tensor]:
        """The named arrays under `field`, in the dtypes they were written in."""
        return {name: self.array(value) for name, value in (self.record.get(field) or {}).items()}

    def array(self, value: Any) -> Tensor:
        """One array record, number or nested list as a tensor."""
        return read_array(value, self.folder)

    def lets(self) -> list[tuple[str, str]]:
        return [(name, expression) for name, expression in self.record.get("lets") or ()]

    def tolerances(self, dtype: str) -> Mapping[str, Any] | None:
        """The tolerances in `dtype`, or None where the case does not hold in it."""
        found: Mapping[str, Any] | None = self.record["tolerance"].get(dtype)
        return found

    def skipped_keys(self, dtype: str) -> frozenset[str]:
        """Result keys that are not to be compared in `dtype`."""
        return frozenset(self.record.get("float32_skip") or ()) if dtype == "float32" else frozenset()


def cases_folder() -> Path | None:
    """The folder that the environment names, or None."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else None


def load_cases(folder: Path) -> list[Case]:
    """Every case below `folder`, by source and in the order of its file."""
    return [case for path in sorted(folder.glob("*/cases.json")) for case in _cases_of(path)]


def _cases_of(path: Path) -> Iterator[Case]:
    document = json.loads(path.read_text(encoding="utf-8"))
    for record in document["cases"]:
        yield Case(source=path.parent.name, folder=path.parent, record=record)


def read_array(value: Any, folder: Path) -> Tensor:
    """A record of an array as a tensor of its own dtype and shape."""
    if not isinstance(value, Mapping):
        return torch.tensor(value, dtype=torch.float64 if _is_float(value) else None)
    if "file" in value:
        return _stored(folder / value["file"])[value["key"]]
    dtype = getattr(torch, value["dtype"])
    flat = [NON_FINITE.get(number, number) if isinstance(number, str) else number for number in value["data"]]
    return torch.tensor(flat, dtype=dtype).reshape(value["shape"])


@functools.lru_cache(maxsize=8)
def _stored(path: Path) -> dict[str, Tensor]:
    return dict(load_file(path))


def _is_float(value: Any) -> bool:
    while isinstance(value, Sequence) and not isinstance(value, str):
        value = next((item for item in value if isinstance(item, float)), value[0] if value else 0.0)
    return isinstance(value, float)


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating tensors in the dtype of the run; integers and booleans as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def expected_results(case: Case) -> dict[str, Tensor]:
    """What the case's source states, by result key: `out:y`, `grad:x`, `3:param:w`, `0:loss`."""
    return {key: case.array(value) for key, value in EXPECTED[case.kind](case.record)}


def given_arrays(case: Case) -> Iterator[Tensor]:
    """Every number that the case gives to compute with."""
    for field in ("inputs", "params", "constants"):
        yield from case.arrays(field).values()
    for values in (case.record.get("scheduled") or {}).values():
        yield from map(case.array, values)
    for probe in case.record.get("probes") or ():
        yield from map(case.array, probe["params"].values())


def has_nonfinite(case: Case) -> bool:
    """Whether the case gives or expects an infinity or a NaN."""
    return not all(
        bool(torch.isfinite(value).all()) for value in (*given_arrays(case), *expected_results(case).values())
    )


def _expected_of_expr(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for output in record["outputs"]:
        if output.get("expected") is not None:
            yield f"out:{output['name']}", output["expected"]
    for name, value in (record.get("grads") or {}).items():
        yield f"grad:{name}", value


def _expected_of_entries(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for position, entry in enumerate(record.get("probes") or record["expected"]):
        at = entry.get("iteration", entry.get("after", position))
        if entry.get("loss") is not None:
            yield f"{at}:loss", entry["loss"]
        for field, kind in (("values", "value"), ("grads", "grad"), ("params", "param")):
            if kind == "param" and "probes" in record:
                continue  # a probe's parameters are where it stands, not what it finds
            for name, value in (entry.get(field) or {}).items():
                yield f"{at}:{kind}:{name}", value
        for name, state in (entry.get("state") or {}).items():
            for key, value in state.items():
                yield f"{at}:state:{name}:{key}", value


EXPECTED = {
    "expr": _expected_of_expr,
    "train": _expected_of_entries,
    "program": _expected_of_entries,
    "minimize": _expected_of_entries,
}
