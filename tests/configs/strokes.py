"""The images of configs/data/strokes.npz: strokes in four directions on grey noise.

`python -m tests.configs.strokes FILE` writes them.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

SIZE = 8


def strokes(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images `(count, 1, 8, 8)` and their kinds in turn: across, down, falling, rising.

    Noise from 0 to 89; a line of eight pixels at a random place, each 60 to 159 brighter. A diagonal that leaves the
    image comes in at the other side. `RandomState` gives the same numbers in every version of numpy.
    """
    random = np.random.RandomState(seed)
    labels = np.arange(count, dtype=np.int64) % 4
    images = random.randint(0, 90, (count, SIZE, SIZE))
    along = np.arange(SIZE)
    for image, label in zip(images, labels, strict=True):
        place = random.randint(1, SIZE - 1)
        across = np.full(SIZE, place)
        falling, rising = (along + place - 4) % SIZE, (place + 3 - along) % SIZE
        line = [(across, along), (along, across), (along, falling), (along, rising)][label]
        image[line] += random.randint(60, 160, SIZE)
    return images[:, None].astype(np.uint8), labels


def arrays() -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
    """What the file holds."""
    images, labels = strokes(160, seed=1)
    test_images, test_labels = strokes(80, seed=2)
    return {"images": images, "labels": labels, "test_images": test_images, "test_labels": test_labels}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **arrays())  # type: ignore[arg-type]
