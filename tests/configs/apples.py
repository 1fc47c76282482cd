"""The invented apples of configs/data/apples.csv: four measurements and an orchard, some unknown, and the variety.

`python -m tests.configs.apples FILE` writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SAMPLES = 360
VARIETIES = ("Amber", "Crimson", "Verdant")
ORCHARDS = ("coast", "hill", "valley")
GROWN = ((0.6, 0.2, 0.2), (0.2, 0.5, 0.3), (0.2, 0.3, 0.5))
"""How often each variety grows in each orchard."""
MEANS = ((150.0, 68.0, 7.4, 12.4), (172.0, 73.0, 6.8, 13.6), (164.0, 75.0, 8.0, 11.6))
"""Of each variety: mass in g, diameter in mm, firmness in kg/cm², sugar in %."""
SPREADS = (16.0, 3.0, 0.7, 0.9)


def apples() -> str:
    """The text of the file: a row for each apple, the varieties in random order.

    Mass and diameter vary together. Every tenth firmness and every twelfth sugar or so was not measured.
    `RandomState` gives the same numbers in every version of numpy.
    """
    random = np.random.RandomState(11)
    lines = ["mass,diameter,firmness,sugar,orchard,variety"]
    for variety in random.permutation(SAMPLES) % 3:
        orchard = ORCHARDS[random.choice(3, p=GROWN[variety])]
        size, *noise = random.randn(5)
        noise = [size, 0.6 * size + 0.8 * noise[0], *noise[1:3]]
        mass, diameter, firmness, sugar = (
            mean + spread * value for mean, spread, value in zip(MEANS[variety], SPREADS, noise, strict=True)
        )
        measured = [f"{mass:.0f}", f"{diameter:.1f}"]
        measured.append("NA" if random.uniform() < 0.1 else f"{firmness:.1f}")
        measured.append("NA" if random.uniform() < 0.08 else f"{sugar:.1f}")
        lines.append(",".join([*measured, orchard, VARIETIES[variety]]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(apples(), encoding="utf-8")
