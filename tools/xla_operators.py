"""Compares every function of PyTorch's operator database in XLA with torch, and writes `docs/xla-operators.md`.

    python -m tools.xla_operators [--samples 3] [--only NAME ...]

Takes about 15 minutes of one core. With `--only` it prints the faults of some functions, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

from runner.language.xla.checking import DEPENDENT
from runner.language.xla.operators import Unsupported
from runner.language.xla.operators.table import RANDOM, RULES
from runner.language.xla.tracing import DependentDraw, is_drawn, is_random
from tests.engine.xla.operators.traced import TOLERANCES, Traced, as_tensor, assert_agrees, every_operator, run, traced
from tests.language.samples import UNREACHABLE, Said, said_samples

PAGE = Path(__file__).resolve().parents[1] / "docs" / "xla-operators.md"
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.complex128)

TIES = "equal elements: PyTorch promises no order among them"
INEXACT = "PyTorch's approximation differs from SciPy's by more than rounding"
NAN = "PyTorch's result is NaN; XLA's is finite, as in float64"
TURN = "imaginary parts may differ by multiples of 2π, which `exp` does not see"
SIXTH = "the 1/6 of PyTorch's gradient has nine digits"
NOTED = {
    **dict.fromkeys(("argsort", "kthvalue", "median", "mode", "msort", "nanmedian", "sort", "topk"), TIES),
    "logcumsumexp": TURN,
    "matrix_exp": NAN,
    "nn.functional.hardsigmoid": SIXTH,
    "nn.functional.ctc_loss": "logarithms of hundreds leave fewer digits in float32",
    **{f"special.{name}": INEXACT for name in ("airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1")},
}
"""Functions whose values may differ, and why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one function with one dtype."""

    function: str
    dtype: torch.dtype
    compared: int  # samples
    faults: tuple[str, ...]  # what keeps samples from agreeing, each reason once


def outcomes(samples: int, only: Sequence[str] = ()) -> Iterator[Outcome]:
    """Compares each function of the database that a config can call, with each dtype that it takes."""
    for entry in op_db:
        if entry.name in UNREACHABLE or (only and entry.name not in only):
            continue
        forward, backward = entry.supported_dtypes("cpu"), entry.supported_backward_dtypes("cpu")
        for dtype in DTYPES:
            if dtype in forward:
                gradients = entry.supports_autograd and dtype in backward
                with warnings.catch_warnings(), torch.random.fork_rng():
                    warnings.simplefilter("ignore")
                    found = [_fault(entry, said, gradients) for said in said_samples(entry, dtype, gradients, samples)]
                faults = dict.fromkeys(each for each in found if each is not None)
                yield Outcome(entry.name, dtype, len(found), tuple(faults))


def _fault(entry: Any, said: Said, gradients: bool) -> str | None:
    """Returns why XLA does not give torch's results for a sample; None if it does."""
    try:
        sample = traced(said, gradients)
    except DependentDraw:
        return DEPENDENT
    except Exception as error:  # torch raises errors of any class
        return f"torch does not trace it: {_line(error)}"
    if sample is None:
        return None
    found: Sequence[Any] = ()
    try:
        found = run([sample])[0]
        assert_agrees(found, sample.expected())
    except Unsupported as error:
        return str(error)
    except AssertionError as error:
        if _is_rounding(sample, [as_tensor(each) for each in found if each is not None]):
            return None
        return NOTED.get(entry.name, f"`{said.call[:80]}` differs: {_line(error)}")
    except Exception as error:
        return f"`{said.call}` fails: {_line(error)}"
    return None


def _is_rounding(sample: Traced, found: Sequence[Tensor]) -> bool:
    """Returns whether results are as near to those of float64 as torch's: at most twice its largest error away.

    Where terms cancel, both libraries are far from the exact value, and from one another.
    """
    expected = [each for each in sample.expected() if each is not None]
    if any(
        mine.dtype != theirs.dtype or mine.shape != theirs.shape for mine, theirs in zip(found, expected, strict=True)
    ):
        return False
    wide = [each.double() if each.is_floating_point() else each for each in sample.tensors]
    try:
        exact = [each for each in replace(sample, tensors=wide).expected() if each is not None]
    except RuntimeError:  # the function takes no float64
        return False
    for mine, theirs, right in zip(found, expected, exact, strict=True):
        if mine.is_floating_point() and right.dtype == torch.float64:
            mine, theirs = mine.double(), theirs.double()
            largest = (theirs - right).abs().nan_to_num(posinf=0).max() if right.numel() else 0.0
            if not torch.allclose(mine, right, rtol=0, atol=2 * float(largest), equal_nan=True):
                return False
        elif not torch.equal(mine, theirs):
            return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).partition(" - erroring out")[0].split())[:160]


