"""The axes of a sweep on the command line: `learning_rate=0.1,0.01 seed=0..4 'k=range(5)'`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import Problem, UsageError

if TYPE_CHECKING:
    from runner.config import Config

_SPAN = re.compile(r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})")
_DOTS = re.compile(r"(-?(?:[0-9]*\.)?[0-9]+)\.{2,}(-?(?:[0-9]*\.)?[0-9]+)")
"""What looks like a span, and is none: `0.1..0.5`, `0...4`."""
_CALL = re.compile(r"(?:range|linspace|logspace)\(.*\)")
_WHOLE = ("expression", "description", "metrics", "functions", "objectives")
"""Keys whose values are text in which a comma separates nothing."""
_MOST_SPAN = 1_000_000


def split_axes(overrides: Sequence[str]) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    """Split the arguments of a command line into overrides of one value, and axes of several.

    Raises:
        UsageError: the values of an axis cannot be read, or two arguments set one axis.
    """
    single: list[str] = []
    axes: dict[str, list[Any]] = {}
    for text in overrides:
        path, equals, written = text.partition("=")
        values = _values(path, written.strip()) if equals and not text.startswith("~") else None
        if values is None:
            single.append(text)
        elif path in axes:
            raise UsageError(Problem(f"two arguments set the axis `{path}`", "write its values in one argument"))
        else:
            axes[path] = values
    return tuple(single), axes


def lists_in(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides whose value is a list in brackets."""
    return tuple(text for text in overrides if text.partition("=")[2].strip().startswith("["))


def check_no_lists(config: Config, lists: Sequence[str]) -> None:
    """Check that no list stands in for one value: commas separate the values of an axis.

    Args:
        config: the config without these overrides.
    Raises:
        UsageError: an override writes a list where the config has a scalar constant or a hyperparameter.
    """
    from runner.config.keys import TOP_LEVEL_KEYS
    from runner.config.text.nodes import ScalarNode

    for text in lists:
        path, _, written = text.partition("=")
        bare = "." not in path and path not in TOP_LEVEL_KEYS
        place = ("constants", path) if bare else tuple(path.split("."))
        is_one = place[0] == "constants" or place[0].startswith("optimizer")
        if place == ("seed",) or (is_one and isinstance(config.document.node(place), ScalarNode)):
            values = written.strip().removeprefix("[").removesuffix("]").replace(" ", "")
            raise UsageError(Problem(f"`{path}` takes one value, and `{text}` is a list", f"write `{path}={values}`"))


def _values(path: str, written: str) -> list[Any] | None:
    """The values of an axis; None if the text is one value."""
    span = _SPAN.fullmatch(written)
    if span is not None:
        first, last = int(span[1]), int(span[2])
        if abs(last - first) >= _MOST_SPAN:
            raise UsageError(Problem(f"`{path}={written}` has more than {_MOST_SPAN:,} values", "write fewer"))
        return list(range(first, last + 1)) if first <= last else list(range(first, last - 1, -1))
    dots = _DOTS.fullmatch(written)
    if dots is not None:
        whole = _SPAN.fullmatch(f"{dots[1]}..{dots[2]}")
        hint = f"write `{path}={whole[0]}`" if whole else f"write `'{path}=linspace({dots[1]}, {dots[2]}, 5)'`"
        raise UsageError(Problem(f"`{path}={written}` is not a span of whole numbers", hint))
    if _CALL.fullmatch(written):
        from runner.sweep.points.values import AxisFault, values_of

        try:
            return values_of(written, {})
        except AxisFault as fault:
            raise UsageError(Problem(f"in `{path}={written}`: {fault.message}", fault.hint)) from fault
    if path.partition(".")[0] in _WHOLE:
        return None
    parts = _split(written)
    if len(parts) < 2:
        return None
    if not all(part.strip() for part in parts):
        raise UsageError(Problem(f"`{path}={written}` has an empty value", "remove a comma, or write `null`"))
    return [_value(path, part.strip()) for part in parts]


def _split(text: str) -> list[str]:
    """The parts of a text between its commas, but not those inside brackets or quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _value(path: str, text: str) -> Any:
    from runner.config.limits import Limits
    from runner.config.text.compose import compose
    from runner.config.text.nodes import plain
    from runner.config.text.source import text_source
    from runner.errors import ConfigError

    problems: list[Problem] = []
    source = text_source(text, Path(), f"axis {path}", Limits(), is_override=True)
    value = plain(compose(source, Limits(), problems, value=True, shift=0))
    if problems:
        raise ConfigError(problems)
    return value
