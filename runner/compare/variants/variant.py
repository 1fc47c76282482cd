"""Parses `--with KEY=VALUE` into a variant: a config with overrides or a shipped rule, and a number of threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.compare.variants.rule_override import rule_override
from runner.config import Config, declared_dtypes, overridden
from runner.errors import Problem, UsageError

RULE = "rule:"
"""The prefix of a shipped rule's name, in the place of an optimizer."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A changed config, and the number of threads that it runs on."""

    config: Config
    threads: int | None


def variant_of(config: Config, pairs: Sequence[str]) -> Variant:
    """The variant that all pairs together describe.

    A new `dtype` also replaces every declaration of the old one, for example for the columns of a file.

    Raises:
        UsageError: a pair has no value, or names something that does not exist.
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
"""Settings of a variant that are not part of the config."""
