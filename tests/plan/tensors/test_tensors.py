"""Declared tensors: shapes, dtypes and initial values as torch gives them by hand, and every fault in its place."""

from __future__ import annotations

import math
import textwrap

import numpy
import pytest
import torch
from torch import nn

from runner.catalogue import initialisers
from runner.config import loads
from runner.errors import Problem
from runner.faults import PlacedFault
from runner.plan.streams import stream_seed
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.tensors import TensorPlan, initial_order, materialise, plan_tensors
from tests.tables import over

SCALARS = {"n": 3, "d": 4, "half": 0.5, "wide": True}


def plan(text, base=".", dtype=torch.float32, infer=None, limit=None):
    """Plans, problems and warnings of a config that declares the scalar constants n = 3, d = 4, half = 0.5."""
    text = textwrap.dedent(text)
    if "parameters:" not in text:
        text += "\nparameters: {x: 1}\n"
    header = "constants:\n" if "constants:" not in text else ""
    scalars = "".join(f"  {name}: {str(value).lower()}\n" for name, value in SCALARS.items())
    marker = "constants:\n" if not header else ""
    text = text.replace(marker, marker + scalars) if marker else text + header + scalars
    config = loads(text + "\nexpression: f = 1\n", base)
    problems: list[Problem] = []
    warnings: list[Problem] = []
    plans = plan_tensors(config, SCALARS, dtype, problems, infer=infer, warnings=warnings, limit=limit)
    return plans, problems, warnings


def tensors(text, base=".", **options):
    plans, problems, warnings = plan(text, base, **options)
    assert not problems, "\n".join(problem.render() for problem in problems)
    assert not warnings
    return {name: materialise(plans[name], never) for name in plans}


def never(computed: Computed) -> torch.Tensor:
    raise AssertionError(computed)


def only_problem(text, base=".", **options) -> Problem:
    _, problems, _ = plan(text, base, **options)
    assert len(problems) == 1, problems
    return problems[0]


def assert_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert (
        found.contiguous().view(-1).view(torch.uint8).tolist()
        == expected.contiguous().view(-1).view(torch.uint8).tolist()
    )


DECLARATIONS = [
    ("5", torch.tensor(5.0)),
    ("-0.5", torch.tensor(-0.5)),
    ("[1, 2, 3]", torch.tensor([1.0, 2.0, 3.0])),
    ("[[0.1, 2], [3, .nan]]", torch.tensor([[0.1, 2.0], [3.0, math.nan]])),
    ("[]", torch.empty(0)),
    ("[half, 2 * half]", torch.tensor([0.5, 1.0])),
    ("{shape: [1], init: 100}", torch.tensor([100.0])),
    ("{shape: [n, 2 * n, d // 2], init: half / 4}", torch.full((3, 6, 2), 0.125)),
    ("{shape: [0, 3], init: 1}", torch.ones(0, 3)),
    ("{shape: [2], init: inf}", torch.tensor([math.inf, math.inf])),
    ("{init: 7}", torch.tensor(7.0)),
    ("{shape: [2], init: true, requires_grad: false}", torch.tensor([1.0, 1.0])),
    ("{shape: [2], init: 0.1, dtype: float64}", torch.tensor([0.1, 0.1], dtype=torch.float64)),
    ("{init: [0.1], dtype: torch.bfloat16}", torch.tensor([0.1], dtype=torch.bfloat16)),
    ("{init: [0.1], dtype: float16}", torch.tensor([0.1], dtype=torch.float16)),
    ("{init: [1, 2], dtype: complex64}", torch.tensor([1 + 0j, 2 + 0j])),
    ("{init: 2, dtype: complex128}", torch.tensor(2 + 0j, dtype=torch.complex128)),
    ("{shape: [2], init: 0.5, dtype: float8_e4m3fn}", torch.tensor([0.5, 0.5]).to(torch.float8_e4m3fn)),
    ("{init: [0.5, 448], dtype: float8_e4m3fn}", torch.tensor([0.5, 448.0]).to(torch.float8_e4m3fn)),
    ("{init: [1, 2], dtype: int32, requires_grad: false}", torch.tensor([1, 2], dtype=torch.int32)),
]


@over(("written", "expected"), DECLARATIONS)
def test_a_parameter_is_what_its_declaration_says(written, expected):
    assert_bits(tensors(f"parameters:\n  x: {written}\n")["x"], expected)


