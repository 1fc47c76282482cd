"""Every optimizer that XLA compiles gives what torch.optim gives, in a region and from one to the next."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import runner
from runner.plan.checks.engines.compilable import decides
from tests.engine.compiled.test_optimizers import OPTIONS, SCHEDULABLE, STEPS, after_a_step, by_hand, text_of
from tests.engine.running import compiled, numbers

pytest.importorskip("jax")

from runner.engine.compiled.updates import Changing, torch_update
from runner.engine.xla import translated
from runner.language.xla.operators import translate
from runner.language.xla.tracing import trace


@pytest.mark.parametrize("scheduled", [False, True], ids=["constant rates", "changing rates"])
@pytest.mark.slow
def test_optimizers_agree_with_torch(scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where no gradient is so near to zero that an optimizer makes a direction of what rounding left."""
    monkeypatch.setattr(translated, "MOST_AT_ONCE", 5)
    plan = compiled("dtype: float64\n" + text_of(scheduled).replace("engine: compile", "engine: xla"))
    found = [numbers(row) for row in runner.execute(plan)][1:]
    assert len(found) == STEPS
    for name in OPTIONS:
        rtol = 1e-4 if name == "muon" else 1e-7  # Muon computes in bfloat16, and others keep numbers in float32
        for place, wanted in enumerate(by_hand(name, plan, scheduled)):
            assert len(wanted) >= 1
            for key, value in wanted.items():
                where = f"{key} after step {place + 1}"
                torch.testing.assert_close(
                    found[place][key], value, rtol=rtol, atol=1e-8, msg=lambda told, where=where: f"{where}: {told}"
                )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "option"), [each for each in SCHEDULABLE if not decides(each[0].lower(), each[1])])
def test_an_option_that_changes_is_traced_and_translated(kind: str, option: str) -> None:
    weight, options, entries = after_a_step(kind)
    assert weight.grad is not None
    update = torch_update(kind, options, [Changing(option, None)])
    one = torch.ones((), dtype=torch.float64)

    def flat(before: Tensor, gradient: Tensor, step: Tensor, number: Tensor, *kept: Tensor) -> list[Tensor]:
        own = dict(zip(entries, kept, strict=True))
        weights, new = update([before], [gradient], [own], [step], [number])
        return [*weights, *new[0].values()]

    given = [weight.detach(), weight.grad, one, one * options[option], *entries.values()]
    assert translate(trace(flat, given).graph) is not None