def page(found: Sequence[Outcome], samples: int) -> str:
    """The page as text."""
    functions = sorted({each.function for each in found})
    faulty = {each.function for each in found if each.faults}
    core = _core()
    drawn, refused = _drawn_and_refused()
    lines = [
        "# Operators of `engine: xla`",
        "",
        "<!-- Written by `python -m tools.xla_operators`; edit `tools/xla_operators.py` instead. -->",
        "",
        f"`engine: xla` translates {len(RULES)} operators of PyTorch. Overloads count one by one:",
        f"{len(core & RULES.keys())} are of its {len(core)} core operators, and {len(RULES.keys() - core)} others"
        " remain in traces too, such as special functions, gradients, factorisations, and copies of views.",
        "The other core operators are decomposed, draw random numbers, have a shape that depends on data,"
        " or never remain in a trace.",
        "",
        "Each function of PyTorch's operator database that a config can call was traced with its gradients,",
        f"and compared with PyTorch on up to {samples} samples of the database for each dtype:"
        f" {sum(each.compared for each in found):,} in all.",
        "A result agrees if its shape and dtype are the same and its values differ by no more than rounding explains:",
        "by "
        + ", ".join(f"{TOLERANCES[each]:g} ({_name(each)})" for each in DTYPES if each in TOLERANCES)
        + " of its largest value, or of 1 if that is smaller;",
        "where terms cancel, by no more from the values of float64 than twice the largest error of PyTorch.",
        "The tests compare some functions of each topic; all of them take about 15 minutes of one core.",
        "",
        f"{len(functions) - len(faulty)} of {len(functions)} functions agree with every dtype that they take. Written"
        f" with PyTorch {torch.__version__} and JAX {jax.__version__}.",
        "",
        "| dtype | agree | do not |",
        "| --- | ---: | ---: |",
    ]
    for dtype in DTYPES:
        names = {each.function for each in found if each.dtype == dtype}
        bad = {each.function for each in found if each.dtype == dtype and each.faults}
        lines.append(f"| {_name(dtype)} | {len(names - bad)} | {len(bad)} |")
    lines += ["", "## What does not", "", "| function | dtypes | why |", "| --- | --- | --- |"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in found:
        for fault in each.faults:
            reasons.setdefault((each.function, fault), []).append(_name(each.dtype))
    lines += [
        f"| `{function}` | {', '.join(dict.fromkeys(dtypes))} | {why.replace('|', '/')} |"
        for (function, why), dtypes in sorted(reasons.items())
    ]
    lines += [
        "",
        "## Random numbers",
        "",
        "PyTorch draws the numbers of these operators before each region, in the streams of the eager engine:",
        "",
        ", ".join(f"`{name.removeprefix('aten.')}`" for name in drawn) + ".",
        "",
        "These read the values of tensors as they draw, so a step that has one is refused:",
        "",
        ", ".join(f"`{name.removeprefix('aten.')}`" for name in refused) + ".",
        "",
    ]
    return "\n".join(lines)


def _core() -> set[str]:
    """The names of PyTorch's core operators."""
    return {str(each) for each in every_operator() if torch.Tag.core in each.tags}


def _drawn_and_refused() -> tuple[list[str], list[str]]:
    """The random operators that the engine draws, and those that it refuses."""
    drawn = {str(each) for each in every_operator() if is_random(each) and is_drawn(each)}
    return [name for name in RANDOM if name in drawn], [name for name in RANDOM if name not in drawn]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=())
    given = parser.parse_args()
    found = []
    for each in outcomes(given.samples, given.only):
        found.append(each)
        for fault in each.faults:
            print(f"{each.function} {_name(each.dtype)}: {fault}", flush=True)
    print(f"{sum(not each.faults for each in found)} of {len(found)} agree")
    if not given.only:
        PAGE.write_text(page(found, given.samples), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
