"""`steprun show --uncertainty`: the decimal digits that rounding leaves, against closed forms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.cli.commands.digits import digits_page
from tests.cli.commands import steprun, top_modules_after

EPS = {"float32": torch.finfo(torch.float32).eps, "float64": torch.finfo(torch.float64).eps}
LOGISTIC = """\
dtype: float64
parameters: {x: {shape: [64], init: {uniform: {a: 0.1, b: 0.9}}}}
expression: y = 4 * x * (1 - x)
steps:
  - repeat: {times: 30, steps: [forward, {assign: {x: y}}]}
"""


def shown(folder: Path, text: str, *arguments: str) -> dict[str, Any]:
    path = folder / "model.yaml"
    path.write_text(text)
    done = steprun("show", path, "--uncertainty", "--json", *arguments)
    assert done.code == 0, done.err
    described: dict[str, Any] = json.loads(done.out)
    return described


def digits_of(described: dict[str, Any], name: str, row: int = -1) -> float:
    found: float = described["rows"][row]["digits"][name]
    return found


@pytest.mark.parametrize("power", [2, 5, 8, 11, 14])
def test_a_sum_that_cancels_loses_as_many_digits_as_it_is_larger_than_what_is_left(tmp_path: Path, power: int) -> None:
    text = f"""\
dtype: float64
parameters: {{x: {{shape: [64], init: 1.1}}}}
constants: {{large: 1e{power}}}
expression: left = (x + large) - large
steps: [forward]
"""
    most = -math.log10(EPS["float64"])
    assert digits_of(shown(tmp_path, text), "left") == pytest.approx(most - power, abs=0.4)


@pytest.mark.parametrize("n", [2, 4, 6])
def test_a_polynomial_near_a_multiple_root_keeps_the_digits_that_its_condition_leaves(tmp_path: Path, n: int) -> None:
    """Wilkinson: `(x - 1) ** n` as a sum of terms; its condition is the sum of their magnitudes over its value."""
    terms = " + ".join(f"{math.comb(n, k) * (-1) ** (n - k)} * x ** {k}" for k in range(1, n + 1))
    text = f"""\
dtype: float64
parameters: {{x: {{shape: [64], init: 1.01}}}}
expression: |
  expanded = {terms} + {(-1) ** n}
  factored = (x - 1) ** {n}
  both = expanded + factored
steps: [forward]
"""
    described = shown(tmp_path, text)
    condition = (2.01 / 0.01) ** n
    most = -math.log10(EPS["float64"])
    assert digits_of(described, "expanded") == pytest.approx(most - math.log10(condition), abs=1)
    assert digits_of(described, "factored") > most - math.log10(101 * n)  # of x - 1 alone


def test_the_logistic_map_loses_a_bit_in_each_step(tmp_path: Path) -> None:
    """Its Lyapunov exponent is ln 2."""
    described = shown(tmp_path, LOGISTIC)
    lost = digits_of(described, "x", 20) - digits_of(described, "x", 60)  # rows of 20 steps: `forward` and `assign`
    assert lost == pytest.approx(20 * math.log10(2), abs=1)


def test_whole_numbers_stay_exact(tmp_path: Path) -> None:
    text = """\
constants: {n: [1, 20, 300]}
parameters: {x: [1.0, 2.0]}
expression: |
  doubled = n * 2 + n // 7
  larger = x > 1.5
  y = x * 3 + larger + doubled.sum()
steps: [forward]
"""
    described = shown(tmp_path, text)
    assert described["rows"][-1]["digits"]["doubled"] == described["rows"][-1]["digits"]["larger"] == "exact"
    assert digits_of(described, "y") < 7
    most = {each["name"]: each["most"] for each in described["tensors"]}
    assert most["doubled"] is None
    assert most["y"] == 6.92  # -log10 of 2 ** -23


def test_float64_keeps_as_many_digits_more_as_its_eps_is_smaller(tmp_path: Path) -> None:
    text = """\
dtype: float32
parameters: {x: {shape: [200], init: {normal: {}}}}
expression: |
  y = (x * 1.5).exp()
  z = y / (1 + y * y)
