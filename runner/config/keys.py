"""The keys and choices of a config: those it takes, and those reserved for later."""

from __future__ import annotations

from collections.abc import Mapping

TOP_LEVEL_KEYS = (
    "name", "description", "extends", "seed", "dtype", "device", "engine", "parameters", "constants", "data",
    "functions", "expression", "metrics", "optimizer", "optimizers", "steps", "log", "on_nonfinite",
    "health", "snapshot",
)  # fmt: skip
"""What a person may write at the top, in the order of the language."""

ENGINES = ("eager", "compile", "cudagraph")
TENSOR_LOGS = ("full", "stats", "digest", "none")
ON_NONFINITE = ("stop", "warn", "ignore")

RESERVED: Mapping[str, str] = {
    "sweep": "run the config once for each override",
    "mesh": "remove it",
    "placement": "remove it",
    "report": "remove it",
}
"""Keys that later versions give a meaning, with what to do in this one; a config that holds one is refused."""


def not_built(what: str) -> str:
    return f"{what} is not built yet"
