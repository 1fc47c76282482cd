"""What the language reserves and this version does not do: refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping

TOP_LEVEL: Mapping[str, str] = {
    "sweep": "run the config once for each override",
    "mesh": "remove it",
    "placement": "remove it",
    "report": "remove it",
}


def not_built(what: str) -> str:
    return f"{what} is not built yet"
