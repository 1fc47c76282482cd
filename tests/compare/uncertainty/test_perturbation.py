"""Perturbed rounding: what moves, by how much, and what must not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from runner.compare.numbers.ulp import same_bits
from runner.compare.uncertainty.perturbation import TABLES, Perturbation
from tests.tables import over

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def moved(compute: Callable[[], Tensor], seed: int = 1) -> tuple[Tensor, Tensor]:
    """A result, plain and perturbed."""
    plain = compute()
    with Perturbation(seed):
        perturbed = compute()
    return plain, perturbed


def relative(plain: Tensor, perturbed: Tensor) -> Tensor:
    """Differences in units of the dtype's rounding of each number."""
    wide = plain.to(torch.float64)
    return ((perturbed.to(torch.float64) - wide) / wide / torch.finfo(plain.dtype).eps).abs()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_quotient_moves_by_one_unit_half_of_the_time(dtype: torch.dtype) -> None:
    x = torch.linspace(1, 2, 4000, dtype=torch.float64).to(dtype)
    units = relative(*moved(lambda: x / 3))
    assert float(units.max()) <= 1.5  # a unit of rounding at 1 is up to two units in the last place elsewhere
    assert 0.45 < float((units > 0).double().mean()) < 0.55


def test_transcendental_functions_move_by_up_to_two_units() -> None:
    x = torch.linspace(0.1, 3, 4000)
    units = relative(*moved(x.exp))
    assert 1.5 < float(units.max()) <= 2.5


@pytest.mark.parametrize("value", [0.0, -0.0, torch.inf, -torch.inf, torch.nan])
def test_zeros_infinities_and_nan_stay(value: float) -> None:
    x = torch.full((100,), value)
    for compute in (lambda: x * 3, lambda: x / 7, lambda: x + x, lambda: x.sum(), lambda: x @ x):
        plain, perturbed = moved(compute)
        assert same_bits(plain.nan_to_num(nan=5.0), perturbed.nan_to_num(nan=5.0))
        assert torch.equal(plain.isnan(), perturbed.isnan())


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "abs": torch.abs,
    "where": lambda x: torch.where(x > 0, x, -x),
    "max": lambda x: x.max(dim=0).values,
    "sort": lambda x: x.sort().values,
    "index": lambda x: x[torch.tensor([2, 0])],
    "cat": lambda x: torch.cat([x, x]),
    "view": lambda x: x.reshape(2, -1).mT,
    "pool": lambda x: torch.nn.functional.max_pool1d(x[None, None], 2),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "round": torch.round,
    "float16": lambda x: x.to(torch.float16),
    "embedding": lambda x: torch.nn.functional.embedding(torch.tensor([1, 1]), x[:, None]),
    "index_put": lambda x: x.clone().index_put_((torch.tensor([1]),), torch.tensor([3.0])),
}


@over("name", COPIES)
def test_what_copies_or_selects_does_not_move(name: str) -> None:
    x = torch.randn(6, generator=torch.Generator().manual_seed(0))
    plain, perturbed = moved(lambda: COPIES[name](x))
    assert same_bits(plain, perturbed)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(50),
        lambda: torch.empty(50).uniform_(-2, 5),
        lambda: torch.bernoulli(torch.full((50,), 0.3)),
        lambda: torch.randint(0, 9, (50,)),
        lambda: torch.randperm(50),
    ],
)
def test_even_draws_do_not_move_and_the_stream_goes_on_as_without(draw: Callable[[], Tensor]) -> None:
    torch.manual_seed(3)
    plain, after = draw(), torch.rand(3)
    torch.manual_seed(3)
    with Perturbation(1):
        perturbed = draw()
    assert same_bits(plain, perturbed)
    assert same_bits(after, torch.rand(3))


def test_normal_draws_move_by_units_of_their_deviation_however_near_to_zero_they_are() -> None:
    def draw() -> Tensor:
        torch.manual_seed(0)
        return torch.empty(20_000).normal_(0, 10)

    plain, perturbed = moved(draw)
    units = (perturbed.double() - plain.double()) / 10 / torch.finfo(torch.float32).eps
    assert 0.7 < float(units.square().mean().sqrt()) < 2
    near = plain.abs() < 0.1
    assert 0.7 < float(units[near].square().mean().sqrt()) < 2


