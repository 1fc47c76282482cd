"""The estimate of the operations of a step is near what is traced."""

from __future__ import annotations

import pytest

import runner
from runner.plan.checks.engines.step_size import update_operations
from tests.engine.running import compiled

pytest.importorskip("jax")

from runner.engine.xla import translated
from runner.plan.checks.engines import step_size

SMALL_RULE = '{rule: {update: "param = param - 0.01 * grad"}}'
LARGE_RULE = """{rule: {state: {m: 0, v: 0}, update: "m = 0.9 * m + 0.1 * grad\\nv = 0.99 * v + 0.01 * grad ** 2\\n\
param = param - 0.01 * (m / (1 - 0.9 ** t)) / (sqrt(v / (1 - 0.99 ** t)) + 1e-8)"}}"""


class TracedError(Exception):
    """A step was traced, and is not compiled."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer", [*(f"{{{kind}: {{}}}}" for kind in step_size._OPERATIONS), SMALL_RULE, LARGE_RULE]
)
def test_each_parameter_adds_as_many_operations_as_planned(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a fifth; also of rules."""
    traced: list[int] = []
    trace = translated.trace

    def counting(*given: object) -> None:
        graph = trace(*given).graph  # type: ignore[arg-type]
        traced.append(sum(node.op.startswith("call_") for node in graph.graph.nodes))
        raise TracedError

    monkeypatch.setattr(translated, "trace", counting)
    for count in (1, 2):
        names = [f"p{number}" for number in range(count)]
        plan = compiled(
            "engine: xla\nparameters:\n"
            + "".join(f"  {name}: {{shape: [4, 4], init: ones}}\n" for name in names)
            + f"expression: f = cat([{', '.join(names)}]).square().sum()\noptimizer: {optimizer}\nsteps: 2\n"
            + "log: {tensors: none}\n"
        )
        with pytest.raises(TracedError, match=r"^$"):
            list(runner.execute(plan))
    (planned,) = plan.optimizers.values()
    assert traced[1] - traced[0] == pytest.approx(update_operations(planned, "p0"), rel=0.2)
