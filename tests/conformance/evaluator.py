"""The evaluator in plain torch that comes with foreign cases: what it misses on this processor, no config can reach.

A source states numbers to the last digits of the processor that computed them; near an exact minimum, and after a
hundred steps, another processor's roundings may lead elsewhere, whoever computes.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

from .attempts import Attempt
from .cases import DTYPES, cases_folder, expected_results
from .comparison import differences

TOOL = Path("tools", "caselib.py")


def missed_by_evaluator(attempt: Attempt) -> frozenset[str]:
    """The results that the cases' own evaluator misses too; none where the folder has no evaluator."""
    folder = cases_folder()
    tolerance = attempt.case.tolerances(attempt.dtype)
    if folder is None or not (folder / TOOL).is_file() or tolerance is None:
        return frozenset()
    case, dtype = attempt.case, DTYPES[attempt.dtype]
    run = _evaluator(folder / TOOL).RUN[case.kind]
    way = (attempt.optimizer,) if attempt.optimizer in ("torch", "rule") and case.kind in ("train", "program") else ()
    found = run(case.record, str(case.folder), dtype, *way)
    expected = {key: value for key, value in expected_results(case).items() if attempt.compares(key)}
    return frozenset(missed.key for missed in differences(found, expected, tolerance))


@functools.cache
def _evaluator(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("foreign_evaluator", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
