"""The top-level keys and choices of a config, and the keys reserved for later versions."""

from __future__ import annotations

from collections.abc import Mapping

TOP_LEVEL_KEYS = (
    "name", "description", "extends", "seed", "dtype", "device", "engine", "autocast", "parameters", "constants",
    "from_run", "data", "functions", "expression", "objectives", "metrics", "optimizer", "optimizers", "steps", "log",
    "on_nonfinite", "health", "snapshot", "sweep",
)  # fmt: skip
"""The valid top-level keys, in the order of the documentation."""

AUTO = "auto"
"""The engine that planning replaces by one of the others."""

ENGINES = ("eager", "compile", "cudagraph", "xla", AUTO)
TENSOR_LOGS = ("full", "stats", "digest", "none")
ON_NONFINITE = ("stop", "warn", "ignore")
AUTOCAST_DTYPES = ("bfloat16", "float16")
MODES = ("min", "max")
THRESHOLD_MODES = ("rel", "abs")

RESERVED: Mapping[str, str] = {
    "mesh": "remove it",
    "placement": "remove it",
    "report": "remove it",
}
"""Keys reserved for later versions, each with the hint of its error: a config with one is not valid."""


def not_built(what: str) -> str:
    return f"{what} is not built yet"
