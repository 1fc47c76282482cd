"""Reports torch's own warnings in a run at the operation that it computes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from runner.errors import Problem
from runner.faults import place
from runner.language.graph.codegen import running_place
from runner.language.inference.torch_warnings import in_other_words, warning_text
from runner.language.text.faults import LanguageError
from runner.plan.plan import Plan

R = TypeVar("R")

REPEATED = 100
"""The number of rows at the start of a run in which torch repeats its warnings."""


@contextmanager
def torch_warnings_placed(plan: Plan, report: Callable[[Problem], None]) -> Iterator[None]:
    """Context manager that passes each warning of torch about an operation of a config to `report`, once.

    Planning reports most of them. It does not compute what depends on data or is large.

    Python gives a warning of one line of torch's own code once; here each place of a config has its own.
    """
    seen: list[Problem] = []
    otherwise = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        found = running_place(sys._getframe()) if category is UserWarning else None
        if found is None:
            otherwise(message, category, *where, **more)
            return
        text, hint = in_other_words(warning_text(message))
        problem = place(plan.config.document, ("expression",), LanguageError(text, hint, *found))
        if problem not in seen:
            seen.append(problem)
            report(problem)

    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module=r"torch(\.|$)", append=True)
        warnings.showwarning = show
        try:
            yield
        finally:
            torch.set_warn_always(always)  # `warning_again` may not have come to its end


def warning_again(rows: Iterable[R]) -> Iterator[R]:
    """Yields rows; while the first of them are computed, torch repeats the warnings that it gives once in a process.

    So each place and each run has its own. Later rows do without: each repetition takes as long as an operation. It is
    for the block of `torch_warnings_placed`, which restores the setting of torch if the run ends early.
    """
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    for number, row in enumerate(rows):
        if number == REPEATED:
            torch.set_warn_always(always)
        yield row
    torch.set_warn_always(always)
