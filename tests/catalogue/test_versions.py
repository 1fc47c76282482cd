"""What not every supported release of torch has: the list against the installed torch, and what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import runner
from runner.catalogue import find_method, find_operation, installed, newer_arguments, optimizers, spans
from runner.catalogue.versions import Span, absence
from runner.errors import ConfigError
from runner.optim.classes import optimizer_class

MATRIX = torch.tensor([[2.0, 0.5], [0.5, 1.0]])

CALLS: dict[str, Callable[[], Any]] = {
    ".cholesky": lambda: MATRIX.cholesky(),
    ".qr": lambda: MATRIX.qr(),
    "F.linear_cross_entropy": lambda: torch.nn.functional.linear_cross_entropy(MATRIX, MATRIX, torch.tensor([0, 1])),
    "lbfgs(maximize)": lambda: torch.optim.LBFGS([torch.nn.Parameter(MATRIX.clone())], maximize=True),
    "linalg.matrix_sqrth": lambda: torch.linalg.matrix_sqrth(MATRIX),
    "linalg.polar": lambda: torch.linalg.polar(MATRIX),
    "torch.cholesky": lambda: torch.cholesky(MATRIX),
    "torch.qr": lambda: torch.qr(MATRIX),
}
"""How torch itself is asked for each."""


def test_everything_listed_is_in_the_tables_and_tried_here() -> None:
    assert list(spans()) == sorted(spans(), key=str.lower) == list(CALLS)
    for name in spans():
        optimizer, _, argument = name.removesuffix(")").partition("(")
        if argument:
            assert argument in {each.name for each in optimizers()[optimizer].arguments}
        else:
            assert find_method(name[1:]) if name.startswith(".") else find_operation(name)


@pytest.mark.parametrize("name", CALLS)
def test_the_installed_torch_has_what_the_list_says(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if spans()[name].includes(torch.__version__):
            assert CALLS[name]() is not None
        else:
            with pytest.raises((AttributeError, TypeError, RuntimeError), match=r"no attribute|unexpected|now removed"):
                CALLS[name]()


@pytest.mark.parametrize(
    ("span", "version", "included"),
    [
        (Span(since="2.14"), "2.13.9+cpu", False),
        (Span(since="2.14"), "2.14.0a0+git12ab", True),
        (Span(since="2.9"), "2.14.1", True),
        (Span(since="2.14"), "3.0.0", True),
        (Span(before="2.14"), "2.13.0+cu130", True),
        (Span(before="2.14"), "2.14.0", False),
        (Span(before="2.9"), "2.14.0", False),
    ],
)
def test_releases_are_compared_as_numbers(span: Span, version: str, included: bool) -> None:
    assert span.includes(version) is included


def test_what_is_in_every_release_is_never_absent() -> None:
    assert absence("torch.exp", "2.11.0") is None
    assert absence("linalg.polar", "2.14.1") is None


def refusal(text: str) -> str:
    with pytest.raises(ConfigError, match=r".") as caught:
        runner.compile(runner.loads(text))
    (problem,) = caught.value.problems
    return f"{problem.message}; {problem.hint}"


@pytest.mark.parametrize(
    ("version", "expression", "message"),
    [
        (
            "2.13.0+cpu",
            "linalg.polar(x)[0].sum()",
            "`linalg.polar` does not exist in torch 2.13.0: it comes with torch 2.14; update torch",
        ),
        (
            "2.12.1",
            "F.linear_cross_entropy(x, x, [0, 1])",
            "`F.linear_cross_entropy` does not exist in torch 2.12.1: it comes with torch 2.13; update torch",
        ),
        (
            "2.14.1",
            "x.qr()[0].sum()",
            "`.qr` does not exist in torch 2.14.1: it is gone from torch 2.14 on; write `linalg.qr(x)`",
        ),
        (
            "2.14.1",
            "cholesky(x).sum()",
            "`cholesky` does not exist in torch 2.14.1: it is gone from torch 2.14 on; write `linalg.cholesky(x)`",
        ),
    ],
)
def test_an_operation_that_this_torch_lacks_names_the_release(
    version: str, expression: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert message in refusal(f"parameters: {{x: [[2.0, 0.5], [0.5, 1.0]]}}\nexpression: {expression}")


LBFGS = "parameters: {x: 1.0}\nexpression: -x**2\noptimizer: {lbfgs: {maximize: true}}\nsteps: [train: {}]"


def test_an_argument_that_this_torch_lacks_names_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older(torch.optim.LBFGS):
        def __init__(self, params: Any, lr: float = 1, max_iter: int = 20) -> None:
            super().__init__(params, lr, max_iter)

    monkeypatch.setattr(torch.optim, "LBFGS", Older)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    assert [argument.name for argument in installed(optimizers()["lbfgs"]).arguments] == ["lr", "max_iter"]
    expected = "lbfgs has no argument `maximize` in torch 2.13.0: it comes with torch 2.14; remove it, or update torch"
    assert expected in refusal(LBFGS)
    unlisted = refusal(LBFGS.replace("maximize: true", "history_size: 3"))
    assert "lbfgs has no argument `history_size` in torch 2.13.0; remove it" in unlisted


class Newer(torch.optim.SGD):
    """As a later release may have it: with arguments that the table does not know."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0,
        *,
        halved: bool = False,
        shift: float | None = None,
        hook: Any = None,
    ) -> None:
        super().__init__(params, lr * (0.5 if halved else 1), momentum)
        for group in self.param_groups:
            group["halved"] = halved

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.fixture
def newer_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    optimizer_class.cache_clear()
    monkeypatch.setattr(torch.optim, "SGD", Newer)
    monkeypatch.setattr("runner.catalogue.versions.metadata.version", lambda name: "2.99.0")
    yield
    optimizer_class.cache_clear()


SGD = "parameters: {x: 1.0}\nexpression: x**2\noptimizer: {sgd: {lr: 0.1, halved: true}}\nsteps: [train: {}]"


@pytest.mark.usefixtures("newer_torch")
def test_an_argument_that_only_a_newer_torch_has_is_offered_by_its_signature() -> None:
    arguments = {argument.name: argument for argument in installed(optimizers()["sgd"]).arguments}
    assert newer_arguments(optimizers()["sgd"]) == ("halved", "shift")  # `hook` may be anything
    assert (arguments["shift"].type, arguments["shift"].optional) == ("float", True)
    assert (arguments["halved"].type, arguments["halved"].default) == ("bool", "False")
    *_, row = runner.execute(runner.compile(runner.loads(SGD)))
    assert row["x"].item() == pytest.approx(1 - 0.05 * 2, rel=1e-6)
    assert "sgd has no argument `hook`" in refusal(SGD.replace("halved", "hook"))
    assert "`halved` takes true or false, not 3" in refusal(SGD.replace("halved: true", "halved: 3"))
    compiled = refusal(f"engine: compile\n{SGD}")
    assert "`engine: compile` takes no `halved`: it is newer than what is compiled" in compiled


def test_a_misspelt_argument_is_told_without_importing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.catalogue.versions.metadata.version", lambda name: "2.14.1")
    monkeypatch.setattr("runner.catalogue.versions.installed", lambda optimizer: pytest.fail("torch was asked"))
    with pytest.raises(ConfigError, match=r"sgd has no argument `rate`"):
        runner.loads(SGD.replace("halved", "rate"))
