"""Arguments that torch's native code trusts, and would end the process on, are faults at their place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import runner
from runner.language.graph.computation import extract
from runner.language.graph.scalar_split import split_scalars
from tests.language.lowering import fault_of, lower, same, tensors, value_of
from tests.tables import over

LOWEST = {torch.int32: -(2**31), torch.int64: -(2**63)}

DIVISIONS = {
    "a // b": lambda a, b: a // b,
    "a % b": lambda a, b: a % b,
    "floor_divide(a, b)": torch.floor_divide,
    "a.floor_divide(b)": torch.floor_divide,
    "remainder(a, b)": torch.remainder,
    "a.remainder(b)": torch.remainder,
    "fmod(a, b)": torch.fmod,
    "a.fmod(b)": torch.fmod,
    "div(a, b, rounding_mode='trunc')": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "div(a, b, rounding_mode='floor')": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "a.div(b, rounding_mode='floor')": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "divide(a, b, rounding_mode='trunc')": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "a.divide(b, rounding_mode='trunc')": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
}


@over("dtype", LOWEST)
@over("text", DIVISIONS)
def test_the_lowest_integer_divided_by_minus_one_is_a_fault(text: str, dtype: torch.dtype) -> None:
    given = {"a": torch.tensor([5, LOWEST[dtype]], dtype=dtype), "b": torch.tensor([-1], dtype=dtype)}
    fault = fault_of(text, given=given)
    bits = torch.iinfo(dtype).bits
    assert fault.message == f"`{text}`: -2^{bits - 1} divided by -1 does not fit into int{bits}"


@pytest.mark.parametrize("text", ["a // -1", "a % -1", "fmod(a, -1)", "k // b", "(-2 ** 63) // b"])
def test_a_number_that_divides_or_is_divided_is_looked_at_too(text: str) -> None:
    low, one = torch.tensor([-(2**63)]), torch.tensor([3, -1])
    given = {"a": low, "b": one, "k": torch.tensor(-(2**63))}
    assert "divided by -1 does not fit into int64" in fault_of(text, given=given).message


def test_a_tensor_without_dimensions_counts_as_it_is_converted() -> None:
    given = {"a": torch.tensor([-(2**31)], dtype=torch.int32), "b": torch.tensor(2**32 - 1)}
    assert "-2^31 divided by -1" in fault_of("a // b", given=given).message


@over("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
@over("text", DIVISIONS)
def test_a_guard_of_integer_division_changes_no_result(text: str, dtype: torch.dtype) -> None:
    low = torch.iinfo(dtype).min
    given = {"a": torch.tensor([7, low, low, 100], dtype=dtype), "b": torch.tensor([2, 3, 1, 5], dtype=dtype)}
    assert same(value_of(text, given=given), DIVISIONS[text](given["a"], given["b"]))


def test_a_division_of_floats_has_no_guard() -> None:
    targets = {node.target for node in lower("y = x // 2\ny % 3").graph.nodes}
    assert {operator.floordiv, operator.mod} <= targets


@over(
    ("text", "message"),
    [
        ("repeat_interleave(b, tensor([2 ** 62, 2 ** 62, 2 ** 62]))", "add up to more than 2^62"),
        ("b.repeat_interleave(tensor([2 ** 62, 2 ** 62, 2 ** 62]), 0)", "add up to more than 2^62"),
        ("repeat_interleave(tensor([2 ** 62, 2 ** 62]))", "add up to more than 2^62"),
        ("repeat_interleave(b, tensor([-1, 1, 1]))", "a count of repetitions is negative"),
        ("lcm(tensor(-2 ** 63), tensor([-5]))", "-2^63 has no absolute value in int64"),
        ("tensor([3]).lcm(tensor(-2 ** 63))", "-2^63 has no absolute value in int64"),
        ("lu_unpack(w, tensor([1], dtype=int32))", "the pivots have shape (1,), and (2,) is needed"),
        ("torch.lu_unpack(zeros(2, 3, 3), zeros(3, dtype=int32))", "the pivots have shape (3,), and (2, 3) is needed"),
        ("torch.embedding_bag(w, tensor([0, 9]), tensor([0]))", "an index is none of the 3 rows of the table"),
        ("torch.embedding_bag(w, tensor([[0]]), tensor([[0]]))", "indices have 1 size beside `offsets`"),
        ("torch.embedding_bag(w, tensor([0]), tensor([[0]]))", "`offsets` has shape (1, 1), and 1 size is needed"),
        ("F.embedding_bag(tensor([0, 1]), w, tensor([0, 2 ** 62, 1]))", "an offset is outside the indices"),
        ("F.embedding_bag(tensor([0, 1]), w, tensor([0, 2, 1]))", "`offsets` decreases"),
        ("torch.embedding_bag(w, tensor([0, 1]), tensor([0])[:0])[0]", "`offsets` is empty, and there are 2 indices"),
        (
            "torch.native_group_norm(zeros(2, 0, 3), ones(6), ones(6), 2, 6, 2 ** 62, 2, 1.0)[0]",
            "`N`, `C` and `HxW` are (2, 6, 4611686018427387904), which are not the sizes of (2, 0, 3)",
        ),
        ("torch.native_group_norm(zeros(2, 4, 3), ones(4), ones(4), 2, 4, 4, 2, 1.0)[0]", "the sizes of (2, 4, 3)"),
        ("torch.native_group_norm(zeros(0), ones(0), ones(0), 2 ** 62, 0, 0, 2, 1.0)[0]", "the sizes of (0,)"),
        (
            "scaled_dot_product_attention(zeros(1, 6, 8), zeros(1, 3, 8), zeros(1, 6, 8), is_causal=True)",
            "the key has shape (1, 3, 8), the value (1, 6, 8), of another length",
        ),
        ("grid_sample(zeros(1, 1, 3, 3), zeros(1, 2, 2, 2) / 0, padding_mode='border')", "the grid holds a NaN"),
        ("grid_sample(zeros(1, 1, 3, 3), zeros(1, 2, 2, 2) + inf, 'bilinear', 'reflection')", "the grid holds a NaN"),
        ("torch.grid_sampler_2d(zeros(1, 1, 3, 3), zeros(1, 2, 2, 2) / 0, 0, 2, False)", "the grid holds a NaN"),
        (
            "F.ctc_loss(zeros(3, 1, 2).log_softmax(2), tensor([[1, 9]]), tensor([3]), tensor([2]))",
            "a label is none of the 2 classes, which count from 0",
        ),
        (
            "torch.ctc_loss(zeros(3, 1, 2), tensor([1, -9]), tensor([3]), tensor([2]))",
            "a label is none of the 2 classes",
        ),
        ("linalg.lstsq(eye(3), zeros(3, 0), driver='gelss')", "a matrix of shape (3, 0) has no elements"),
        ("linalg.lstsq(zeros(2 ** 21, 0, 2), zeros(2 ** 21, 0, 1))[0]", "2,097,152 matrices have no elements"),
        ("linalg.lstsq(zeros(2 ** 21, 2, 0), zeros(2 ** 21, 2))[0]", "2,097,152 matrices have no elements"),
        ("linalg.lstsq(zeros(2 ** 11, 1, 0, 1), zeros(2 ** 10, 0, 1))[0]", "2,097,152 matrices have no elements"),
        ("linalg.lstsq(eye(2), zeros(2, 0))[0]", "lstsq: a matrix of shape (2, 0) has no elements"),
        ("linalg.lu_solve(w.mT @ w.mT.mT, tensor([1, 9], dtype=int32), w.mT)", "a pivot is none of the rows"),
        ("linalg.ldl_solve(x.mT @ x, tensor([1, 2, 9], dtype=int32), w)", "count from 1 to 3"),
        ("linalg.ldl_solve(x.mT @ x, tensor([1, -2, 3], dtype=int32), w)", "negative pivots come in pairs"),
        (
            "linalg.ldl_solve(x.mT @ x, tensor([1, 2], dtype=int32), w)",
            "the pivots have shape (2,), and (3,) is needed",
        ),
        ("max_pool1d(x, 3, 64, 1, 7, True)", "a window starts 1 before the input and steps by 7 over all 3 of it"),
        ("F.max_pool1d_with_indices(x, 3, 64, 1, 7, True)[0]", "steps by 7 over all 3 of it"),
        ("max_pool2d(x[None], 3, padding=1, dilation=[1, 9], ceil_mode=True)", "steps by 9 over all 3 of it"),
        ("max_pool3d(x[None, None], 3, 9, 1, [9, 1, 1], True)", "steps by 9 over all 1 of it"),
        ("max_pool1d(x, 2 ** 31, 1, 1, 1, True)", "`kernel_size` of `max_pool1d` is larger than 2^24"),
        ("segment_reduce(b, 'sum', lengths=tensor([2, 2]))", "the lengths do not add up to 3"),
        ("segment_reduce(b, 'sum', lengths=tensor([2, 2]), unsafe=True)", "the lengths do not add up to 3"),
        ("segment_reduce(b, 'sum', lengths=tensor([4, -1]), unsafe=True)", "a length is negative"),
        ("segment_reduce(b, 'sum', offsets=tensor([0, 2 ** 62, 3]))", "`offsets` decreases"),
        ("segment_reduce(b, 'sum', offsets=tensor([1, 3]))", "`offsets` does not start with 0"),
        ("segment_reduce(b, 'sum', offsets=tensor([0, 9]))", "`offsets` does not end with 3"),
        ("segment_reduce(b, 'sum', offsets=tensor([0, 0]), axis=2)", "`axis` is 2, and the data has 1 dimensions"),
        ("segment_reduce(b, 'sum')", "either `lengths` or `offsets` says where segments are"),
        ("special.zeta(2.0, x - 2 ** 52)", "at most 10,000"),
        ("special.zeta(x, -1e15)", "at most 10,000"),
        ("polygamma(2, x - 2 ** 52)", "at most 10,000"),
        ("x.polygamma(2) + (x - 2 ** 52).polygamma(2)", "at most 10,000"),
        ("special.laguerre_polynomial_l(x, 1e15)", "the maximum is 10,000"),
        ("special.laguerre_polynomial_l(x, tensor([1e15]))", "an order in `n` is larger than 10,000"),
        ("special.shifted_chebyshev_polynomial_w(x, tensor(2 ** 62))", "an order in `n` is larger than 10,000"),
        ("mvlgamma(b, 2 ** 32)", "the maximum is 10,000"),
        ("b.mvlgamma(2 ** 32)", "the maximum is 10,000"),
        ("w.mT.mm(w).matrix_power(2 ** 62)", "the maximum is 2,147,483,648"),
    ],
)
def test_what_native_code_does_not_check_is_a_fault(text: str, message: str) -> None:
    assert message in fault_of(text).message


@pytest.mark.parametrize(
    "text",
    [
        "adaptive_max_pool1d(zeros(0, 2, 3), 2 ** 40)",
        "F.adaptive_max_pool2d(zeros(5, 2, 1), [2 ** 32 + 1, 0], True)",
        "F.adaptive_max_pool3d(zeros(5, 2, 1, 1), [2 ** 32 + 1, 1, 0])",
        "F.adaptive_max_pool3d(zeros(0, 5, 2, 1, 1), 2 ** 20)",
        "F.interpolate(zeros(0, 5, 2), [2 ** 31 - 1])",
        "F.interpolate(zeros(0, 5, 2, 1), [2 ** 31 - 1, 3], mode='bilinear')",
        "F.interpolate(zeros(0, 5, 2, 1), [2 ** 31 - 1, 3], mode='bicubic')",
        "F.interpolate(zeros(0, 5, 2, 1), scale_factor=2 ** 20)",
        "F.upsample_nearest(zeros(0, 5, 2, 1), scale_factor=2 ** 20)",
        "affine_grid_generator(ones(1, 2, 3), [1, 1, 2 ** 32 + 1, 0], True)",
        "zeros(2 ** 40, 0).geqrf()[0]",
        "zeros(2 ** 31, 0, 2).qr()[0]",
        "zeros(2 ** 40, 0).diff(2 ** 40)",
        "e.diff(dim=0)",
        "ones(2 ** 20, 1, 1, 1) @ zeros(1, 2 ** 20, 1, 0)",
        "matmul(ones(2 ** 20, 1, 0, 1), ones(1, 2 ** 20, 1, 3))",
        "linalg.solve_triangular(ones(2 ** 20, 1, 1, 1), zeros(1, 2 ** 20, 1, 0), upper=True)",
        "cholesky_solve(zeros(1, 2 ** 20, 1, 0), ones(2 ** 20, 1, 1, 1))",
        "cdist(zeros(2 ** 20, 1, 0, 3), zeros(1, 2 ** 20, 2, 3))",
    ],
)
def test_sizes_beside_zero_are_bounded_for_native_code_loops_over_them(text: str) -> None:
    given = {"e": torch.zeros(2**40, 0)}
    assert "elements, and its other sizes make more than 67,108,864" in fault_of(text, given=given).message


EMPTY: dict[str, Callable[[Tensor], Tensor]] = {
    "F.adaptive_max_pool2d(e, [3, 0])": lambda e: F.adaptive_max_pool2d(e, [3, 0]),
    "F.adaptive_max_pool2d(e, [3, 2])": lambda e: F.adaptive_max_pool2d(e, [3, 2]),
    "F.interpolate(e, [5, 7], mode='bilinear')": lambda e: F.interpolate(e, [5, 7], mode="bilinear"),
    "F.interpolate(e, scale_factor=2)": lambda e: F.interpolate(e, scale_factor=2),
    "e.expand(0, 2, 2 ** 13, 2 ** 12).sum(3)": lambda e: e.expand(0, 2, 2**13, 2**12).sum(3),
}


@pytest.mark.parametrize("text", EMPTY)
def test_a_result_without_elements_is_torchs_while_its_sizes_are_few(text: str) -> None:
    e = torch.zeros(0, 2, 1, 1)
    assert same(value_of(text, given={"e": e}), EMPTY[text](e))


@over("count", [0, 1, 5])
@over(
    ("matrix", "right"),
    [((0, 2), (0, 1)), ((2, 0), (2, 1)), ((0, 0), (0, 0)), ((0, 2), (0,)), ((3, 0), (3,)), ((2, 1), (2, 1))],
)
def test_a_few_least_squares_without_elements_are_torchs(
    count: int, matrix: tuple[int, ...], right: tuple[int, ...]
) -> None:
    given = {"a": torch.ones(count, *matrix), "b": torch.ones(count, *right)}
    expected = torch.linalg.lstsq(given["a"], given["b"], driver="gelsd").solution
    assert same(value_of("linalg.lstsq(a, b)[0]", given=given), expected)


def test_a_size_in_a_tensor_is_refused_where_sizes_are_bounded() -> None:
    fault = fault_of("F.adaptive_max_pool2d(ones(5, 2, 1), [tensor(2 ** 40), 0])")
    assert "a size is a tensor, and a number is needed" in fault.message
    fault = fault_of("affine_grid_generator(ones(1, 2, 3), [1, 1, tensor(2 ** 40), 0], True)")
    assert "a size is a tensor, and a number is needed" in fault.message


def test_groups_that_are_normalized_are_torchs() -> None:
    given = {"g": torch.arange(24.0).reshape(2, 4, 3), "s": torch.tensor([1.0, 2, 3, 4])}
    expected = torch.native_group_norm(given["g"], given["s"], None, 2, 4, 3, 2, 1e-5)[0]
    assert same(value_of("torch.native_group_norm(g, s, None, 2, 4, 3, 2, 1e-5)[0]", given=given), expected)


@over("size", [1, 2, 3, 5, 6, 7, 8, 20])
@over(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (3, 64, 1, 2), (3, 64, 1, 7), (5, 20, 2, 3), (5, 1, 2, 6), (7, 3, 3, 6), (7, 64, 3, 4)],
)
def test_a_maximum_over_dilated_windows_is_torchs_unless_a_window_has_no_element(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    x = torch.arange(float(size))[None]
    call = f"max_pool1d(v, {kernel}, {stride}, {padding}, {dilation}, True)"
    try:
        maxima = torch.max_pool1d(x, kernel, stride, padding, dilation, True)
    except RuntimeError:
        assert fault_of(call, given={"v": x}).message
        return
    if bool((maxima == -torch.inf).any()):
        assert "a window starts" in fault_of(call, given={"v": x}).message
    else:
        assert same(value_of(call, given={"v": x}), maxima)


def network(kind: str, **changed: Any) -> tuple[str, dict[str, Any]]:
    """An expression that calls a recurrent network, and its tensors, some of them `changed`."""
    gates = {"lstm": 4, "gru": 3}.get(kind, 1)
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "s": (5, 2, 3),
        "h": (1, 2, 4),
        "w0": (gates * 4, 3),
        "w1": (gates * 4, 4),
        "w2": (gates * 4,),
        "w3": (gates * 4,),
    } | changed
    given = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    states = "[h, h]" if kind == "lstm" else "h"
    return f"{kind}(s, {states}, [w0, w1, w2, w3], True, 1, 0.0, False, False, False)[0]", given


def test_factors_and_their_pivots_are_solved_as_torch_does() -> None:
    given = {"a": torch.tensor([[0.0, 2.0], [2.0, 0.0]]), "b": torch.tensor([[1.0], [3.0]])}
    text = "LD, pivots = linalg.ldl_factor(a)\nlinalg.ldl_solve(LD, pivots, b)"
    assert same(value_of(text, given=given), torch.linalg.ldl_solve(*torch.linalg.ldl_factor(given["a"]), given["b"]))
    text = "LU, pivots = linalg.lu_factor(a)\nlinalg.lu_solve(LU, pivots, b)"
    assert same(value_of(text, given=given), torch.linalg.lu_solve(*torch.linalg.lu_factor(given["a"]), given["b"]))


def test_padding_of_labels_may_be_anything() -> None:
    given = {"p": torch.zeros(3, 1, 2).log_softmax(2), "t": torch.tensor([[1, -1]])}
    given |= {"n": torch.tensor([3]), "m": torch.tensor([1])}
    expected = torch.nn.functional.ctc_loss(given["p"], given["t"], given["n"], given["m"])
    assert same(value_of("F.ctc_loss(p, t, n, m)", given=given), expected)


KINDS = ["lstm", "gru", "rnn_tanh", "rnn_relu"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_network_is_torchs(kind: str) -> None:
    text, given = network(kind)
    hx = (given["h"], given["h"]) if kind == "lstm" else given["h"]
    weights = [given[f"w{number}"] for number in range(4)]
    direct = getattr(torch, kind)(given["s"], hx, weights, True, 1, 0.0, False, False, False)[0]
    assert same(value_of(text, given=given), direct)


@over("kind", KINDS)
@over("name", ["w0", "w1", "w2", "w3", "h"])
@over("shape", [(1, 1), (1,), (0,), (0, 0, 0), (2, 3, 4, 5), ()])
def test_a_weight_or_state_of_another_shape_is_a_fault(kind: str, name: str, shape: tuple[int, ...]) -> None:
    text, given = network(kind, **{name: shape})
    assert "shape" in fault_of(text, given=given).message


@over("kind", KINDS)
@over(
    ("old", "new", "message"),
    [
        ("[w0, w1, w2, w3]", "[]", "`num_layers` is 1, but 0 weights are given"),
        ("[w0, w1, w2, w3]", "[w0, w1]", "expected 4 weights, but 2 are given"),
        ("[w0, w1, w2, w3], True", "[w0, w1, w2, w3], False", "expected 2 weights, but 4 are given"),
        ("True, 1,", "True, 2,", "a"),
        ("True, 1,", "True, 2 ** 62,", "`num_layers` is 4,611,686,018,427,387,904, but 4 weights are given"),
        ("True, 1,", "True, -1,", "`num_layers` is -1, but 4 weights are given"),
        ("False, False, False)", "False, True, False)", "a"),
        ("[w0,", "[w0.double(),", "different dtypes: float32, float64"),
    ],
)
def test_a_recurrent_network_with_another_number_of_weights_is_a_fault(
    kind: str, old: str, new: str, message: str
) -> None:
    text, given = network(kind)
    assert message in fault_of(text.replace(old, new), given=given).message


@over("kind", KINDS)
@over("sizes", ["[2, 2, 1]", "[2 ** 62, 3]", "[1, 2, 2]", "[2, 2, 2, -1]", "[0]"])
def test_sizes_of_a_packed_batch_have_to_fit(kind: str, sizes: str) -> None:
    text, given = network(kind, s=(6, 3))
    packed = text.replace("(s, ", f"(s, tensor({sizes}), ").replace("False, False, False)", "False, False)")
    assert "`batch_sizes` must start with the batch size" in fault_of(packed, given=given).message


@over("kind", KINDS)
@over("changed", ["w_ih", "w_hh", "b_ih", "b_hh", "hx"])
def test_a_recurrent_cell_checks_its_shapes(kind: str, changed: str) -> None:
    gates = {"lstm": 4, "gru": 3}.get(kind, 1)
    shapes: dict[str, Any] = {"s": (2, 3), "hx": (2, 4), "w_ih": (gates * 4, 3), "w_hh": (gates * 4, 4)}
    shapes |= {"b_ih": (gates * 4,), "b_hh": (gates * 4,)}
    states = "[hx, hx]" if kind == "lstm" else "hx"
    text = f"{kind}_cell(s, {states}, w_ih, w_hh, b_ih, b_hh)"
    right = {name: torch.ones(shape) for name, shape in shapes.items()}
    value_of(text + ("[0]" if kind == "lstm" else ""), given=right)
    fault = fault_of(text, given=right | {changed: torch.ones(1, 1)})
    assert "has shape (1, 1)" in fault.message


def test_a_value_that_native_code_trusts_is_looked_at_in_every_step() -> None:
    text = """\
parameters: {x: 1.0}
constants: {low: {init: [-9223372036854775808], dtype: int64}}
expression: loss = x + (low // (iteration - 3)).sum()
steps: [{repeat: {times: 4, steps: [forward]}}]
"""
    plan = runner.compile(runner.loads(text))
    with pytest.raises(runner.RunError, match=r"<stdin>:3:25 [^^]*\^+ -2\^63 divided by -1 does not fit into int64"):
        list(runner.execute(plan))
    assert tensors()


def test_a_guarded_division_by_a_running_scalar_is_still_only_an_operand() -> None:
    lowered = lower("y = k // (iteration - 5)\ny % iteration", given={"k": torch.tensor([5, 7])}, roles={}, tables={})
    apart = split_scalars(extract(lowered, ["y"]))
    (number,) = apart.numbers(None, 3)
    (value,) = apart.function(None, torch.tensor([5, 7]), torch.tensor(number))
    assert same(value, torch.tensor([5, 7]) // -2)
    with pytest.raises(RuntimeError, match=r"-2\^63 divided by -1 does not fit into int64"):
        apart.function(None, torch.tensor([-(2**63)]), torch.tensor(-1))
