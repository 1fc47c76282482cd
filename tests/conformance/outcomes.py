"""What comes of an attempt at a foreign case."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

from torch import Tensor

import runner

from .attempts import NOTHING_STEPS, Attempt
from .comparison import Difference, differences
from .configs import job_of
from .expressions import UnsayableError
from .running import run_job

CLOSED = re.compile("there is no operation|is not available|cannot be called")
"""What the language says of a word it does not have; any other refusal of a case is a fault."""


def found_by(attempt: Attempt) -> dict[str, Tensor]:
    """The results of an attempt.

    Raises:
        UnsayableError: the language has no words for the case; the text is the reason.
    """
    if attempt.optimizer == "nothing":
        raise UnsayableError(NOTHING_STEPS)
    try:
        return _run(attempt)
    except runner.ConfigError as refusal:
        if not all(CLOSED.search(problem.message) for problem in refusal.problems):
            raise
        raise UnsayableError("; ".join(problem.message for problem in refusal.problems)) from refusal


def missed_by(attempt: Attempt) -> list[Difference] | None:
    """What an attempt finds other than its source states; None where that states nothing in the dtype.

    Raises:
        UnsayableError: the language has no words for the case.
    """
    tolerance = attempt.tolerances()
    if tolerance is None:
        return None
    return differences(found_by(attempt), attempt.expected(), tolerance)


@functools.cache
def _run(attempt: Attempt) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        return run_job(job_of(attempt.case, attempt.dtype, attempt.optimizer), Path(folder))
