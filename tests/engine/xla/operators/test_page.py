"""`docs/xla-operators.md` names the rules, random operators and versions of the code.

`python -m tools.xla_operators` writes it, which takes many minutes. Here no operation runs but those that draw.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from runner.language.xla.operators.table import RANDOM, RULES
from runner.language.xla.tracing import DependentDraw, trace
from tests.tables import over

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "xla-operators.md").read_text(encoding="utf-8")

DRAWN: dict[str, Callable[[Tensor], Tensor]] = {
    "bernoulli.p": lambda x: torch.dropout(x, 0.5, True),
    "cauchy.default": lambda x: x.clone().cauchy_(),
    "exponential.default": lambda x: x.clone().exponential_(),
    "geometric.default": lambda x: x.clone().geometric_(0.5),
    "log_normal.default": lambda x: x.clone().log_normal_(),
    "normal.float_float": lambda x: torch.normal(0.0, 1.0, (3,)),
    "normal_functional.default": lambda x: x.clone().normal_(),
    "rand.default": lambda x: torch.rand(3),
    "rand_like.default": torch.rand_like,
    "randint.default": lambda x: torch.randint(4, (3,)),
    "randint.low": lambda x: torch.randint(1, 4, (3,)),
    "randint_like.default": lambda x: torch.randint_like(x, 4),
    "randint_like.low_dtype": lambda x: torch.randint_like(x, 1, 4),
    "randn.default": lambda x: torch.randn(3),
    "randn_like.default": torch.randn_like,
    "randperm.default": lambda x: torch.randperm(4),
    "uniform.default": lambda x: x.clone().uniform_(),
}
REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "bernoulli.Tensor": lambda x: x.clone().bernoulli_(x),
    "bernoulli.default": torch.bernoulli,
    "binomial.default": lambda x: torch.binomial(x, x),
    "multinomial.default": lambda x: torch.multinomial(x, 1),
    "native_dropout.default": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "normal.Tensor_Tensor": lambda x: torch.normal(x, x),
    "normal.Tensor_float": lambda x: torch.normal(x, 1.0),
    "normal.float_Tensor": lambda x: torch.normal(0.0, x),
    "poisson.default": torch.poisson,
    "rrelu_with_noise_functional.default": lambda x: torch.rrelu(x, training=True),
}


def listed(above: str) -> list[str]:
    """The names in the paragraph of the page below a sentence."""
    paragraph = PAGE.partition(above)[2].strip().partition("\n\n")[0]
    return re.findall(r"`([\w.]+)`", paragraph)


def number(pattern: str) -> int:
    found = re.search(pattern, PAGE)
    assert found is not None
    return int(found[1])


def test_the_page_counts_the_rules() -> None:
    assert number(r"translates (\d+) operators of PyTorch") == len(RULES)
    assert number(r"(\d+) are of its") + number(r"and (\d+) others remain") == len(RULES)


def test_the_page_lists_the_random_operators_that_are_drawn_and_those_that_are_refused() -> None:
    assert listed("in the streams of the eager engine:") == list(DRAWN)
    assert listed("so a step that has one is refused:") == list(REFUSED)
    assert sorted(RANDOM) == sorted(f"aten.{name}" for name in (*DRAWN, *REFUSED))


def test_the_page_names_the_versions_that_the_tests_run_with() -> None:
    pins = dict(re.findall(r"^(torch|jax)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    found = re.search(r"Written\s+with PyTorch (\S+) and JAX (\S+)\.\n", PAGE)
    assert found is not None
    assert (found[1].partition("+")[0], found[2]) == (pins["torch"], pins["jax"])


@over("name", DRAWN)
def test_numbers_that_depend_on_no_tensor_are_drawn(name: str) -> None:
    traced = trace(lambda x: [DRAWN[name](x)], [torch.full((4, 4), 0.5)])
    assert len(traced.draws) == 1


@over("name", REFUSED)
def test_numbers_that_depend_on_tensors_are_refused(name: str) -> None:
    operator = name.partition(".")[0].removesuffix("_functional")
    with pytest.raises(DependentDraw, match=rf"^aten\.{operator}"):
        trace(lambda x: [REFUSED[name](x)], [torch.full((4, 4), 0.5)])
