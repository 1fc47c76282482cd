"""Generates `configs/data/digits.npz` and `digits-test.npz`: 8×8 images of digits that look handwritten.

Each digit is one or two polylines in a square. For each image, the polylines of its label are rotated, stretched and
shifted at random, every corner is moved a little, and a pen of random width draws them. A pixel is the amount of ink
in it, from 0 to 16. The random numbers come from numpy's PCG64 with a fixed seed, so the files are reproducible:

    python tools/digits.py
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy
from numpy.typing import NDArray

SEED = 20_261_123
TRAIN, TEST = 1536, 500

STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [[(0.5, 0.1), (0.25, 0.3), (0.25, 0.7), (0.5, 0.9), (0.75, 0.7), (0.75, 0.3), (0.5, 0.1)]],
    1: [[(0.3, 0.3), (0.55, 0.1), (0.55, 0.9)]],
    2: [[(0.25, 0.3), (0.5, 0.1), (0.75, 0.3), (0.25, 0.9), (0.8, 0.9)]],
    3: [[(0.25, 0.1), (0.75, 0.1), (0.45, 0.45), (0.75, 0.65), (0.5, 0.9), (0.25, 0.8)]],
    4: [[(0.65, 0.9), (0.65, 0.1), (0.2, 0.65), (0.85, 0.65)]],
    5: [[(0.75, 0.1), (0.3, 0.1), (0.3, 0.45), (0.65, 0.45), (0.75, 0.7), (0.5, 0.9), (0.25, 0.85)]],
    6: [[(0.65, 0.1), (0.3, 0.5), (0.3, 0.8), (0.5, 0.9), (0.7, 0.75), (0.6, 0.55), (0.3, 0.65)]],
    7: [[(0.2, 0.1), (0.8, 0.1), (0.4, 0.9)]],
    8: [
        [(0.5, 0.1), (0.3, 0.28), (0.5, 0.47), (0.7, 0.28), (0.5, 0.1)],
        [(0.5, 0.47), (0.25, 0.7), (0.5, 0.9), (0.75, 0.7), (0.5, 0.47)],
    ],
    9: [[(0.7, 0.35), (0.5, 0.5), (0.3, 0.3), (0.5, 0.1), (0.7, 0.3), (0.65, 0.9)]],
}
"""The corners of each digit, as (x, y) from the upper left."""

_FINE = 4  # samples per pixel, along each side


def images(labels: NDArray[numpy.int64], random: numpy.random.Generator) -> NDArray[numpy.uint8]:
    """Draws one 8×8 image for each label: uint8 `(labels, 8, 8)`, from 0 to 16."""
    return numpy.stack([_image(STROKES[int(label)], random) for label in labels])


def _image(strokes: list[list[tuple[float, float]]], random: numpy.random.Generator) -> NDArray[numpy.uint8]:
    angle = random.normal(0, 0.13)
    turn = numpy.array([[numpy.cos(angle), -numpy.sin(angle)], [numpy.sin(angle), numpy.cos(angle)]])
    stretch = numpy.exp(random.normal(0, 0.1, size=2))
    shift = random.normal(0, 0.035, size=2)
    width = random.uniform(0.06, 0.1)
    steps = (numpy.arange(8 * _FINE) + 0.5) / (8 * _FINE)
    points = numpy.stack(numpy.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    distance = numpy.full(len(points), numpy.inf)
    for stroke in strokes:
        corners = numpy.array(stroke) + random.normal(0, 0.03, size=(len(stroke), 2))
        corners = ((corners - 0.5) * stretch) @ turn.T + 0.5 + shift
        for start, end in itertools.pairwise(corners):
            distance = numpy.minimum(distance, _distance(points, start, end))
    ink = (distance < width).reshape(8, _FINE, 8, _FINE).sum(axis=(1, 3))
    return ink.astype(numpy.uint8)


def _distance(
    points: NDArray[numpy.float64], start: NDArray[numpy.float64], end: NDArray[numpy.float64]
) -> NDArray[numpy.float64]:
    """Returns the distance from each point to the segment between `start` and `end`."""
    along = end - start
    share = numpy.clip((points - start) @ along / (along @ along), 0, 1)
    found: NDArray[numpy.float64] = numpy.linalg.norm(points - start - share[:, None] * along, axis=1)
    return found


def write(folder: Path) -> None:
    """Writes both files into `folder`."""
    random = numpy.random.Generator(numpy.random.PCG64(SEED))
    for name, count in (("digits", TRAIN), ("digits-test", TEST)):
        labels = random.permutation(numpy.arange(count) % 10)
        drawn = images(labels, random)
        numpy.savez_compressed(folder / f"{name}.npz", images=drawn, labels=labels.astype(numpy.uint8))


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[1] / "configs" / "data")
