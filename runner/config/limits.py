"""How much of the machine a config may take while it is read."""

from __future__ import annotations

from dataclasses import dataclass

from runner.errors import UsageError

DEEPEST_NESTING = 200
"""What `nesting` may be raised to: every later pass over a config recurses once a level."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on reading a config; each error names the flag that raises its limit."""

    file_bytes: int = 4 * 1024 * 1024
    """Size of one config file in bytes; `--max-file-bytes`."""
    nesting: int = 64
    """Lists and mappings inside one another; `--max-nesting`."""
    alias_nodes: int = 10_000
    """Nodes that aliases stand for, counted each time; `--max-alias-nodes`."""
    files: int = 100
    """Files that `extends` may bring in; `--max-files`."""
    problems: int = 100
    """Problems that one error shows."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise UsageError(f"the limit `{name}` is {getattr(self, name)}: a limit is at least 1")
        if self.nesting > DEEPEST_NESTING:
            raise UsageError(f"the limit `nesting` is {self.nesting}: it can be raised to {DEEPEST_NESTING}")