@over(
    "change",
    [
        lambda x: x.add_(torch.zeros(6)),
        lambda x: x.mul_(1.0),
        lambda x: x.addcdiv_(torch.zeros(6), torch.ones(6)),
        lambda x: torch._foreach_add_([x], [torch.ones(6)], alpha=0.0),
        lambda x: torch._foreach_add([x], [torch.ones(6)], alpha=0.0)[0],
        lambda x: torch.add(x, torch.ones(6), alpha=0.0),
        lambda x: x - 0.0,
        lambda x: x.lerp(x + 1, 0.0),
    ],
)
def test_what_an_update_leaves_as_it_was_stays(change: Callable[[Tensor], object]) -> None:
    x = torch.randn(6, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with Perturbation(5):
        found = change(x)
    assert same_bits(found if isinstance(found, Tensor) else x, before)


def test_what_is_left_of_terms_that_cancel_is_as_uncertain_as_the_terms() -> None:
    x = torch.tensor([1e4, 1.0, -1e4])
    spread = []
    for seed in range(50):
        with Perturbation(seed):
            spread.append(float(x.sum()) - 1.0)
    rms = (sum(each * each for each in spread) / len(spread)) ** 0.5
    assert 1e4 * 2**-24 < rms < 4 * 1e4 * 2**-23


def test_complex_numbers_move_in_both_parts() -> None:
    x = torch.linspace(1, 2, 500).to(torch.complex64) * (1 + 2j)
    plain, perturbed = moved(lambda: x * (0.3 + 0.7j))
    for part in (torch.real, torch.imag):
        assert 0 < float(relative(part(plain), part(perturbed)).max()) <= 1.5


def test_the_backward_pass_moves_too() -> None:
    x = torch.linspace(0.5, 2, 200, requires_grad=True)

    def gradient() -> Tensor:
        (found,) = torch.autograd.grad(x.sin().sum(), x)
        return found

    assert 0 < float(relative(*moved(gradient)).max()) <= 6


def test_a_seed_perturbs_alike_and_another_one_does_not() -> None:
    x = torch.linspace(1, 2, 300_000)
    runs = []
    for seed in (7, 7, 8):
        with Perturbation(seed):
            runs.append(x / 3)
    assert same_bits(runs[0], runs[1])
    assert not same_bits(runs[0], runs[2])


def test_every_named_operation_is_one_of_aten() -> None:
    names = {name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")}
    bare = {name.partition(".")[0].removeprefix("_foreach_").rstrip("_") for name in names}
    for section, operations in TABLES.items():
        assert sorted(operations - bare) == [], section
    sections = list(TABLES.values())
    assert sum(map(len, sections)) == len(frozenset().union(*sections)), "an operation stands in two sections"


@pytest.mark.slow  # torch imports its references for such a sum
def test_zeros_of_a_derivative_that_have_no_memory_do_not_change() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    with Perturbation(0):
        (slope,) = torch.autograd.grad((x.abs() ** 2).sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(curvature, torch.tensor([2.0, 2.0]))


@pytest.mark.slow
def test_a_run_without_measurement_does_not_import_it() -> None:
    code = (
        "import sys; from runner.cli.main import main; main(['check', 'configs/linear.yaml']);"
        "assert 'torch._dynamo' not in sys.modules; assert 'runner.compare.uncertainty.perturbation' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("terms", "units"), [(4, 1), (100, 1), (1920, 2), (40_000, 4), (1_000_000, 4)])
def test_a_long_sum_of_one_sign_moves_as_far_as_sixteen_accumulators_round(terms: int, units: int) -> None:
    plain = torch.full((terms,), 0.7).sum()
    spread = []
    for seed in range(40):
        with Perturbation(seed):
            spread.append(float(torch.full((terms,), 0.7).sum()) / float(plain) - 1)
    eps = torch.finfo(torch.float32).eps
    assert max(map(abs, spread)) < (units + 1.5) * eps
    assert max(map(abs, spread)) > (units - 0.6) * eps


def test_a_loss_is_a_sum_and_what_is_not_reduced_is_none() -> None:
    x, y = torch.linspace(1, 2, 4000), torch.zeros(4000)
    for reduction, most in (("mean", 3.5), ("none", 2.5)):
        plain, perturbed = moved(lambda reduction=reduction: torch.nn.functional.mse_loss(x, y, reduction=reduction))
        assert float(relative(plain, perturbed).max()) <= most
