"""What torch does at the edges: NaN, ties, empty tensors, tensors without dimensions, dtypes that change."""

from __future__ import annotations

import pytest
import torch

from tests.engine.xla.operators.calls import Call, assert_same

inf, nan = float("inf"), float("nan")
NUMBERS = torch.tensor([[3.0, nan, 1.0], [2.0, 2.0, -inf], [inf, 5.0, 5.0], [-2.0, 0.0, -1.0]], dtype=torch.float64)
FINITE = torch.tensor([[3.0, -2.0, 1.0], [2.0, 2.0, -4.0]], dtype=torch.float64)
TIES = torch.tensor([[2, 1, 2, 1], [0, 0, 0, 0]], dtype=torch.int32)
FLAGS = torch.tensor([[True, False], [False, False]])
BYTES = torch.tensor([100, 100, -128], dtype=torch.int8)
EMPTY = torch.zeros(0, 3)
SINGLE = torch.tensor(2.5)
HALF = torch.tensor([1.0, 1e-3, 257.0, -3.0], dtype=torch.bfloat16)


def same(*calls: Call) -> None:
    assert assert_same(calls) == len(calls)


@pytest.mark.slow
def test_promotion_follows_categories_and_dimensions() -> None:
    whole, wide = torch.tensor([1, 2]), torch.tensor(2.5, dtype=torch.float64)
    same(
        ("aten.add.Tensor", whole, SINGLE),
        ("aten.add.Tensor", torch.ones(2), wide),
        ("aten.mul.Tensor", HALF, wide),
        ("aten.mul.Tensor", HALF, 0.1),
        ("aten.add.Tensor", whole, 1.5),
        ("aten.add.Tensor", FLAGS, FLAGS),
        ("aten.add.Tensor", BYTES, BYTES),
        ("aten.add.Tensor", BYTES, 1, {"alpha": 2}),
        ("aten.sub.Tensor", FINITE, FINITE, {"alpha": 0.5}),
        ("aten.div.Tensor", whole, 2),
        ("aten.div.Tensor_mode", whole, -2.0, {"rounding_mode": "floor"}),
        ("aten.div.Tensor_mode", BYTES, 3, {"rounding_mode": "trunc"}),
        ("aten.div.Tensor_mode", BYTES, -3, {"rounding_mode": "floor"}),
        ("aten.div.Tensor_mode", NUMBERS, 2, {"rounding_mode": "floor"}),
        ("aten.remainder.Scalar", FINITE, -1.5),
        ("aten.fmod.Scalar", FINITE, -1.5),
        ("aten.remainder.Scalar", torch.tensor([7, -7]), -4),
        ("aten.sqrt.default", whole),
        ("aten.sigmoid.default", FLAGS),
        ("aten.eq.Tensor", whole, torch.tensor(1.0)),
        ("aten.lt.Scalar", torch.tensor([2], dtype=torch.uint8), -1),
        ("aten.gt.Scalar", torch.tensor([2]), 2.5),
        ("aten.pow.Scalar", 2, torch.tensor([3, 0])),
        ("aten.pow.Tensor_Scalar", whole, 0.5),
        ("aten.where.self", torch.tensor([True, False]), whole, torch.tensor(0.5)),
        ("aten.clamp.default", NUMBERS, 1, 2.5),
        ("aten.clamp.Tensor", NUMBERS, torch.tensor([nan, 0.0, 1.0]), None),
        ("aten.maximum.default", NUMBERS, NUMBERS.flip(1)),
        ("aten.fmin.default", NUMBERS, NUMBERS.flip(1)),
    )


def test_conversions_wrap_round_and_cut_as_torch_does() -> None:
    numbers = torch.tensor([0.0, -1.5, 2.5, 255.0, 300.0, -3.0])
    calls: list[Call] = [
        ("aten._to_copy.default", x, {"dtype": dtype})
        for x in (numbers, torch.tensor([0, -1, 300, 2**40 + 1]), FLAGS, torch.tensor([1 + 2j, 0j]))
        for dtype in (torch.int8, torch.uint8, torch.int64, torch.bool, torch.float32, torch.bfloat16)
    ]
    calls += [
        ("aten._to_copy.default", torch.tensor([nan, inf, 0.0]), {"dtype": torch.bool}),
        ("aten.scalar_tensor.default", True, {"dtype": torch.float32}),
        ("aten.full.default", [2], inf, {"dtype": torch.bfloat16}),
        ("aten.arange.start_step", 0, 1, 0.3, {"dtype": torch.float32}),
        ("aten.arange.start_step", 5, -5, -3, {"dtype": torch.int64}),
        ("aten.view.dtype", torch.tensor([1.0, -0.0]), torch.int32),
        ("aten.view.dtype", torch.tensor([[1.0, -0.0]]), torch.int64),
    ]
    same(*calls)


