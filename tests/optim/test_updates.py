"""Updates of whole groups have the bits of `torch.optim`'s own loop, whatever else happens to their weights."""

from __future__ import annotations

import copy
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from runner.optim.stepper import Stepper
from tests.tables import over

CLASSES = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
SHAPES = ((), (1,), (7,), (3, 5), (129,), (16, 4), (0, 3), (33, 2))
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).view(INTEGERS[tensor.dtype])


def same(found: Tensor, expected: Tensor) -> bool:
    """Bit for bit; a NaN is a NaN."""
    both = found.isnan() & expected.isnan()
    return found.shape == expected.shape and bool((both.reshape(-1) | (bits(found) == bits(expected))).all())


class Twins:
    """The same parameters under steprun's step and under torch's."""

    def __init__(self, seed: int) -> None:
        self.draw = draw = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        kind = draw.choice(CLASSES)
        options: dict[str, object] = {
            "lr": 10 ** draw.uniform(-4, 0),
            "weight_decay": draw.choice((0, 0.1)),
            "maximize": draw.random() < 0.3,
        }
        if kind is torch.optim.SGD:
            options["momentum"] = draw.choice((0, 0.9))
        else:
            options |= {"betas": (draw.uniform(0, 0.99), draw.uniform(0.5, 0.999)), "eps": draw.choice((1e-8, 0))}
        dtypes = [draw.choice(tuple(INTEGERS))] * draw.randint(1, 6)
        if draw.random() < 0.2:
            dtypes[0] = torch.float16  # which torch's own step takes
        elif draw.random() < 0.2:
            dtypes[0] = draw.choice(tuple(INTEGERS))
        self.ours = [Parameter(self.normal(draw.choice(SHAPES), dtype)) for dtype in dtypes]
        self.theirs = copy.deepcopy(self.ours)
        self.plain = kind(self.theirs, **options)  # type: ignore[arg-type]
        self.stepper = Stepper(kind(self.ours, **options), {str(n): held for n, held in enumerate(self.ours)})  # type: ignore[arg-type]

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(dtype) * 10 ** self.draw.uniform(-3, 2)

    def step(self, *, missing: bool = False) -> None:
        for number, (ours, theirs) in enumerate(zip(self.ours, self.theirs, strict=True)):
            gradient = self.normal(tuple(ours.shape), ours.dtype)
            if gradient.numel() and self.draw.random() < 0.05:
                gradient.view(-1)[0] = self.draw.choice((float("nan"), float("inf"), 1e-40, -0.0))
            there = not (missing and number == 0)
            ours.grad, theirs.grad = (gradient, gradient.clone()) if there else (None, None)
        self.stepper.step()
        self.plain.step()

    def replace(self) -> None:
        """Somebody else gives a parameter another weight."""
        value = self.normal(tuple(self.ours[0].shape), self.ours[0].dtype)
        self.ours[0].data, self.theirs[0].data = value, value.clone()

    def assert_same(self) -> None:
        for number, (ours, theirs) in enumerate(zip(self.ours, self.theirs, strict=True)):
            if ours.dtype not in INTEGERS:
                assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
                continue
            assert same(ours, theirs)
            expected = self.plain.state.get(theirs, {})
            found = self.stepper.state(str(number))
            assert list(found) == list(expected)
            for name, value in expected.items():
                assert (found[name] is None) is (value is None)
                assert value is None or same(found[name], value)  # type: ignore[arg-type]


KEPT = ("no weight", "every second weight", "all weights")


def kept(names: Sequence[str], whose: str) -> list[str]:
    """The names of the parameters of which somebody holds what a step replaces."""
    return {"no weight": [], "every second weight": list(names[1::2]), "all weights": list(names)}[whose]


