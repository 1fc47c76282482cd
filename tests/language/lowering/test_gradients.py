"""`grad(y, x)` is torch's derivative, itself differentiable, and zeros where nothing is used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from runner.language.graph.computation import extract
from tests.language.lowering import compute, fault_of, lower, same, tensors, value_of
from tests.tables import over


def _derivative(function: Callable[..., Tensor], *xs: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().clone().requires_grad_() for x in xs]
    return torch.autograd.grad(function(*leaves), leaves)


T = {name: tensor.detach() for name, tensor in tensors().items()}
X, W, B, C = T["x"], T["w"], T["b"], T["c"]


@over(
    ("text", "declarations", "expected"),
    [
        ("grad((x ** 3).sum(), x)", {}, lambda: _derivative(lambda x: (x**3).sum(), X)[0]),
        ("grad((b ** 3).sum(), b)", {}, lambda: _derivative(lambda b: (b**3).sum(), B)[0]),
        ("h = b * 2\ngrad((h ** 3).sum(), h)", {}, lambda: _derivative(lambda h: (h**3).sum(), B * 2)[0]),
        ("h = x * 2\ngrad((h ** 3).sum(), h)", {}, lambda: _derivative(lambda h: (h**3).sum(), X * 2)[0]),
        (
            "p, q = grad((x @ w).sin().sum(), [x, w])\np @ q",
            {},
            lambda: torch.matmul(*_derivative(lambda x, w: (x @ w).sin().sum(), X, W)),
        ),
        ("grad((x @ w).sin().sum(), (x, w))[1]", {}, lambda: _derivative(lambda x, w: (x @ w).sin().sum(), X, W)[1]),
        ("grad(x.sum(), w)", {}, lambda: torch.zeros(3, 2)),
        ("grad(b.sum(), x)", {}, lambda: torch.zeros(2, 3)),
        ("grad(b.sum(), c)", {}, lambda: torch.zeros(3)),
        ("grad(c.sum(), [c, x])[1]", {}, lambda: torch.zeros(2, 3)),
        ("grad(x[0, 0] * x[1, 1], x)", {}, lambda: _derivative(lambda x: x[0, 0] * x[1, 1], X)[0]),
        ("g = grad((x ** 4).sum(), x)\ngrad(g.sum(), x)", {}, lambda: 12 * X**2),
        ("g = grad((b ** 4).sum(), b)\ngg = grad(g.sum(), b)\ngrad(gg.sum(), b)", {}, lambda: 24 * B),
        ("(grad((x ** 3).sum(), x) ** 2).sum()", {}, lambda: ((3 * X**2) ** 2).sum()),
        ("f(x)", {"f(a)": "grad((a ** 3).sum(), a)"}, lambda: 3 * X**2),
        ("f(b)", {"f(a)": "grad((a ** 3).sum(), a)"}, lambda: 3 * B**2),
        ("f(b * 2)", {"f(a)": "grad((a ** 3).sum(), a)"}, lambda: 3 * (B * 2) ** 2),
        ("f(2.0)", {"f(a)": "grad((c ** 3).sum() * a, c)"}, lambda: 2.0 * 3 * C**2),
        ("h = c * 2\nf(h)", {"f(a)": "grad((a ** 3).sum(), h)"}, lambda: 3 * (C * 2) ** 2),
        ("f(b)", {"f(a)": "u = a * 2\ngrad((u ** 3).sum(), u)"}, lambda: 3 * (B * 2) ** 2),
        ("p = b\nfor i in range(3):\n  p = p - 0.1 * grad((p ** 2).sum(), p)\np", {}, lambda: B * 0.8**3),
        ("grad((b ** 2).sum(), b) if iteration > 1 else b", {}, lambda: B),
        ("grad((b ** 2).sum(), b) if iteration < 2 else b", {}, lambda: 2 * B),
        ("grad((b ** 2).sum() if iteration < 2 else b.sum(), b)", {}, lambda: 2 * B),
        ("grad(z.abs().sum(), z)", {}, lambda: _derivative(lambda z: z.abs().sum(), T["z"])[0]),
    ],
)
def test_a_gradient_is_that_of_autograd(
    text: str, declarations: dict[str, str], expected: Callable[[], Tensor]
) -> None:
    found, wanted = value_of(text, declarations), expected()
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found.detach(), wanted)


def test_a_gradient_agrees_with_finite_differences() -> None:
    x = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = value_of("grad((tanh(x) * x.roll(1)).sum(), x)", given={"x": x})
    step = 1e-6
    for index in range(4):
        moved = [x.clone(), x.clone()]
        moved[0][index] += step
        moved[1][index] -= step
        high, low = [(torch.tanh(each) * each.roll(1)).sum() for each in moved]
        assert float(found.detach()[index]) == pytest.approx(float(high - low) / (2 * step), abs=1e-8)


def test_a_gradient_penalty_is_differentiated_by_the_parameters() -> None:
    given = tensors()
    found = value_of("y = tanh(c @ w)\ngrad(y.sum(), c).pow(2).sum()", given=given)
    (gradient,) = torch.autograd.grad(found, given["w"])
    w, c = W.clone().requires_grad_(), C.clone().requires_grad_()
    (inner,) = torch.autograd.grad(torch.tanh(c @ w).sum(), c, create_graph=True)
    (expected,) = torch.autograd.grad(inner.pow(2).sum(), w)
    assert torch.equal(gradient, expected)


def test_differentiating_by_a_name_leaves_its_value_and_gradient_alone() -> None:
    given = tensors()
    loss = value_of("h = x * 2\ng = grad((h ** 2).sum(), h)\n(h * g).sum()", given=given)
    (gradient,) = torch.autograd.grad(loss, given["x"])
    torch.testing.assert_close(gradient, 16 * X)


def test_a_computation_says_that_it_differentiates() -> None:
    lowered = lower("h = x * 2\ng = grad(h.sum(), h)")
    assert extract(lowered, ["g"]).gradients
    assert not extract(lowered, ["h"]).gradients
    assert extract(lower("f(x)", {"f(a)": "grad(a.sum(), a) if iteration > 1 else a"}), ["value"]).gradients


def test_without_grad_mode_a_computation_that_differentiates_nothing_runs() -> None:
    given = tensors()
    computation = extract(lower("(x @ w).sum()", given=given), ["value"])
    with torch.no_grad():
        assert same(compute(computation, given)[0], (X @ W).sum())


@over(
    ("text", "place", "message", "hint"),
    [
        ("grad(x, x)", (1, 5, 1), "`x` has shape (2, 3); `grad` takes one element", "reduce it: `.sum()`"),
        ("grad(x.sum(), x.T)", (1, 14, 3), "`x.T` is not a name", "differentiate by a name: give the value one first"),
        ("grad(x.sum())", (1, 0, 13), "`grad` takes two arguments", "write `grad(y, x)` or `grad(y, [x1, x2])`"),
        ("grad(x.sum(), wrt=x)", (1, 0, 20), "`grad` takes two arguments", "write `grad(y, x)` or `grad(y, [x1, x2])`"),
        ("grad(x.sum(), [])", (1, 14, 2), "`grad` by nothing", "name what to differentiate by: `grad(y, [x1, x2])`"),
        ("grad(x.sum(), n)", (1, 14, 1), "`n` is a number", "`grad` takes tensors"),
        ("grad(3.0, x)", (1, 5, 3), "`3.0` is a number", "`grad` takes tensors"),
        (
            "grad(x.sum(), k)",
            (1, 14, 1),
            "`k` is a tensor of shape (3,), int64",
            "only floating-point tensors have derivatives",
        ),
        (
            "grad(k.sum(), x)",
            (1, 5, 7),
            "`k.sum()` is a tensor of shape (), int64",
            "only floating-point tensors have derivatives",
        ),
        ("grad(z.sum(), x)", (1, 5, 7), "`z.sum()` is complex; `grad` takes a real number", "take its `.real`"),
        (
            "grad(x.sum(), [x, y])",
            (1, 18, 1),
            "`y` is not declared",
            "known names are b, c, flag, iteration, k, n, rate, training, w, x, z",
        ),
    ],
)
def test_what_cannot_be_differentiated_is_told(text: str, place: tuple[int, int, int], message: str, hint: str) -> None:
    fault = fault_of(text)
    assert (fault.place.as_tuple(), fault.message, fault.hint) == (place, message, hint)