@pytest.mark.slow
def test_reductions_of_integers_nan_and_nothing() -> None:
    same(
        ("aten.sum.dim_IntList", FLAGS, [0]),
        ("aten.sum.dim_IntList", BYTES, None),
        ("aten.sum.dim_IntList", BYTES, [], {"dtype": torch.int8}),
        ("aten.sum.dim_IntList", HALF, [-1], True),
        ("aten.sum.default", EMPTY),
        ("aten.prod.default", BYTES),
        ("aten.prod.dim_int", TIES, -1, True),
        ("aten.mean.dim", EMPTY, [0]),
        ("aten.mean.default", HALF),
        ("aten.amax.default", NUMBERS, [1]),
        ("aten.amin.default", NUMBERS, []),
        ("aten.max.dim", NUMBERS, 1),
        ("aten.min.dim", NUMBERS, 0, True),
        ("aten.max.dim", SINGLE, 0),
        ("aten.max.dim", TIES, 1),
        ("aten.argmax.default", NUMBERS),
        ("aten.argmax.default", NUMBERS, 1, True),
        ("aten.argmin.default", TIES, -1),
        ("aten.argmax.default", SINGLE, 0),
        ("aten.any.dim", NUMBERS, 1),
        ("aten.any.default", EMPTY),
        ("aten.any.dims", FLAGS, [0, 1], True),
        ("aten.var.correction", FINITE, [1], {"correction": 0}),
        ("aten.var.correction", FINITE, None),
        ("aten.var.correction", FINITE, [0], {"correction": 5}),
        ("aten.var_mean.correction", FINITE, [1], {"keepdim": True}),
        ("aten.cumsum.default", BYTES, 0),
        ("aten.cumsum.default", SINGLE, 0),
        ("aten.cumsum.default", EMPTY, 1),
        ("aten.cumprod.default", TIES, -1),
        ("aten.cummax.default", NUMBERS, 1),
        ("aten.cummin.default", TIES, 1),
        ("aten.cummax.default", EMPTY, 0),
        ("aten.logcumsumexp.default", torch.tensor([-inf, -inf, 1.0, 2.0]), 0),
        *(("aten.linalg_vector_norm.default", FINITE, order, [1]) for order in (0, 1, 2, 3.5, inf, -inf)),
        ("aten._softmax.default", torch.tensor([[-inf, -inf], [inf, 0.0], [0.0, nan]]), 1, False),
        ("aten._log_softmax.default", torch.tensor([[-inf, 0.0], [1000.0, 0.0]]), -1, False),
        ("aten._softmax.default", SINGLE, 0, False),
    )


@pytest.mark.slow
def test_nan_is_the_largest_and_sorting_is_stable() -> None:
    values = torch.tensor([1.0, nan, -inf, 1.0, inf, -0.0, 0.0, nan])
    same(
        ("aten.sort.stable", values, {"stable": True, "dim": 0, "descending": False}),
        ("aten.sort.stable", values, {"stable": True, "dim": -1, "descending": True}),
        ("aten.sort.stable", TIES, {"stable": True, "dim": 1, "descending": True}),
        ("aten.sort.default", SINGLE, 0, True),
        ("aten.topk.default", torch.tensor([1.0, nan, 3.0]), 2),
        ("aten.topk.default", torch.tensor([[1.0, nan, 3.0]]), 2, 1, False),
        ("aten.kthvalue.default", torch.tensor([4.0, nan, 3.0]), 3),
        ("aten.median.dim", torch.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, nan, 0.0, 2.0]]), 1),
        ("aten.nanmedian.dim", torch.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, nan, 0.0, 2.0]]), 1, True),
        ("aten.median.default", torch.tensor([4, 1, 3, 2])),
        ("aten.mode.default", torch.tensor([[3, 1, 3, 1, 2]]), 1),
        ("aten.bucketize.Tensor", torch.tensor([0.5, 1.0, nan, 9.0]), torch.tensor([0.0, 1.0, 2.0])),
        ("aten.searchsorted.Tensor", torch.tensor([1, 2, 2, 3]), torch.tensor([2, 4]), {"right": True}),
    )


def test_views_joins_and_padding_of_every_shape() -> None:
    image = torch.arange(12.0).reshape(3, 4)
    same(
        ("aten.slice.Tensor", image, -1, -3, 100, 2),
        ("aten.slice.Tensor", image, 0, 5, 2),
        ("aten.select.int", image, -1, -2),
        ("aten.diagonal.default", image, -1),
        ("aten.diagonal_scatter.default", image, torch.tensor([9.0, 8.0]), -1),
        ("aten.slice_scatter.default", image, torch.zeros(3, 2), 1, 0, None, 2),
        ("aten.select_scatter.default", image, torch.ones(4, dtype=torch.int64), 0, -1),
        ("aten.cat.default", [torch.zeros(0), image, image.int()], -1),
        ("aten.constant_pad_nd.default", image, [1, -2, -1, 2], 7),
        ("aten.expand.default", SINGLE, [2, 3]),
        ("aten.repeat.default", torch.tensor([1, 2]), [2, 1, 2]),
        ("aten.flip.default", image, [-1, 0]),
        ("aten.permute.default", image, [-1, 0]),
        ("aten.as_strided_copy.default", image, [2, 3], [1, 4], 1),
        ("aten.unfold.default", image, 1, 3, 1),
        ("aten.split_with_sizes.default", image, [1, 0, 2]),
        ("aten.unbind.int", image, 1),
        ("aten.squeeze.dims", torch.zeros(1, 2, 1), [0, 1, -1]),
        ("aten.tril_indices.default", 3, 2, -1),
        ("aten.view.default", EMPTY, [3, 0]),
    )