CONSTANTS = [
    ("[1, 2]", torch.tensor([1, 2])),
    ("[true, false]", torch.tensor([True, False])),
    ("[1, 2.5]", torch.tensor([1, 2.5])),
    ("[[1], [n]]", torch.tensor([[1], [3]])),
    ("{init: [true, false], dtype: float32}", torch.tensor([1.0, 0.0])),
    ("{init: [1, 2], dtype: uint8}", torch.tensor([1, 2], dtype=torch.uint8)),
    ("{init: [9007199254740993]}", torch.tensor([2**53 + 1])),
    ("{shape: [2], init: 30}", torch.tensor([30.0, 30.0])),
    ("{shape: [2], init: true}", torch.tensor([True, True])),
    ("{shape: [2]}", torch.zeros(2)),
    ("{shape: [2], dtype: int64}", torch.zeros(2, dtype=torch.int64)),
    ("{shape: [2, 2], init: eye}", torch.eye(2)),
]


@over(("written", "expected"), CONSTANTS)
def test_a_constant_is_what_its_declaration_says(written, expected):
    assert_bits(tensors(f"constants:\n  c: {written}\n")["c"], expected)


def test_the_default_dtype_is_that_of_the_config():
    found = tensors("parameters: {x: [1, 2]}\nconstants:\n  c: [1.5]\n  k: [1]\n", dtype=torch.float64)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "x": torch.float64,
        "c": torch.float64,
        "k": torch.int64,
    }


def test_parameters_require_a_gradient_and_constants_never():
    plans, _, _ = plan("parameters:\n  x: 1\n  y: {init: 1, requires_grad: false}\nconstants:\n  c: [1.0]\n")
    assert {name: plan.requires_grad for name, plan in plans.items()} == {"x": True, "y": False, "c": False}
    assert [plan.role for plan in plans.values()] == ["parameter", "parameter", "constant"]


def test_scalar_constants_are_no_tensors():
    assert list(plan("parameters:\n  x: 1\n")[0]) == ["x"]


ARGUMENTS = {
    "uniform": {"a": -1.5, "b": 2.0},
    "normal": {"mean": 0.5, "std": 0.02},
    "trunc_normal": {"std": 0.5, "a": -0.3, "b": 0.9},
    "constant": {"val": 0.3},
    "dirac": {"groups": 2},
    "xavier_uniform": {"gain": 1.5},
    "xavier_normal": {"gain": 0.5},
    "kaiming_uniform": {"a": 0.2, "mode": "fan_out", "nonlinearity": "leaky_relu"},
    "kaiming_normal": {"nonlinearity": "relu"},
    "orthogonal": {"gain": 2.0},
    "sparse": {"sparsity": 0.4, "std": 0.1},
}
REQUIRED = {"constant": {"val": 2}, "sparse": {"sparsity": 0.5}}


def by_hand(name: str, shape, dtype, arguments) -> torch.Tensor:
    torch.manual_seed(stream_seed(11, "init", "x"))
    tensor = torch.empty(shape, dtype=dtype)
    with torch.no_grad():
        getattr(nn.init, f"{name}_")(tensor, **arguments)
    return tensor


@over("dtype", ["float32", "float64", "bfloat16", "float16"])
@over("given", [True, False])
@over("name", sorted(initialisers()))
def test_an_initialiser_has_the_bits_of_torch_after_manual_seed(name, given, dtype):
    if name == "orthogonal" and dtype in ("bfloat16", "float16"):
        return  # torch has no QR in half precision
    shape = [4, 5, 3] if name == "dirac" else [6, 5]
    arguments = ARGUMENTS.get(name, {}) if given else REQUIRED.get(name, {})
    inside = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    before = torch.get_rng_state()
    found = tensors(
        f"seed: 11\nparameters:\n  x: {{shape: {shape}, init: {{{name}: {{{inside}}}}}, dtype: {dtype}}}\n"
    )["x"]
    assert torch.equal(torch.get_rng_state(), before)
    assert_bits(found, by_hand(name, shape, getattr(torch, dtype), arguments))


def test_every_initialiser_of_torch_is_known():
    public = {name.removesuffix("_") for name in nn.init.__all__ if name.endswith("_")}
    assert set(initialisers()) == public


def test_adding_a_parameter_keeps_the_others_init():
    alone = tensors("parameters:\n  b: {shape: [3], init: normal}\n")
    beside = tensors("parameters:\n  a: {shape: [9], init: normal}\n  b: {shape: [3], init: normal}\n")
    assert_bits(beside["b"], alone["b"])
    assert not torch.equal(beside["a"][:3], beside["b"])


def test_another_seed_draws_other_numbers():
    draws = [tensors(f"seed: {seed}\nparameters:\n  x: {{shape: [3], init: normal}}\n")["x"] for seed in (1, 2)]
    assert not torch.equal(*draws)


