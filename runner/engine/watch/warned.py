"""Reports torch's own warnings in a run at the operation that it computes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runner.errors import Problem
from runner.faults import place
from runner.language.graph.codegen import running_place
from runner.language.inference.torch_warnings import in_other_words, warning_text
from runner.language.text.faults import LanguageError
from runner.plan.plan import Plan


@contextmanager
def torch_warnings_placed(plan: Plan, report: Callable[[Problem], None]) -> Iterator[None]:
    """Context manager that passes each warning of torch about an operation of a config to `report`, once.

    Planning reports most of them. It does not compute what depends on data or is large.
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

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
