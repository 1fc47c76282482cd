"""`einsum` in a config gives the bits of torch without opt_einsum, whether that is installed or not."""

from __future__ import annotations

import pytest
import torch

import runner
from runner.engine import initial_state
from runner.language.graph.contraction import einsum

FORMS = {
    "three": 'einsum("bi,bj,ijk->bk", x, z, w)',
    "a list": 'einsum("bi,bj,ijk->bk", [x, z, w])',
    "prefixed": 'torch.einsum("bi,bj,ijk->bk", x, z, w)',
    "numbered": "einsum(x, [1, 8], z, [1, 9], w, [8, 9, 10], [1, 10])",
    "four": 'einsum("bi,bj,ijk,kl->bl", x, z, w, w[0, :3])',
    "two": 'einsum("bi,ijk->bjk", x, w)',
}


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (12, 40), "z": (12, 70), "w": (40, 70, 3)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def by_hand(expression: str, *, enabled: bool) -> torch.Tensor:
    """The text as Python, with torch's own function."""
    with torch.backends.opt_einsum.flags(enabled=enabled):
        found: torch.Tensor = eval(expression, {"torch": torch, "einsum": torch.einsum, **inputs()})
    return found


@pytest.mark.parametrize("form", FORMS)
def test_an_expression_contracts_from_left_to_right(form: str) -> None:
    text = f"""\
parameters: {{w: {{shape: [40, 70, 3], init: zeros}}}}
constants: {{x: {{shape: [12, 40], init: zeros}}, z: {{shape: [12, 70], init: zeros}}}}
expression: |
  f = {FORMS[form]}
steps: [forward]
log: {{include: ['*']}}
"""
    plan = runner.compile(runner.loads(text))
    rows = list(runner.execute(plan, initial_state(plan, inputs())))
    found = rows[1]["f"]
    assert found is not None
    assert torch.equal(found, by_hand(FORMS[form], enabled=False))


def test_opt_einsum_would_give_other_bits() -> None:
    """If it did not, the test above would show nothing."""
    pytest.importorskip("opt_einsum")
    first, second = (by_hand(FORMS["three"], enabled=enabled) for enabled in (False, True))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)
    assert not torch.equal(first, second)


def test_torch_keeps_its_setting() -> None:
    before = torch.backends.opt_einsum.enabled
    einsum("i,i,i->", *[torch.ones(3)] * 3)
    assert torch.backends.opt_einsum.enabled == before
    assert torch.einsum is not einsum
