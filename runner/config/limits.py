"""Limits on the size and nesting of a config, enforced while it is read."""

from __future__ import annotations

from dataclasses import dataclass

from runner.errors import UsageError

DEEPEST_NESTING = 200
"""The largest `nesting`: every later pass over a config recurses once per level."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on reading a config; each error names the flag that raises its limit."""

    file_bytes: int = 4 * 1024 * 1024
    """The most bytes of one config file; `--max-file-bytes`."""
    nesting: int = 64
    """The most levels of nested lists and mappings; `--max-nesting`."""
    alias_nodes: int = 10_000
    """The most nodes that aliases expand to, counted at each use; `--max-alias-nodes`."""
    files: int = 100
    """The most files that `extends` may read; `--max-files`."""
    problems: int = 100
    """The most problems that one error lists."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise UsageError(f"the limit `{name}` is {getattr(self, name)}: a limit is at least 1")
        if self.nesting > DEEPEST_NESTING:
            raise UsageError(f"the limit `nesting` is {self.nesting}: it can be raised to {DEEPEST_NESTING}")