@pytest.mark.parametrize("whose", KEPT)
@over("remembers", [False, True])
@over("seed", range(40))
def test_steps_have_the_bits_of_torch(seed: int, remembers: bool, whose: str) -> None:
    twins = Twins(seed)
    twins.stepper.remembers = remembers
    names = [str(number) for number in range(len(twins.ours))]
    keeps = kept(names, whose)
    twins.stepper.keep(keeps)
    for step in range(9):
        held = [(twins.ours[int(name)].detach(), twins.ours[int(name)].detach().clone()) for name in keeps]
        if step == 6:
            twins.replace()
        replaced = [weight.detach().clone() for weight in twins.ours]
        twins.step(missing=step == 4)
        twins.assert_same()
        assert all(torch.equal(shared.nan_to_num(), copied.nan_to_num()) for shared, copied in held)
        if remembers:
            for number, weight in enumerate(replaced):
                assert torch.equal(twins.stepper.before(str(number)).nan_to_num(), weight.nan_to_num())


def test_a_state_that_is_put_back_goes_on_in_the_same_bits() -> None:
    twins = Twins(3)
    for _ in range(4):
        twins.step()
    state = {str(n): copy.deepcopy(dict(twins.stepper.state(str(n)))) for n in range(len(twins.ours))}
    twins.stepper.load_state(state, twins.stepper.steps)
    for _ in range(3):
        twins.step()
        twins.assert_same()


def storages(parameters: list[Parameter]) -> int:
    """In how many pieces of memory parameters lie."""
    return len({parameter.untyped_storage().data_ptr() for parameter in parameters})


def adam(*shapes: tuple[int, ...], transposed: bool = False) -> tuple[Stepper, list[Parameter]]:
    """Adam after three steps."""
    parameters = [Parameter(torch.ones(shape).t() if transposed else torch.ones(shape)) for shape in shapes]
    stepper = Stepper(torch.optim.Adam(parameters), {str(number): held for number, held in enumerate(parameters)})
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.5)
        stepper.step()
    return stepper, parameters


@pytest.mark.parametrize("whose", ["no weight", "all weights"])
def test_joined_weights_are_aligned_as_tensors_of_their_own_are(whose: str) -> None:
    stepper, parameters = adam((3,), (5, 7), (), (17,))
    stepper.keep(kept("0123", whose))
    stepper.step()
    assert storages(parameters) == 1
    for parameter in parameters:
        assert parameter.data_ptr() % 64 == 0
        assert parameter.is_contiguous()


def test_who_keeps_some_weights_holds_no_others() -> None:
    stepper, parameters = adam((3,), (5,), (1000,), (7,))
    stepper.keep("01")
    stepper.step()
    assert storages(parameters) == 2
    assert parameters[0].untyped_storage().nbytes() == parameters[1].untyped_storage().nbytes() <= 128
    stepper.keep("2")
    stepper.step()
    assert storages(parameters[:3]) == 1
    assert storages(parameters) == 2


def test_between_joined_weights_stands_something_finite() -> None:
    stepper, parameters = adam((3,), (5,))
    for _ in range(50):
        stepper.step()
    joined = torch.empty(0).set_(parameters[0].untyped_storage())
    assert joined.numel() > sum(parameter.numel() for parameter in parameters)
    assert bool(joined.isfinite().all())
    assert math.isfinite(stepper.total())


def test_strided_parameters_are_left_to_torch() -> None:
    strided = Parameter(torch.ones(4, 3).t())
    stepper = Stepper(torch.optim.Adam([strided, other := Parameter(torch.ones(2))]), {"a": strided, "b": other})
    for _ in range(3):
        strided.grad, other.grad = torch.ones_like(strided), torch.ones_like(other)
        stepper.step()
    assert storages([strided, other]) == 2
    assert strided.stride() == (1, 3)


