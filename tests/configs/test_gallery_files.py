"""The data files of the examples hold what the comments beside them say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

from tests.configs.readings import readings
from tests.configs.strokes import arrays

FOLDER = Path(__file__).parents[2] / "configs"


def test_the_letters_are_those_of_the_text_in_the_comment() -> None:
    comment = (FOLDER / "transformer.yaml").read_text(encoding="utf-8")
    (alphabet,) = re.findall(r'alphabet "(.*)"', comment)
    text = " ".join(re.findall(r"^#   (.*)$", comment, re.MULTILINE))
    with (FOLDER / "data" / "letters.csv").open(encoding="utf-8", newline="") as file:
        letters = [alphabet[int(row["letter"])] for row in csv.DictReader(file)]
    assert "".join(letters) == text


def test_the_strokes_are_those_that_the_generator_makes() -> None:
    with np.load(FOLDER / "data" / "strokes.npz") as file:
        found = dict(file)
    expected = arrays()
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_readings_are_those_that_the_generator_draws() -> None:
    for name, text in readings().items():
        assert (FOLDER / "data" / name).read_text(encoding="utf-8") == text
