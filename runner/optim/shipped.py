"""The rules that come with steprun: texts to paste into a config, or to name under `extends`. Knows no torch."""

from __future__ import annotations

from importlib import resources

SUFFIX = ".yaml"


def shipped_rules() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in _folder().iterdir() if file.name.endswith(SUFFIX)))


def rule_text(name: str) -> str:
    """The constants and the optimizer of a shipped rule, as YAML.

    Raises:
        KeyError: there is no such rule.
    """
    if name not in shipped_rules():
        raise KeyError(name)
    return (_folder() / f"{name}{SUFFIX}").read_text(encoding="utf-8")