def test_stacked_slices_have_the_fan_of_one_layer():
    found = tensors("seed: 11\nparameters:\n  x: {shape: [n, 4, 5], init: xavier_uniform, stacked: 1}\n")["x"]
    torch.manual_seed(stream_seed(11, "init", "x"))
    expected = torch.stack([nn.init.xavier_uniform_(torch.empty(4, 5)) for _ in range(3)])
    assert_bits(found, expected)
    assert_bits(
        tensors("seed: 11\nparameters:\n  x: {shape: [1, 3, 4, 5], init: xavier_uniform, stacked: 2}\n")["x"][0],
        expected,
    )


def test_an_expression_starts_from_other_initial_values():
    def infer(computed, plans):
        assert computed.text == "w * 2"
        assert computed.reads == ("w",)
        return plans["w"].shape, plans["w"].dtype

    plans, problems, _ = plan(
        "parameters:\n  copy: {init: {expression: w * 2}}\n  w: {shape: [2, 3], init: 4}\n", infer=infer
    )
    assert not problems
    assert list(plans) == ["copy", "w"]
    assert plans["copy"].shape == (2, 3)
    assert initial_order(plans) == ("w", "copy")
    weights = materialise(plans["w"], never)
    copy = materialise(plans["copy"], lambda computed: weights * 2)
    assert_bits(copy, torch.full((2, 3), 8.0))


def test_an_expression_that_is_a_name_makes_a_copy_and_never_an_alias():
    plans, _, _ = plan("parameters:\n  copy: {shape: [2], init: {expression: w}}\n  w: {shape: [2], init: 1}\n")
    weights = torch.ones(2)
    copy = materialise(plans["copy"], lambda computed: weights)
    weights.zero_()
    assert copy.tolist() == [1, 1]


def test_an_expression_broadcasts_to_the_declared_shape():
    plans, _, _ = plan(
        "parameters:\n  x: {shape: [2, 3], init: {expression: w}}\n  w: [1, 2, 3]\n",
        infer=lambda computed, plans: ((3,), torch.float32),
    )
    found = materialise(plans["x"], lambda computed: torch.tensor([1.0, 2.0, 3.0]))
    assert_bits(found, torch.tensor([[1.0, 2, 3], [1, 2, 3]]))


def test_an_expression_of_integers_is_an_integer_constant_and_a_floating_parameter():
    text = "parameters:\n  x: {init: {expression: c}}\nconstants:\n  c: [1, 2]\n  k: {init: {expression: c}}\n"
    plans, _, _ = plan(text, infer=lambda computed, plans: ((2,), torch.int64))
    assert (plans["x"].dtype, plans["k"].dtype) == (torch.float32, torch.int64)


def test_expressions_in_a_circle_are_refused():
    text = "parameters:\n  a: {init: {expression: b}}\n  b: {init: {expression: a + 1}}\n"
    plans, problems, _ = plan(text)
    assert not problems
    with pytest.raises(PlacedFault, match="the initial values read one another in a circle: "):
        initial_order(plans)
    problem = only_problem(text, infer=lambda computed, plans: ((), torch.float32))
    assert "in a circle" in problem.message


def test_what_reads_a_tensor_with_a_fault_is_no_fault_of_its_own():
    text = "parameters:\n  a: {shape: [q], init: 0}\n  b: {init: {expression: a}}\n  c: {init: {expression: b}}\n"
    assert only_problem(text, infer=lambda computed, plans: ((), torch.float32)).path == "parameters.a.shape.0"


def test_an_expression_that_gives_another_shape_in_the_end_is_a_fault():
    plans, _, _ = plan("parameters:\n  x: {shape: [2], init: {expression: 1 + 1}}\n")
    with pytest.raises(PlacedFault, match=r"the expression has shape \(3,\), and \(2,\) is declared"):
        materialise(plans["x"], lambda computed: torch.ones(3))


