"""The records of configs/data/tanks.npz: hours of inflow into leaking tanks and the levels, of different lengths.

`python -m tests.configs.tanks FILE` writes them.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

HOURS = 16
KEPT = 0.75  # of the level, in an hour


def tanks(count: int, seed: int) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """Inflows and levels, float32 `(count, 16)`, and the hours of each record, int64 `(count)`, from 4 to 16.

    A tank is empty at first. In each hour it keeps three quarters of its level, and gets an inflow: with a chance of
    one third, a multiple of 1/8 from 1/8 to 1. After the end of a record both are 0. The levels are exact in float64.
    `RandomState` gives the same numbers in every version of numpy.
    """
    random = np.random.RandomState(seed)
    hours = random.randint(4, HOURS + 1, count)
    during = np.arange(HOURS) < hours[:, None]
    inflow = random.randint(1, 9, (count, HOURS)) / 8 * (random.uniform(size=(count, HOURS)) < 1 / 3) * during
    level = np.zeros((count, HOURS))
    for hour in range(HOURS):
        level[:, hour] = KEPT * (level[:, hour - 1] if hour else 0) + inflow[:, hour]
    return {
        "inflow": inflow.astype(np.float32),
        "level": (level * during).astype(np.float32),
        "hours": hours.astype(np.int64),
    }


def arrays() -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """What the file holds: 192 records to learn from, and 64 to test with."""
    tests = {f"test_{name}": array for name, array in tanks(64, seed=4).items()}
    return tanks(192, seed=3) | tests


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **arrays())  # type: ignore[arg-type]
