"""Every fault of a declared tensor is reported in its place."""

from __future__ import annotations

import numpy

from runner.plan.tensors.tensors import materialise
from tests.plan.tensors.planned import never, only_problem, plan
from tests.tables import over

FAULTS = [
    ("{shape: [d / 3], init: 0}", "an integer is needed here, and `d / 3` is 1.3333333333333333", 15, 5),
    ("{shape: [1.5], init: 0}", "an integer is needed here, not 1.5", 15, 3),
    ("{shape: [wide], init: 0}", "an integer is needed here, and `wide` is true", 15, 4),
    ("{shape: [2, n - 5], init: 0}", "a length cannot be negative, `n - 5` is -2", 18, 5),
    ("{shape: [nn], init: 0}", "`nn` is not a scalar constant", 15, 2),
    ("{shape: [2, 3 + q * 2], init: 0}", "`q` is not a scalar constant", 22, 1),
    (
        "{shape: [1000000, 1000000], init: 0}",
        "a tensor of shape [1000000, 1000000] and float32 needs 3.6 TiB, but only 1.0 GiB are available",
        14,
        18,
    ),
    ("{shape: [2], init: [1, 2, 3]}", "the declared shape is [2], and the list has shape [3]", 14, 3),
    ("{shape: [2], init: 1e39}", "1e+39 is beyond 3.40282e+38, the largest float32", 25, 4),
    ("{init: [1, 70000], dtype: float16}", "70000 is beyond 65504, the largest float16", 17, 5),
    ("{init: [1, 1.5], dtype: int64, requires_grad: false}", "1.5 is not an integer", 17, 3),
    ("{init: [300], dtype: uint8, requires_grad: false}", "300 is not between 0 and 255", 14, 3),
    ("{init: [2], dtype: bool, requires_grad: false}", "2 is not a boolean", 14, 1),
    ("{init: [.nan], dtype: int8, requires_grad: false}", "nan is not an integer", 14, 4),
    (
        "{init: 1, dtype: int64}",
        "the parameter `x` is int64, and only floating and complex dtypes have gradients",
        23,
        5,
    ),
    (
        "{init: 1, dtype: bool, requires_grad: true}",
        "the parameter `x` is bool, and only floating and complex dtypes have gradients",
        44,
        4,
    ),
    (
        "{shape: [3], init: xavier_normal}",
        "`xavier_normal` does not fit float32 of shape [3]: fan in and fan out can not be computed for tensor with "
        "fewer than 2 dimensions",
        25,
        13,
    ),
    (
        "{shape: [2, 3, 4], init: eye}",
        "`eye` does not fit float32 of shape [2, 3, 4]: only tensors with 2 dimensions are supported",
        31,
        3,
    ),
    (
        "{shape: [5, 3, 4], init: {dirac: {groups: 2}}}",
        "`dirac` does not fit float32 of shape [5, 3, 4]: dim 0 must be divisible by groups",
        31,
        20,
    ),
    (
        "{shape: [2, 2], init: {normal: {std: -1}}}",
        "`normal` does not fit float32 of shape [2, 2]: normal expects std >= 0.0, but found std -1",
        28,
        19,
    ),
    (
        "{shape: [2, 2], init: {kaiming_normal: {mode: fan_on}}}",
        "`kaiming_normal` does not fit float32 of shape [2, 2]: mode fan_on not supported, please use one of "
        "['fan_in', 'fan_out']",
        28,
        32,
    ),
    ("{shape: [2, 2], init: {normal: {std: true}}}", "`std` takes a number, not true", 43, 4),
    ("{shape: [2, 2], init: {normal: {std: q}}}", "`q` is not a scalar constant", 43, 1),
    ("{shape: [4, 3, 2], init: {dirac: {groups: half}}}", "`groups` takes an integer, and `half` is 0.5", 48, 4),
    (
        "{shape: [2], init: normal, dtype: int64, requires_grad: false}",
        "`normal` does not fit int64 of shape [2]",
        25,
        6,
    ),
    (
        "{shape: [2, 3], init: normal, stacked: 2}",
        "`stacked: 2` leaves no dimension of the shape [2, 3] to draw",
        45,
        1,
    ),
    ("{shape: [2, 3], init: normal, stacked: -1}", "`stacked` counts leading dimensions, found -1", 45, 2),
]


@over(("written", "message", "column", "width"), FAULTS)
def test_a_fault_of_a_declaration_is_marked_in_its_place(written, message, column, width):
    problem = only_problem(f"parameters:\n  x: {written}\n", limit=2**30)
    assert problem.message.startswith(message)
    assert (problem.line, problem.column, problem.width) == (2, column, width)
    assert problem.hint


def test_a_shape_of_too_many_dimensions_is_refused():
    problem = only_problem(f"parameters:\n  x: {{shape: {[1] * 65}, init: 0}}\n")
    assert problem.message == "a shape of 65 dimensions"


def test_all_faults_are_reported_at_once_and_good_tensors_planned():
    plans, problems, _ = plan(
        "parameters:\n  a: {shape: [q], init: 0}\n  b: 1\n  c: {shape: [2], init: xavier_normal}\n"
    )
    assert list(plans) == ["b"]
    assert [problem.path for problem in problems] == ["parameters.a.shape.0", "parameters.c.init"]


def test_faults_of_files_are_marked_at_the_file_or_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    numpy.save(tmp_path / "w.npy", numpy.zeros((2, 3)))
    _, problems, _ = plan(
        """
        parameters:
          a: {file: b.csv}
          b: {file: ../a.csv}
          c: {file: a.csv, columns: [x, z]}
          e: {file: w.npy, shape: [3, 2]}
        """,
        tmp_path,
    )
    assert [(problem.path, problem.message) for problem in problems] == [
        ("parameters.a.file", "there is no file b.csv"),
        ("parameters.b.file", "`../a.csv` is outside the folders that this config may read"),
        ("parameters.c.columns", "a.csv has no column `z`"),
        ("parameters.e.shape", "the declared shape is [3, 2], and w.npy has shape [2, 3]"),
    ]
    assert problems[3].hint == "write `shape: [2, 3]`, or leave it out"


def test_what_torch_warns_of_is_a_warning_with_its_place():
    plans, problems, warnings = plan("parameters:\n  x: {shape: [3], init: {trunc_normal: {mean: 9}}}\n")
    assert not problems
    assert list(plans) == ["x"]
    assert [warning.path for warning in warnings] == ["parameters.x.init"]
    assert warnings[0].message.startswith("mean is more than 2 std from [a, b]")
    materialise(plans["x"], never)
