"""Compares every function of PyTorch's operator database in XLA with torch, and writes `docs/xla-operators.md`.

    python -m tools.xla_operators [--samples 1] [--only NAME ...]

Takes minutes. With `--only` it prints the faults of some functions, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import torch
from torch.testing._internal.common_methods_invocations import op_db

from runner.language.xla.operators import Unsupported
from runner.language.xla.operators.table import RANDOM, RULES
from tests.engine.xla.operators.traced import assert_agrees, run, traced
from tests.language.samples import UNREACHABLE, said_samples

PAGE = Path(__file__).resolve().parents[1] / "docs" / "xla-operators.md"
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.complex128)

AGREES = "agrees"

TIES = "equal elements: PyTorch promises no order among them"
INEXACT = "PyTorch's approximation differs from SciPy's by more than rounding"
POLE = "near a pole, rounding of the argument decides the value"
NOTED = {
    **dict.fromkeys(("polygamma", "special.polygamma"), POLE),
    **dict.fromkeys(("argsort", "kthvalue", "median", "mode", "msort", "nanmedian", "sort", "topk"), TIES),
    "nn.functional.ctc_loss": "logarithms of hundreds leave fewer digits in float32",
    **{f"special.{name}": INEXACT for name in ("airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1")},
}
"""Functions whose values may differ, and why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one function with one dtype."""

    function: str
    dtype: torch.dtype
    outcome: str  # `AGREES`, or why not


def outcomes(samples: int, only: Sequence[str] = ()) -> Iterator[Outcome]:
    """Compares each function of the database that a config can call, with each dtype that it takes."""
    for entry in op_db:
        if entry.name in UNREACHABLE or (only and entry.name not in only):
            continue
        forward, backward = entry.supported_dtypes("cpu"), entry.supported_backward_dtypes("cpu")
        for dtype in DTYPES:
            if dtype in forward:
                gradients = entry.supports_autograd and dtype in backward
                yield Outcome(entry.name, dtype, _outcome(entry, dtype, gradients, samples))


def _outcome(entry: Any, dtype: torch.dtype, gradients: bool, samples: int) -> str:
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        for said in said_samples(entry, dtype, gradients, samples):
            try:
                sample = traced(said, gradients)
            except Exception as error:  # torch raises errors of any class
                return f"torch does not trace it: {_line(error)}"
            if sample is None:
                continue
            try:
                assert_agrees(run([sample])[0], sample.expected())
            except Unsupported as error:
                return str(error)
            except AssertionError as error:
                return NOTED.get(entry.name, f"`{said.call[:80]}` differs: {_line(error)}")
            except Exception as error:
                return f"`{said.call}` fails: {_line(error)}"
    return AGREES


def _line(error: Exception) -> str:
    return " ".join(str(error).partition(" - erroring out")[0].split())[:160]


def page(found: Sequence[Outcome]) -> str:
    """The page as text."""
    functions = sorted({each.function for each in found})
    whole = [name for name in functions if all(each.outcome == AGREES for each in found if each.function == name)]
    lines = [
        "# Operators of `engine: xla`",
        "",
        "<!-- Written by `python -m tools.xla_operators`; edit `tools/xla_operators.py` instead. -->",
        "",
        f"`engine: xla` translates {len(RULES)} operators of PyTorch. Each function of PyTorch's operator database",
        "that a config can call was traced with its gradients and compared with PyTorch on a sample of the database.",
        "A result agrees if its shape and dtype are the same and its values differ by no more than rounding explains.",
        "",
        f"{len(whole)} of {len(functions)} functions agree with every dtype that they take. Written with PyTorch"
        f" {torch.__version__} and JAX {jax.__version__}.",
        "",
        "| dtype | agree | do not |",
        "| --- | ---: | ---: |",
    ]
    for dtype in DTYPES:
        names = {each.function for each in found if each.dtype == dtype}
        bad = {each.function for each in found if each.dtype == dtype and each.outcome != AGREES}
        lines.append(f"| {_name(dtype)} | {len(names - bad)} | {len(bad)} |")
    lines += ["", "## What does not", "", "| function | dtypes | why |", "| --- | --- | --- |"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in found:
        if each.outcome != AGREES:
            reasons.setdefault((each.function, each.outcome), []).append(_name(each.dtype))
    lines += [
        f"| `{function}` | {', '.join(dict.fromkeys(dtypes))} | {why.replace('|', '/')} |"
        for (function, why), dtypes in sorted(reasons.items())
    ]
    lines += [
        "",
        "## Random numbers",
        "",
        "These operators draw random numbers, so they have no rule. The engine draws with PyTorch:",
        "",
        ", ".join(f"`{name.removeprefix('aten.')}`" for name in RANDOM) + ".",
        "",
    ]
    return "\n".join(lines)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=())
    given = parser.parse_args()
    found = []
    for each in outcomes(given.samples, given.only):
        found.append(each)
        if each.outcome != AGREES:
            print(f"{each.function} {_name(each.dtype)}: {each.outcome}", flush=True)
    print(f"{sum(each.outcome == AGREES for each in found)} of {len(found)} agree")
    if not given.only:
        PAGE.write_text(page(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
