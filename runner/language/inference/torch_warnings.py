"""torch's own warnings, which name no place in a config: reports them elsewhere, and hides those already reported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_TRIGGER = re.compile(r"\s*\(Triggered internally at .*", re.DOTALL)
_ONCE = re.compile(r"\s*This message will only appear once per program\.?")


@contextmanager
def torch_warnings_reported(report: Callable[[str], None]) -> Iterator[None]:
    """Context manager that passes the text of each warning of torch to `report` instead of writing it.

    torch gives some warnings once in a process; in the block it gives them each time, so that plans do not depend on
    earlier plans.
    """

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is UserWarning:
            report(warning_text(message))
        else:
            otherwise(message, category, *where, **more)

    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings():
        otherwise = warnings.showwarning
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        torch.set_warn_always(True)
        try:
            yield
        finally:
            torch.set_warn_always(always)


def warning_text(message: Warning | str) -> str:
    """The first line of a warning, without the place in torch's source, the full stop, and that it comes once."""
    return _ONCE.sub("", _TRIGGER.sub("", str(message))).strip().split("\n")[0].rstrip(".")


_IN_OTHER_WORDS = (
    (
        re.compile(r"\w+\(\): degrees of freedom is <= 0"),
        "too few values: the result is NaN or infinite",
        "give it more values, or write `correction=0`",
    ),
)
"""Warnings of torch by their start, with a message and a hint that name what a config can change."""


def in_other_words(text: str) -> tuple[str, str]:
    """The message and the hint for a warning of torch; its own text if no better one is known."""
    for start, message, hint in _IN_OTHER_WORDS:
        if start.match(text):
            return message, hint
    return text, "change its operands, or use another operation"


def hide_from_now_on(text: str) -> None:
    """Hide torch's warnings that begin with this text, which has been reported."""
    warnings.filterwarnings("ignore", message=re.escape(text), category=UserWarning)
