"""Small configs with a sweep."""

from __future__ import annotations

from pathlib import Path

HEAD = """\
parameters: {w: {shape: [3], init: {normal: {std: 1}}}}
constants: {rate: 0.1, momentum: 0.5}
expression: loss = (w ** 2).sum()
optimizer: {sgd: {lr: rate, momentum: momentum}}
steps: 5
"""

RATES = "sweep: {grid: {rate: [0.1, 0.03], seed: range(3)}, objective: {minimize: loss, mean_over: [seed]}}\n"


def written(folder: Path, sweep: str = RATES, head: str = HEAD, name: str = "swept.yaml") -> Path:
    """A config with a sweep in a folder."""
    path = folder / name
    path.write_text(head + sweep)
    return path
