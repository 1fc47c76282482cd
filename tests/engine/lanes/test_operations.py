"""Operations on tensors of lanes, against the same operations on the tensor of each lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter, functional

from runner.engine.lanes.operations.alone import lane_of
from runner.engine.lanes.operations.choosing import Choosing
from runner.engine.lanes.operations.same_bits import same_bits
from runner.engine.lanes.operations.tensor import LaneNumber, LaneTensor, NotStackable, handled_by
from runner.optim.updates import ALIGNMENT

LANES = 7


def no_draws(operation: Any, args: Any, kwargs: Any) -> Any:
    raise AssertionError(operation)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def given(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn((LANES, *shape), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_lanes(function: Callable[..., Tensor], *stacks: Tensor, exact: bool = True) -> None:
    """The results and the gradients of all lanes are those of each alone."""
    with handled_by(Choosing(exact, no_draws).run):
        leaves = [Parameter(LaneTensor(stack.clone())) for stack in stacks]
        result = function(*leaves)
        result.square().sum().backward()
        found = [result.detach().lanes, *[leaf.grad.lanes for leaf in leaves]]  # type: ignore[attr-defined, union-attr]
    for lane in range(LANES):
        alone = [Parameter(stack[lane].clone()) for stack in stacks]
        value = function(*alone)
        value.square().sum().backward()
        for one, other in zip(found, [value.detach(), *[leaf.grad for leaf in alone]], strict=True):
            assert other is not None
            if exact:
                assert same_bits(one[lane], other)
            else:
                torch.testing.assert_close(one[lane], other)


SHAPES = [(3,), (5,), (16,), (33,), (64,)]

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "arithmetic": lambda x: (2 * x - x / 3 + 1) * -x,
    "transcendental": lambda x: x.sigmoid() + x.tanh() + functional.silu(x) + x.exp(),
    "power": lambda x: x.abs() ** 1.5 + x**3,
    "softmax": lambda x: torch.softmax(x, 0),
    "mean and deviation": lambda x: (x - x.mean()) / x.std(),
    "norm": lambda x: x / torch.linalg.vector_norm(x),
    "slices": lambda x: x[1:] * x[:-1] + x[0],
    "sorted": lambda x: x.sort().values,
    "masked": lambda x: torch.where(x > 0, x, x * 0.1).clamp(-1, 1),
    "cumulative": lambda x: x.cumsum(0),
    "scaled sums": lambda x: torch.sub(torch.add(x, x * x, alpha=0.3), x.tanh(), alpha=1 / 3),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_lane_has_the_bits_of_the_operation_alone(name: str, shape: tuple[int, ...]) -> None:
    assert_lanes(FUNCTIONS[name], given(*shape))


@pytest.mark.parametrize("size", [1, 3, 8, 16, 40])
def test_products_of_matrices_have_the_bits_of_each_alone(size: int) -> None:
    shared = torch.randn(9, size, generator=torch.Generator().manual_seed(3))
    assert_lanes(lambda w: shared @ w, given(size, size))
    assert_lanes(lambda w, b: functional.linear(shared, w, b), given(size, size), given(size, seed=1))
    assert_lanes(lambda w, v: w @ v, given(size, size), given(size, seed=1))


def test_losses_and_layers_have_the_bits_of_each_alone() -> None:
    labels = torch.arange(9) % 4
    assert_lanes(lambda x: functional.cross_entropy(x, labels), given(9, 4))
    assert_lanes(lambda x, w: functional.layer_norm(x, (4,), w), given(9, 4), given(4, seed=1))
    images = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    assert_lanes(lambda w: functional.max_pool2d(functional.conv2d(images, w), 2), given(3, 2, 3, 3))


def test_a_0d_tensor_of_another_dtype_keeps_the_dtype_of_the_result() -> None:
    wide = torch.tensor(1 / 3, dtype=torch.float64)
    assert_lanes(lambda x: x * wide, given(5))
    assert_lanes(lambda x, y: x * y, given(5), given(dtype=torch.float64, seed=1))


def test_a_number_of_each_lane_fills_what_is_masked() -> None:
    assert_lanes(lambda x, y: x.masked_fill(x > 0, y), given(5), given(seed=1))
    assert_lanes(lambda x, y: x.masked_fill(x > 0, y), given(), given(seed=1))


def test_an_operand_may_be_given_by_name() -> None:
    stack, values = given(9), given(4, seed=1)
    order = stack.argsort(1)
    with handled_by(Choosing(True, no_draws).run):
        found = torch.ops.aten.searchsorted.Tensor(LaneTensor(stack), LaneTensor(values), sorter=LaneTensor(order))
    expected = [torch.searchsorted(*each[:2], sorter=each[2]) for each in zip(stack, values, order, strict=True)]
    assert torch.equal(found.lanes, torch.stack(expected))


@pytest.mark.parametrize("shape", [(5,), (LANES,)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lanes_may_be_close_only(name: str, shape: tuple[int, ...]) -> None:
    assert_lanes(FUNCTIONS[name], given(*shape), exact=False)


@pytest.mark.parametrize("rows", [1, 4, LANES])  # as many rows as lanes: a wrong dimension would fit
def test_products_and_layers_that_may_be_close_only_are_computed_at_once(rows: int) -> None:
    """With bits a rule that is wrong would only be slow: the trial refuses it."""
    shared = torch.randn(rows, 5, generator=torch.Generator().manual_seed(3))
    gains = torch.randn(4, generator=torch.Generator().manual_seed(4))
    linear = given(4, 5), given(4, seed=1)
    assert_lanes(lambda w, b: functional.linear(shared, w, b), *linear, exact=False)
    assert_lanes(lambda w, v: w @ v, given(rows, 5), given(5, rows, seed=1), exact=False)
    assert_lanes(lambda x: x.sum(0) * x.mean(), given(rows, 4), exact=False)
    assert_lanes(lambda x, b: functional.layer_norm(x, (4,), gains, b), given(rows, 4), given(4, seed=1), exact=False)
    choosing = Choosing(False, no_draws)
    with handled_by(choosing.run), torch.no_grad():
        functional.linear(shared, *map(LaneTensor, linear))
    with handled_by(choosing.run):  # the gradient of `gains` is None, between two that exist
        x, bias = Parameter(LaneTensor(given(rows, 4))), Parameter(LaneTensor(given(4, seed=1)))
        functional.layer_norm(x, (4,), gains, bias).sum().backward()
    assert choosing.chosen
    assert None not in choosing.chosen.values()


def test_writing_in_place_writes_all_lanes_and_their_views() -> None:
    stack = given(4)
    with handled_by(Choosing(True, no_draws).run):
        tensor = LaneTensor(stack.clone())
        view = tensor[1:]
        view.mul_(2).add_(1, alpha=3)
        tensor[0] = 5.0
    expected = stack.clone()
    expected[:, 1:] = expected[:, 1:] * 2 + 3
    expected[:, 0] = 5
    torch.testing.assert_close(tensor.lanes, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: float(x.sum()), "a number is read back from a tensor"),
        (lambda x: bool((x > 0).all()), "a number is read back from a tensor"),
        (lambda x: x[x > 0], "aten.index.Tensor gives other shapes in each run"),
        (lambda x: x.unsqueeze_(0), "aten.unsqueeze_.default writes in place"),
        (lambda x: torch.zeros(4).add_(x), "aten.add_.Tensor writes into a tensor that all runs share"),
    ],
)
def test_what_lanes_cannot_compute_is_named(function: Callable[[Tensor], object], message: str) -> None:
    with handled_by(Choosing(True, no_draws).run), pytest.raises(NotStackable, match=message):
        function(LaneTensor(given(4)))


def test_the_number_of_a_tensor_is_that_of_each_lane() -> None:
    stack = given()
    with handled_by(Choosing(True, no_draws).run):
        total = 0.5 + LaneTensor(stack).item() * 3
        assert total.lanes.tolist() == [0.5 + value * 3 for value in stack.tolist()]


def test_a_number_of_each_lane_is_rounded_to_the_dtype_of_the_tensor_and_refused_in_16_bits() -> None:
    numbers = torch.tensor([1 / 3 + lane for lane in range(LANES)], dtype=torch.float64)
    with handled_by(Choosing(True, no_draws).run):
        for dtype in (torch.float32, torch.float64):
            stack = given(3, dtype=dtype)
            found = LaneTensor(stack) / LaneNumber(numbers)
            for lane, number in enumerate(numbers.tolist()):
                assert same_bits(found.lanes[lane], stack[lane] / number)
        with pytest.raises(NotStackable, match="reads a number that differs between runs"):
            LaneTensor(given(3, dtype=torch.bfloat16)) * LaneNumber(numbers)


def test_the_tensor_of_one_lane_is_aligned_as_that_of_a_run_alone() -> None:
    stack = given(5)
    parts = [lane_of(LaneTensor(stack), lane) for lane in range(LANES)]
    assert [part.data_ptr() % ALIGNMENT for part in parts] == [0] * LANES
    assert torch.equal(torch.stack(parts), stack)


def test_bits_tell_zero_from_minus_zero_and_take_nan_as_nan() -> None:
    zero, nan = torch.zeros(1), torch.full((1,), torch.nan)
    assert not same_bits(zero, -zero)
    assert same_bits(nan, nan.clone())
    assert not same_bits(zero, nan)
