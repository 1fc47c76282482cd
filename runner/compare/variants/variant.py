"""What `--with KEY=VALUE` asks for: a config with overrides, a shipped rule, and what it runs under."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.compare.variants.rule_override import rule_override
from runner.config import Config, declared_dtypes, overridden
from runner.errors import Problem, UsageError

RULE = "rule:"
"""What stands before the name of a shipped rule, where an optimizer is expected."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A config as it is changed, and the threads that it runs on."""

    config: Config
    threads: int | None


def variant_of(config: Config, pairs: Sequence[str]) -> Variant:
    """The one variant that all the pairs together ask for.

    With another `dtype`, what the config declares in its own one, as the columns of a file may be, changes along.

    Raises:
        UsageError: a pair has no value, or asks for what there is not.
        ConfigError: the changed config is not valid.
    """
    environment: dict[str, int] = {}
    overrides: list[str] = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not pair.startswith("~") and not (equals and value.strip()):
            raise UsageError(Problem(f"`--with {pair}` has no value", f"write `--with {key or 'dtype'}=…`"))
        if key in ENVIRONMENT:
            if key in config.constants:
                message = f"`--with {key}=…` sets the {key} of the process, and the config has a constant `{key}`"
                raise UsageError(Problem(message, f"write `--with constants.{key}=…` for the constant, or rename it"))
            environment[key] = ENVIRONMENT[key](value)
        elif value.startswith(RULE):
            overrides.append(rule_override(key, value.removeprefix(RULE), config))
        else:
            overrides.append(pair)
            if key == "dtype":
                overrides += (f"{path}={value}" for path, dtype in declared_dtypes(config) if dtype == config.dtype)
    return Variant(overridden(config, overrides), environment.get("threads"))


def _threads(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not 0 < int(value) <= 1024:
        raise UsageError(Problem(f"`--with threads={value}`: threads are a number from 1 to 1024"))
    return int(value)


ENVIRONMENT: Mapping[str, Callable[[str], int]] = {"threads": _threads}
"""What a variant may run under, which no config says."""
