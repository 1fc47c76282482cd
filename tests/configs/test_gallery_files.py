"""The data files of the examples hold what the comments beside them say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tests.configs import tanks
from tests.configs.apples import apples
from tests.configs.machines import machines
from tests.configs.readings import readings
from tests.configs.strokes import arrays
from tools import pretrained

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


def test_the_tables_are_those_that_the_generators_draw() -> None:
    assert (FOLDER / "data" / "apples.csv").read_text(encoding="utf-8") == apples()
    assert (FOLDER / "data" / "machines.csv").read_text(encoding="utf-8") == machines()


def test_the_tanks_are_those_that_the_generator_makes() -> None:
    with np.load(FOLDER / "data" / "tanks.npz") as file:
        found = dict(file)
    expected = tanks.arrays()
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_pretrained_network_reads_digits_that_are_not_mirrored() -> None:
    weights = load_file(FOLDER / "data" / "pretrained-digits.safetensors")
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "w1": (64, 32),
        "b1": (32,),
        "w2": (32, 10),
        "b2": (10,),
    }
    with np.load(FOLDER / "data" / "digits-test.npz") as file:
        images, labels = file["images"].reshape(-1, 64) / 16, file["labels"]
    hidden = np.maximum(images @ weights["w1"].numpy() + weights["b1"].numpy(), 0)
    scores = hidden @ weights["w2"].numpy() + weights["b2"].numpy()
    assert (scores.argmax(1) == labels).mean() > 0.97


def test_the_pretrained_weights_are_those_that_the_tool_trains(tmp_path: Path) -> None:
    pretrained.write(tmp_path)
    trained, stored = (load_file(folder / pretrained.NAME) for folder in (tmp_path, FOLDER / "data"))
    assert trained.keys() == stored.keys()
    for name, weight in stored.items():
        # 156 steps of Adam spread differences of rounding between processors
        torch.testing.assert_close(trained[name], weight, rtol=0, atol=0.02)