@over("remembers", [False, True])
@over(("whose", "joined"), [*zip(KEPT, (3, 2, 3), strict=True)])
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])  # two wait for each other busily
@pytest.mark.parametrize("small", [1, 3], ids=["apart", "with joined ones"])
def test_large_parameters_have_the_bits_of_torch_piece_by_piece(
    small: int, threads: int, whose: str, joined: int, remembers: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(700, 300), *((3, 5), (), (129,))[:small], (1 << 17,), (1 << 17,)]
    ours = [Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        stepper = Stepper(torch.optim.AdamW(ours, weight_decay=0.3), {str(n): held for n, held in enumerate(ours)})
        stepper.remembers, stepper.sums = remembers, True
        keeps = kept([str(n) for n in range(len(ours))], whose)
        stepper.keep(keeps)
        plain = torch.optim.AdamW(theirs, weight_decay=0.3)
        for _ in range(4):
            held = [(weight.detach(), weight.detach().clone()) for weight in ours]
            for one, other in zip(ours, theirs, strict=True):
                one.grad = torch.randn(one.shape, generator=generator)
                other.grad = one.grad.clone()
            stepper.step()
            plain.step()
            assert all(same(one, other) for one, other in zip(ours, theirs, strict=True))
            assert all(torch.equal(*held[int(name)]) for name in keeps)
            if remembers:
                assert all(torch.equal(stepper.before(str(n)), copied) for n, (_, copied) in enumerate(held))
            assert storages(ours) == len(ours) - (joined - 1 if small > 1 else 0)
    finally:
        torch.set_num_threads(before)


WATCHED = {
    "joined": [(3,), (5, 2)],
    "large": [(1 << 17,), (300, 1000)],
    "both": [(3,), (1 << 17,), (5, 2), (300, 1000)],
    "torch's own": [(4, 3)],
}


@over("kind", WATCHED)
@over("whose", KEPT)
def test_a_total_is_finite_only_where_each_weight_is(kind: str, whose: str) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        for number, shape in enumerate(WATCHED[kind]):
            stepper, parameters = adam(*WATCHED[kind], transposed=kind == "torch's own")
            stepper.sums = True
            stepper.keep(kept([str(n) for n in range(len(parameters))], whose))
            stepper.step()
            assert math.isfinite(stepper.total())
            with torch.no_grad():
                parameters[number][(-1,) * len(shape)] = bad
            stepper.step()
            assert not math.isfinite(stepper.total())
            assert not torch.isfinite(parameters[number]).all()


def test_momentum_that_begins_later_begins_as_in_torch() -> None:
    ours = [Parameter(torch.ones(3)), Parameter(torch.ones(2))]
    theirs = copy.deepcopy(ours)
    stepper = Stepper(torch.optim.SGD(ours, lr=0.1), {"a": ours[0], "b": ours[1]})
    plain = torch.optim.SGD(theirs, lr=0.1)
    for step in range(7):
        momentum = 0.9 if 2 <= step < 5 else 0.0
        stepper.set_option(0, "momentum", momentum)
        plain.param_groups[0]["momentum"] = momentum
        for one, other in zip(ours, theirs, strict=True):
            one.grad, other.grad = one.detach() + step, other.detach() + step
        stepper.step()
        plain.step()
        assert all(same(one, other) for one, other in zip(ours, theirs, strict=True))


def test_where_an_option_has_come_to_need_torchs_own_step_that_is_taken() -> None:
    stepper, ours = adam((3,), (2,))
    theirs = copy.deepcopy(ours)
    plain = torch.optim.Adam(theirs, amsgrad=True)
    state = {}
    for number, other in enumerate(theirs):
        kept = dict(stepper.state(str(number))) | {"max_exp_avg_sq": torch.full_like(other, 0.1)}
        state[str(number)], plain.state[other] = copy.deepcopy(kept), copy.deepcopy(kept)
    stepper.set_option(0, "amsgrad", True)
    stepper.load_state(state, 3)
    for one, other in zip(ours, theirs, strict=True):
        one.grad, other.grad = one.detach().clone(), other.detach().clone()
    stepper.step()
    plain.step()
    assert all(same(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_count_of_steps_that_is_no_whole_number_is_torchs_own() -> None:
    ours = [Parameter(torch.ones(3)), Parameter(torch.ones(2))]
    theirs = copy.deepcopy(ours)
    stepper = Stepper(torch.optim.Adam(ours), {"a": ours[0], "b": ours[1]})
    plain = torch.optim.Adam(theirs)
    for optimizer, held in ((stepper.optimizer, ours), (plain, theirs)):
        for parameter in held:
            zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(2.5), **zeros}
    for step in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad, other.grad = one.detach() + step, other.detach() + step
        stepper.step()
        plain.step()
        assert all(same(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_vector_instructions_have_their_bits_too(capability: str) -> None:
    script = """
from tests.optim.test_updates import Twins
for seed in range(25):
    twins = Twins(seed)
    for step in range(6):
        twins.step()
        twins.assert_same()
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
