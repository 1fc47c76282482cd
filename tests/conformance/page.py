"""Writes `docs/conformance.md`: what comes of foreign cases, and the digits that L-BFGS reaches.

STEPRUN_CASES=… python -m tests.conformance.page
"""

from __future__ import annotations

import itertools
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import runner

from .attempts import Attempt, attempts_in
from .cases import DTYPES, FOLDER, Case, cases_folder, load_cases
from .expressions import UnsayableError
from .fitting import digits_reached, fitted
from .outcomes import missed_by
from .promises import PROMISES

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

WRITTEN = f"""\
# Conformance

<!-- Written by `{FOLDER}=FOLDER python -m tests.conformance.page`; edit `tests/conformance/page.py` instead. -->

Configs that reproduce numbers published by other people. The cases are JSON records with their arrays, in a folder
outside this repository. Set `{FOLDER}` to that folder: `pytest tests/conformance` then runs each case as a test, and
this command writes this page:

```sh
{FOLDER}=FOLDER python -m tests.conformance.page
```
"""

CASES_SAID = """\
Each case runs in float64 and float32, and passes within the tolerance that it states. A case that trains runs twice:
with the class of `torch.optim` that reproduces it, and with the optimizer's equations as a rule. *Not expressible*: the
language lacks something, for a reason below. *Not stated*: the source states no number in that dtype.
"""
FITS_SAID = """\
The 27 nonlinear least-squares problems of NIST's Statistical Reference Datasets, fitted by L-BFGS in float64 from
start 2. Each config minimises the logarithm of the sum of squares. It moves the parameters along the eigenvectors of
the Hessian at the start, or each in units of its start (*scale*). The digits are those that the worst parameter shares
with its certified value, of which NIST gives 11: at the start, reached here, and required by the tests on any machine.
"""

WAYS: Mapping[str, str] = {"": "–", "torch": "`torch.optim`", "rule": "rule", "nothing": "none"}
"""How each way of stepping is called in the table."""

OUTCOMES = ("pass", "fail", "not expressible", "not stated")
_NIST = "nist_nonlinear"


@dataclass(frozen=True, slots=True)
class Outcome:
    attempt: Attempt
    kind: str  # of OUTCOMES
    reason: str = ""


def problem_name(case: Case) -> str:
    return case.id.rpartition("/")[2]


def promised_digits(page: str) -> dict[str, int]:
    """The digits that the page claims for each problem."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    return {row[0]: int(row[3]) for row in rows if row[0] in PROMISES}


def outcome_of(attempt: Attempt) -> Outcome:
    try:
        missed = missed_by(attempt)
    except UnsayableError as reason:
        return Outcome(attempt, "not expressible", str(reason))
    except runner.SteprunError as error:
        return Outcome(attempt, "fail", error.problems[0].message)
    if missed is None:
        return Outcome(attempt, "not stated")
    return Outcome(attempt, "fail", str(missed[0])) if missed else Outcome(attempt, "pass")


def page(outcomes: Sequence[Outcome], digits: Sequence[tuple[str, float, float]]) -> str:
    """The whole page.

    Args:
        digits: name of each of NIST's problems, the digits that start 2 shares with the certified parameters, and
            those that the fit reaches.
    """
    return "\n".join([WRITTEN, *_environment(), "", *_cases(outcomes), "", *_reasons(outcomes), *_fits(digits)]) + "\n"


def _environment() -> Iterator[str]:
    yield (
        f"Written with PyTorch {torch.__version__} on {platform.system()}, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, one thread."
    )


def _cases(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "## Foreign cases"
    yield ""
    yield CASES_SAID
    heads = [f"{dtype}: {kind}" for dtype in DTYPES for kind in OUTCOMES]
    yield f"| source | optimizer | {' | '.join(heads)} |"
    yield f"| --- | --- |{' ---: |' * len(heads)}"
    ordered = sorted(outcomes, key=_row)
    for (source, way), group in itertools.groupby(ordered, _row):
        yield _line(source, WAYS[way], list(group))
    yield _line("all", "", ordered)


def _row(outcome: Outcome) -> tuple[str, str]:
    return outcome.attempt.case.source, outcome.attempt.optimizer


def _line(source: str, way: str, outcomes: Sequence[Outcome]) -> str:
    counts = Counter((outcome.attempt.dtype, outcome.kind) for outcome in outcomes)
    cells = [str(counts[dtype, kind] or "") for dtype in DTYPES for kind in OUTCOMES]
    return f"| {source} | {way} | {' | '.join(cells)} |"


def _reasons(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for kind, title in (("not expressible", "What is not expressible, and why:"), ("fail", "What fails:")):
        reasons = Counter((outcome.attempt.case.source, outcome.reason) for outcome in outcomes if outcome.kind == kind)
        if reasons:
            yield title
            yield ""
            yield from (f"- {source}: {reason} ({count} runs)" for (source, reason), count in sorted(reasons.items()))
            yield ""


def _fits(digits: Sequence[tuple[str, float, float]]) -> Iterator[str]:
    yield "## NIST's nonlinear problems"
    yield ""
    yield FITS_SAID
    yield "| problem | start | reached | required | directions | remark |"
    yield "| --- | ---: | ---: | ---: | --- | --- |"
    for name, begun, reached in digits:
        promise = PROMISES[name]
        remark = f" {promise.remark} " if promise.remark else " "
        yield f"| {name} | {begun:.1f} | {reached:.1f} | {promise.digits} | {promise.directions} |{remark}|"


def _fitted(case: Case) -> tuple[str, float, float]:
    certified, start = case.record["certified"]["params"], case.record["starts"]["start2"]
    reached = digits_reached(fitted(case, start, PROMISES[problem_name(case)].directions), certified)
    return problem_name(case), digits_reached(start, certified), reached


def main() -> None:
    folder = cases_folder()
    if folder is None:
        sys.exit(f"set {FOLDER} to the folder of cases")
    torch.set_num_threads(1)
    digits = sorted(_fitted(case) for case in load_cases(folder) if case.source == _NIST)
    outcomes = [outcome_of(attempt) for attempt in attempts_in(folder)]
    PAGE.write_text(page(outcomes, digits), encoding="utf-8")
    print(os.path.relpath(PAGE))


if __name__ == "__main__":
    main()
