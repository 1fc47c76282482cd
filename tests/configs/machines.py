"""The invented machines of configs/data/machines.csv: four readings of each, and whether it failed within a week.

`python -m tests.configs.machines FILE` writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SAMPLES, FAILED = 1000, 80


def machines() -> str:
    """The text of the file: a row for each machine.

    The 80 machines failed whose risk is highest. It is linear in temperature, vibration and age, with logistic noise;
    the load has no effect. `RandomState` gives the same numbers in every version of numpy.
    """
    random = np.random.RandomState(6)
    temperature = np.round(60 + 8 * random.randn(SAMPLES), 1)
    vibration = np.round(2 + 0.6 * random.randn(SAMPLES), 2)
    load = random.randint(20, 101, SAMPLES)
    age = random.randint(0, 16, SAMPLES)
    risk = 0.15 * (temperature - 60) + 2.5 * (vibration - 2) + 0.2 * (age - 8) + random.logistic(size=SAMPLES)
    failed = np.zeros(SAMPLES, dtype=int)
    failed[np.argsort(risk)[-FAILED:]] = 1
    columns = zip(temperature, vibration, load, age, failed, strict=True)
    lines = [f"{warm:.1f},{shaken:.2f},{busy},{old},{broken}" for warm, shaken, busy, old, broken in columns]
    return "\n".join(["temperature,vibration,load,age,failed", *lines]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(machines(), encoding="utf-8")
