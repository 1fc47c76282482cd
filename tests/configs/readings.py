"""The noisy readings of configs/data/curve.csv and curve-held-out.csv: one period of a sine.

`python -m tests.configs.readings FOLDER` writes both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SAMPLES = 24
FILES = ("curve.csv", "curve-held-out.csv")


def readings() -> dict[str, str]:
    """The text of each file: places drawn evenly from -1 to 1, and sin(pi x) with normal noise of 0.3.

    `RandomState` gives the same numbers in every version of numpy.
    """
    random = np.random.RandomState(7)
    texts = {}
    for name in FILES:
        x = np.round(random.uniform(-1, 1, SAMPLES), 3)
        y = np.round(np.sin(np.pi * x) + 0.3 * random.randn(SAMPLES), 3)
        texts[name] = "x,y\n" + "".join(f"{place:.3f},{value:.3f}\n" for place, value in zip(x, y, strict=True))
    return texts


if __name__ == "__main__":
    for name, text in readings().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