steps: [forward]
"""
    narrow = digits_of(shown(tmp_path, text), "z")
    wide = digits_of(shown(tmp_path, text, "dtype=float64"), "z")
    assert wide - narrow == pytest.approx(math.log10(EPS["float32"] / EPS["float64"]), abs=0.3)


def test_a_tensor_has_no_digits_in_a_row_without_it(tmp_path: Path) -> None:
    text = "parameters: {x: [1.0, 2.0]}\nexpression: y = (x * x).sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: [train]\n"
    described = shown(tmp_path, text, "log.every=1")
    assert [row["digits"]["y"] is None for row in described["rows"]] == [True, False]
    assert (described["runs"], described["notes"]) == (8, [])
    assert digits_of(described, "x", 0) == pytest.approx(6.92, abs=0.01)  # nothing was rounded yet


def test_what_a_compiled_engine_cannot_perturb_is_measured_by_the_eager_one(tmp_path: Path) -> None:
    text = "parameters: {x: [1.0, 2.0]}\nexpression: y = (x * x).sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: 2\n"
    assert shown(tmp_path, f"engine: compile\n{text}")["rows"] == shown(tmp_path, text)["rows"]


def test_a_run_whose_rounding_decides_the_steps_says_so(tmp_path: Path) -> None:
    text = LOGISTIC.replace("times: 30", "times: 200").replace("[64]", "[1]")
    text = text.replace("{assign: {x: y}}", "{assign: {x: y}}, {stop: , when: y.sum() < 0.001}")
    described = shown(tmp_path, text)
    assert any("took other steps from row" in note or "ended before row" in note for note in described["notes"])
    assert digits_of(described, "x") == 0


def test_rows_go_down_where_the_tensors_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(LOGISTIC)
    done = steprun("show", path, "--uncertainty=3", environment={"COLUMNS": "80"})
    lines = done.out.splitlines()
    assert lines[:3] == [
        "model: decimal digits that rounding leaves, from 3 perturbed runs",
        "at most 15.6 in float64",
        "  row  step                  y     x     x.grad",
    ]
    assert lines[3].split() == ["0", "start", "15.6"]
    assert lines[-2].split()[:2] == ["60", "repeat[30].2.assign"]
    assert lines[-1] == "40 of 61 rows; --json has all"
    assert len(lines) == 3 + 40 + 1


def test_tensors_go_down_where_the_terminal_is_narrow() -> None:
    names = [f"tensor{number}" for number in range(8)]
    described = {
        "name": "model",
        "runs": 8,
        "notes": ["a perturbed run ended before row 9"],
        "tensors": [{"name": name, "dtype": "float32", "most": 6.92} for name in names],
        "rows": [{"row": row, "path": "train", "digits": dict.fromkeys(names, 6.99 - row / 10)} for row in range(10)],
    }
    text = digits_page(described, 40)
    assert text.splitlines() == [
        "model: decimal digits that rounding leaves, from 8 perturbed runs",
        "at most 6.9 in float32",
        "  tensor   0    3    6    9",
        *(f"  {name}  6.9  6.6  6.3  6.0" for name in names),
        "4 of 10 rows; --json has all",
        "a perturbed run ended before row 9",
    ]
    assert len(digits_page(described, 80).splitlines()[3:-1]) == len(names)  # all rows now
    assert "  row  step" in digits_page(described, 200)


def test_fewer_perturbed_runs_than_three_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(LOGISTIC)
    done = steprun("show", path, "--uncertainty=2")
    assert done.code == 2
    assert "--uncertainty" in done.err
    assert "greater than or equal to 3" in done.err


def test_a_budget_makes_three_runs_at_least(tmp_path: Path) -> None:
    assert shown(tmp_path, LOGISTIC, "--budget", "0")["runs"] == 3


def test_a_config_comes_from_standard_input() -> None:
    done = steprun("show", "-", "--uncertainty=3", stdin=LOGISTIC)
    assert done.code == 0
    assert done.out.startswith("stdin: decimal digits")


@pytest.mark.slow
def test_show_alone_measures_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(LOGISTIC)
    loaded = top_modules_after("show", "model.yaml", cwd=tmp_path)
    assert "runner.compare.uncertainty.measuring" not in loaded
