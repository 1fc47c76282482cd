"""`steprun gradcheck`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import LINEAR, Outcome, steprun

WRONG = """\
parameters: {w: [0.25, -0.75], b: 0}
expression: |
  q = w.round().detach() + w - w.detach()
  loss = 4 * q.sum() + relu(b)
"""

TABLE = """\
linear: autograd against finite differences in float64, step 0.5, rtol 0.001, atol 1e-05

objective f = 7000
  gradient  elements         error  relative  worst at  autograd  numeric
  x1.grad   1         holds  0      0         [0]       10        10
  x2.grad   1         holds  0      0         [0]       30        30
"""

WRONG_TABLE = """\
config: autograd against finite differences in float64, step 0.0625, rtol 0.001, atol 1e-05

objective loss = -4
  gradient  elements           error  relative  worst at  autograd  numeric
  w.grad    1 of 2    differs  4      1         [1]       4         0
  b.grad    1         kink     0.5    1         []        0         0.5
  `b` has no derivative at its value: 0 to its left, 1 to its right
"""

WRONG_FAULT = """\
config.yaml:1:14  parameters.w
    1 | parameters: {w: [0.25, -0.75], b: 0}
      |              ^ the gradient of `loss` with respect to `w` differs: autograd gives 4, finite differences 0 at [1]
      = `detach` cuts the derivative (config.yaml:3:7), `detach` cuts the derivative (config.yaml:3:32)
"""


WIDE = {"COLUMNS": "120"}


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    path = tmp_path / "linear.yaml"
    path.write_text(LINEAR)
    return path


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(WRONG)
    return path


def test_gradients_that_hold_are_a_table(linear: Path) -> None:
    assert steprun("gradcheck", linear, "--step", "0.5", environment=WIDE) == Outcome(0, TABLE, "")


def test_a_gradient_that_does_not_hold_exits_3_and_says_where(wrong: Path) -> None:
    found = steprun(
        "gradcheck", "config.yaml", "--step", "0.0625", "--elements", "1", cwd=wrong.parent, environment=WIDE
    )
    assert found == Outcome(3, WRONG_TABLE, WRONG_FAULT)


def test_a_narrow_screen_shows_fewer_columns(linear: Path) -> None:
    shown = steprun("gradcheck", linear, "--step", "0.5", environment={"COLUMNS": "54"}).out.splitlines()[3:]
    assert shown == [
        "  gradient         error  worst at  autograd  numeric",
        "  x1.grad   holds  0      [0]       10        10",
        "  x2.grad   holds  0      [0]       30        30",
    ]


def test_gradients_as_json(wrong: Path) -> None:
    found = steprun("gradcheck", wrong, "--step", "0.0625", "--json")
    assert found.code == 3
    told = json.loads(found.out)
    assert (told["name"], told["dtype"], told["step"], told["holds"]) == ("config", "float64", 0.0625, False)
    (objective,) = told["objectives"]
    by_weight, by_bias = objective["gradients"]
    assert (objective["objective"], objective["value"], objective["cut"]) == ("loss", -4, [])
    assert (by_weight["parameter"], by_weight["outcome"], by_weight["torch_agrees"]) == ("w", "differs", False)
    assert by_weight["worst"] == {
        "index": [0],
        "autograd": 4,
        "numeric": 0,
        "left": 0,
        "right": 0,
        "outcome": "differs",
    }
    assert by_weight["causes"][0] == {"message": "`detach` cuts the derivative", "at": f"{wrong}:3:7"}
    assert (by_bias["outcome"], by_bias["worst"]["left"], by_bias["worst"]["right"]) == ("kink", 0, 1)


def test_an_override_applies_before_the_dtype_does(linear: Path) -> None:
    found = steprun("gradcheck", linear, "c=7", "dtype=bfloat16", "--step", "0.5", environment=WIDE)
    assert found.code == 0
    assert found.out.splitlines()[-1].split() == ["x2.grad", "1", "holds", "0", "0", "[0]", "7", "7"]


def test_a_config_that_differentiates_nothing_says_so(linear: Path) -> None:
    linear.write_text(LINEAR.replace("[backward, step]", "[forward]"))
    found = steprun("gradcheck", linear)
    assert found.code == 0
    assert found.out.splitlines()[1:] == ["no step differentiates an objective"]


def test_warnings_are_told_once(linear: Path) -> None:
    linear.write_text(LINEAR.replace("c: 30", "c: 30, unused: 1"))
    assert steprun("gradcheck", linear).err.count("warning:") == 1


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--step", "0", "it is 0.0, and takes a number above 0"),
        ("--step", "nan", "it is nan, and takes a number above 0"),
        ("--rtol", "-1", "it is -1.0, and takes 0 or more"),
        ("--atol", "inf", "it is inf, and takes 0 or more"),
    ],
)
def test_a_precision_that_is_none_is_a_usage_error(linear: Path, option: str, value: str, told: str) -> None:
    found = steprun("gradcheck", linear, option, value)
    assert (found.code, found.out) == (2, "")
    assert f"Invalid value for '{option}': {told}" in found.err


def test_a_config_with_a_fault_is_not_checked(linear: Path) -> None:
    linear.write_text(LINEAR.replace("c * x2", "d * x2"))
    found = steprun("gradcheck", linear)
    assert (found.code, found.out) == (2, "")
    assert "linear.yaml:3:27  expression" in found.err