@pytest.mark.slow
def test_indices_may_repeat_and_count_from_the_end() -> None:
    table, twice = torch.arange(6.0).reshape(3, 2), torch.tensor([2, 0, 2])
    index = torch.tensor([[0, 1], [2, 1]])
    same(
        ("aten.index.Tensor", table, [torch.tensor([-1, 0]), None]),
        ("aten.index.Tensor", torch.zeros(2, 3, 4), [torch.tensor([1]), None, torch.tensor([[0], [3]])]),
        ("aten.index.Tensor", table, [torch.zeros(0, dtype=torch.int64)]),
        ("aten.index_put.default", table, [twice], torch.ones(2), True),
        ("aten.index_put.default", table, [torch.tensor([-1]), torch.tensor([1])], torch.tensor(9.0)),
        ("aten.index_put.default", table, [table > 2], torch.tensor([7.0]), True),
        ("aten.index_select.default", table, -2, twice),
        ("aten.gather.default", table, 0, index),
        ("aten.scatter_add.default", table, 0, torch.tensor([[0, 0], [0, 2]]), torch.ones(3, 2)),
        ("aten.scatter.value", table, 0, index, -1),
        ("aten.scatter.src", table, 1, torch.tensor([[1], [0]]), torch.tensor([[8], [9]]).float()),
        *(
            ("aten.scatter_reduce.two", table, 0, index, torch.full((2, 2), 3.0), how, {"include_self": own})
            for how in ("sum", "prod", "mean", "amax", "amin")
            for own in (True, False)
        ),
        ("aten.scatter_reduce.two", TIES, 0, TIES[:1].long() * 0, TIES[:1], "mean", {"include_self": True}),
        ("aten.put.default", table, torch.tensor([-1, 0]), torch.tensor([5.0, 6.0])),
        ("aten.embedding.default", table, index),
        ("aten.embedding_dense_backward.default", torch.ones(2, 2, 2), index, 3, 1, True),
        ("aten.masked_scatter.default", table, table > 1, torch.arange(10.0)),
    )


def test_products_ignore_a_bias_whose_factor_is_zero() -> None:
    x, y = torch.ones(2, 3), torch.ones(3, 2)
    same(
        ("aten.addmm.default", torch.full((2,), nan), x, y, {"beta": 0, "alpha": 2}),
        ("aten.addmm.default", torch.ones(2), x, y, {"beta": 0.5}),
        ("aten.mm.default", torch.zeros(2, 0), torch.zeros(0, 3)),
        ("aten.bmm.default", torch.ones(2, 1, 3, dtype=torch.int64), torch.ones(2, 3, 1, dtype=torch.int64)),
        ("aten.convolution.default", torch.ones(1, 2, 5), torch.ones(4, 1, 2), None, [2], [1], [2], False, [0], 2),
        ("aten.convolution.default", torch.ones(1, 2, 3), torch.ones(2, 1, 2), None, [2], [0], [1], True, [1], 2),
        ("aten.avg_pool2d.default", torch.ones(1, 5, 5), [3], [2], [1], True, False),
        ("aten.max_pool2d_with_indices.default", torch.full((1, 4, 4), -inf), [3, 2], [2], [1], [1], True),
        ("aten.native_layer_norm.default", FINITE, [3], None, None, 1e-5),
    )


def test_a_histogram_has_both_of_its_ends() -> None:
    numbers = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.5, 3.0, 3.5])
    same(
        ("aten.histc.default", numbers, 3, 0, 3),
        ("aten.histc.default", numbers, 4, 0, 0),
        ("aten.histc.default", torch.full((3,), 2.0), 2, 0, 0),
    )


@pytest.mark.slow
def test_polygamma_and_zeta_have_the_values_of_torch_left_of_zero() -> None:
    """Beyond the ninth pole too, at the poles, and far from them."""
    generator = torch.Generator().manual_seed(1)
    between = -30 * torch.rand(40, generator=generator, dtype=torch.float64)
    x = torch.cat([between, torch.tensor([0, -0.0, -1, -2, -9, -12, -0.5, -1000.25, 5, inf, -inf, nan]).double()])
    calls: list[Call] = [
        ("aten.polygamma.default", n, x.to(dtype)) for n in range(6) for dtype in (torch.float64, torch.float32)
    ]
    orders = torch.tensor([-2, 0, 0.5, 1, 1.5, 2, 3, 7, nan], dtype=torch.float64)
    same(*calls, ("aten.special_zeta.default", orders[:, None], x))