def test_files_give_shape_and_kind(tmp_path):
    numpy.savez(
        tmp_path / "a.npz", w=numpy.arange(6.0).reshape(2, 3), k=numpy.array([1, 2], numpy.int32), z=numpy.array([1j])
    )
    (tmp_path / "points.csv").write_text("x,y,ok\n1,2.5,true\n2,3.5,false\n")
    found = tensors(
        """
        parameters:
          w: {file: 'a.npz#w'}
          v: {file: 'a.npz#w', shape: [n - 1, n], dtype: float64}
          p: {file: 'a.npz#k'}
        constants:
          k: {file: 'a.npz#k'}
          small: {file: 'a.npz#k', dtype: int8}
          z: {file: 'a.npz#z'}
          y: {file: points.csv, columns: y}
          x: {file: points.csv, columns: x}
          xy: {file: points.csv, columns: [x, y]}
          one: {file: points.csv, columns: [x]}
          ok: {file: points.csv, columns: ok}
        """,
        tmp_path,
    )
    assert_bits(found["w"], torch.arange(6.0).reshape(2, 3))
    assert_bits(found["v"], torch.arange(6.0, dtype=torch.float64).reshape(2, 3))
    assert_bits(found["p"], torch.tensor([1.0, 2.0]))
    assert_bits(found["k"], torch.tensor([1, 2]))
    assert_bits(found["small"], torch.tensor([1, 2], dtype=torch.int8))
    assert_bits(found["z"], torch.tensor([1j], dtype=torch.complex64))
    assert_bits(found["y"], torch.tensor([2.5, 3.5]))
    assert_bits(found["x"], torch.tensor([1, 2]))
    assert_bits(found["xy"], torch.tensor([[1, 2.5], [2, 3.5]]))
    assert_bits(found["one"], torch.tensor([[1], [2]]))
    assert_bits(found["ok"], torch.tensor([True, False]))


def test_a_file_that_changed_after_planning_is_a_fault(tmp_path):
    numpy.save(tmp_path / "w.npy", numpy.zeros(3))
    plans, _, _ = plan("parameters:\n  w: {file: w.npy}\n", tmp_path)
    numpy.save(tmp_path / "w.npy", numpy.zeros(4))
    with pytest.raises(PlacedFault, match=r"w.npy has shape \(4,\) now, and had \(3,\) when the run was planned"):
        materialise(plans["w"], never)
    (tmp_path / "w.npy").unlink()
    with pytest.raises(PlacedFault, match=r"w\.npy cannot be read: no such file or directory"):
        materialise(plans["w"], never)


FAULTS = [
    ("{shape: [d / 3], init: 0}", "an integer is needed here, and `d / 3` is 1.3333333333333333", 15, 5),
    ("{shape: [1.5], init: 0}", "an integer is needed here, not 1.5", 15, 3),
    ("{shape: [wide], init: 0}", "an integer is needed here, and `wide` is true", 15, 4),
    ("{shape: [2, n - 5], init: 0}", "a length cannot be negative, `n - 5` is -2", 18, 5),
    ("{shape: [nn], init: 0}", "`nn` is not a scalar constant", 15, 2),
    ("{shape: [2, 3 + q * 2], init: 0}", "`q` is not a scalar constant", 22, 1),
    (
        "{shape: [1000000, 1000000], init: 0}",
        "a tensor of shape [1000000, 1000000] and float32 takes 3.6 TiB, and there are 1.0 GiB",
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


@over("name", sorted(initialisers()))
def test_a_tensor_without_elements_starts_from_any_initialiser(name):
    arguments = ", ".join(f"{key}: {value}" for key, value in REQUIRED.get(name, {}).items())
    assert tensors(f"parameters:\n  x: {{shape: [0, 0], init: {{{name}: {{{arguments}}}}}}}\n")["x"].shape == (0, 0)


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


def test_planning_allocates_nothing(monkeypatch):
    allocated = []
    empty = torch.empty

    def counted(*arguments, **options):
        tensor = empty(*arguments, **options)
        allocated.append(tensor.numel())
        return tensor

    monkeypatch.setattr(torch, "empty", counted)
    plans, problems, _ = plan(
        """
        parameters:
          a: {shape: [50000, 50000], init: xavier_normal}
          b: {shape: [64000, 500, 9], init: {dirac: {groups: 4}}}
          c: {shape: [100, 50000, 50], init: orthogonal, stacked: 1}
        """,
        limit=2**40,
    )
    assert not problems
    assert sum(allocated) < 100
    assert plans["a"].bytes == 4 * 50000**2


def test_a_plan_is_a_frozen_value_that_says_what_it_starts_from():
    plans, _, _ = plan(
        "parameters:\n  a: 1\n  b: [1.5]\n  c: {shape: [2], init: {normal: {std: half}}}\n"
        "  e: {init: {expression: ' a + b '}}\n"
    )
    assert [str(plan.init) for plan in plans.values()] == ["1", "list", "normal(std=0.5)", "a + b"]
    assert plans["c"].bytes == 8
    assert isinstance(hash(plans["b"]), int)
    with pytest.raises(AttributeError, match="cannot assign"):
        plans["a"].name = "z"
    assert isinstance(plans["a"], TensorPlan)
