"""Declared tensors: shapes, dtypes and initial values as torch gives them by hand, and every fault in its place."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from torch import nn

from runner.catalogue import initialisers
from runner.faults import PlacedFault
from runner.plan.streams import stream_seed
from runner.plan.tensors.tensors import TensorPlan, initial_order, materialise
from tests.plan.tensors.planned import never, only_problem, plan
from tests.tables import over


def tensors(text, base=".", **options):
    plans, problems, warnings = plan(text, base, **options)
    assert not problems, "\n".join(problem.render() for problem in problems)
    assert not warnings
    return {name: materialise(plans[name], never) for name in plans}


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
    with pytest.raises(PlacedFault, match="the initial values depend on each other in a cycle: "):
        initial_order(plans)
    problem = only_problem(text, infer=lambda computed, plans: ((), torch.float32))
    assert "in a cycle" in problem.message


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


@over("name", sorted(initialisers()))
def test_a_tensor_without_elements_starts_from_any_initialiser(name):
    arguments = ", ".join(f"{key}: {value}" for key, value in REQUIRED.get(name, {}).items())
    assert tensors(f"parameters:\n  x: {{shape: [0, 0], init: {{{name}: {{{arguments}}}}}}}\n")["x"].shape == (0, 0)


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
