"""The first value, gradient or weight that is not finite ends the run, and the error names what made it so."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

import runner
from runner.engine.state import initial_state
from runner.engine.watch.watch import Watch
from runner.errors import HealthWarning
from tests.engine.running import compiled, same
from tests.engine.watch.stopping import stopped
from tests.tables import over

# what is done about it

DIVERGES = """\
parameters: {x: [3.0, 4.0]}
expression: f = (x ** 4).sum()
optimizer: {sgd: {lr: 10}}
steps: 8
%s
"""


def by_hand() -> list[torch.Tensor]:
    """The weights of DIVERGES before and after each step; its objective is infinite in the third."""
    x = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([x], lr=10)
    found = [x.detach().clone()]
    for _ in range(8):
        optimizer.zero_grad()
        (x**4).sum().backward()
        optimizer.step()
        found.append(x.detach().clone())
    return found


def test_stop_ends_after_the_row_that_holds_it() -> None:
    found = stopped(DIVERGES % "")
    weights = by_hand()
    assert [bool((x**4).sum().isinf()) for x in weights[:3]] == [False, False, True]
    assert found.last.number == 3
    assert all(same(row["x"], weight) for row, weight in zip(found.rows, weights[:4], strict=True))


@pytest.mark.parametrize("log", ["{every: 5}", "{include: [f], every: 7}", "{tensors: none}", "{include: [x.grad]}"])
def test_stop_keeps_the_row_and_looks_at_what_is_not_logged(log: str) -> None:
    whole, found = stopped(DIVERGES % ""), stopped(DIVERGES % f"log: {log}")
    assert found.last.path == whole.last.path
    assert found.problem.message.partition(" (row")[0] == whole.problem.message.partition(" (row")[0]


def test_warn_tells_the_first_and_goes_on() -> None:
    with pytest.warns(HealthWarning, match="non-finite: ") as caught:
        rows = list(runner.execute(compiled(DIVERGES % "on_nonfinite: warn")))
    assert len(caught) == 1
    assert stopped(DIVERGES % "").problem.message in str(caught[0].message)
    assert all(same(row["x"], weight) for row, weight in zip(rows, by_hand(), strict=True))


def test_ignore_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    original: Callable[..., object] = Watch._look

    def counted(self: Watch, *arguments: object, **named: object) -> object:
        found = original(self, *arguments, **named)
        looks.append("nothing" if found is None else "look")
        return found

    monkeypatch.setattr(Watch, "_look", counted)
    rows = list(runner.execute(compiled(DIVERGES % "on_nonfinite: ignore")))
    assert all(same(row["x"], weight) for row, weight in zip(rows, by_hand(), strict=True))
    assert set(looks) == {"nothing"}
    with pytest.raises(runner.RunError, match="inf"):
        list(runner.execute(compiled(DIVERGES % "")))
    assert "look" in looks


@pytest.mark.parametrize("mode", ["stop", "warn", "ignore"])
def test_looking_changes_no_bit(mode: str) -> None:
    text = f"""\
parameters: {{x: {{shape: [5], init: normal}}, y: 1.0}}
expression: f = (dropout(x, 0.5, training) ** 2).sum() * y
optimizer: {{adam: {{lr: 0.1}}}}
steps: 20
on_nonfinite: {mode}
"""
    rows = list(runner.execute(compiled(text)))
    others = list(runner.execute(compiled(text.replace(mode, "ignore"))))
    assert all(same(row["x"], other["x"]) for row, other in zip(rows, others, strict=True))


def test_the_replay_leaves_random_streams_and_gradients_alone() -> None:
    text = """\
parameters: {x: [0.0, 1.0, 2.0], y: 1.0}
expression: f = (sqrt(x) * dropout(ones(3), 0.5, training)).sum() + y * rand(1)
steps: [repeat: {times: 5, steps: [backward]}]
on_nonfinite: %s
"""
    state = torch.get_rng_state()
    with pytest.warns(HealthWarning, match="`x.grad` is (inf|nan) at "):
        rows = list(runner.execute(compiled(text % "warn")))
    assert torch.equal(state, torch.get_rng_state())
    others = list(runner.execute(compiled(text % "ignore")))
    for row, other in zip(rows, others, strict=True):
        assert all(same(left, right) for left, right in zip(row.values, other.values, strict=True))


# rows that are looked at together, as on a device that would be waited for


def test_a_block_of_rows_tells_the_row_and_the_tensor() -> None:
    at_once, later = stopped(DIVERGES % ""), stopped(DIVERGES % "", defers=True)
    assert later.problem.message == "`f` is not finite (row 3, repeat[3].train)"
    assert (at_once.last.number, later.last.number) == (3, 8)  # found at the end
    assert later.problem.path == "steps"


def test_a_block_ends_after_64_rows() -> None:
    text = DIVERGES.replace("steps: 8", "steps: 500")
    found = stopped(text % "", defers=True)
    assert found.problem.message == "`f` is not finite (row 3, repeat[3].train)"
    assert found.last.number == 65


@pytest.mark.parametrize("log", ["", "log: {every: 1000}"])
def test_a_block_is_bounded_where_rows_are_left_out(log: str) -> None:
    text = DIVERGES.replace("steps: 8", "steps: 5000") % log
    plan = compiled(text)
    state = initial_state(plan)
    with pytest.raises(runner.RunError, match="is not finite"):
        list(runner.execute(plan, state, watch=Watch(plan, state, defers=True)))
    assert state.iterations[0] < 600


def test_a_finite_run_of_all_kinds_of_tensors_passes_in_blocks() -> None:
    text = """\
parameters:
  x: {shape: [2, 3], init: 3e38}
  half: {shape: [3], init: 60000, dtype: float16}
  double: {shape: [2], init: 1e300, dtype: float64}
  none: {shape: [0], init: 1}
  z: {shape: [2], init: {expression: "complex(ones(2), ones(2)) * 3e38"}, dtype: complex64}
expression: f = (x * 1e-38).sum() + (half * 1e-4).sum() + (double * 1e-300).sum() + none.sum() + (z * 1e-38).abs().sum()
metrics: {whole: x * 1, no: none * 1, count: (x > 0).sum(), complex: z * 1}
optimizer: {sgd: {lr: 0.0}}
steps: 3
"""
    for defers in (True, False):
        plan = compiled(text)
        state = initial_state(plan)
        assert len(list(runner.execute(plan, state, watch=Watch(plan, state, defers=defers)))) == 4


@over("defers", [True, False])
@over(
    ("parameter", "rate"),
    [
        ("{shape: [2], init: {expression: 'complex(ones(2), ones(2))'}, dtype: complex64}", 3e38),
        ("{shape: [], init: {expression: 'complex(ones(1), ones(1))[0]'}, dtype: complex64}", 3e38),
        ("{shape: [3], init: 1, dtype: bfloat16}", 3e38),
        ("{shape: [1], init: 1, dtype: bfloat16}", 3e38),
        ("{shape: [2], init: 1, dtype: float16}", 6e4),
        ("{shape: [], init: 1, dtype: float64}", 1e308),
    ],
)
def test_weights_of_every_dtype_are_looked_at(parameter: str, rate: float, defers: bool) -> None:
    text = f"""\
parameters: {{x: {parameter}}}
expression: f = (x * 10).{"real." if "complex" in parameter else ""}sum()
optimizer: {{sgd: {{lr: {rate}}}}}
steps: 1
"""
    found = stopped(text, defers=defers)
    if defers:
        assert found.problem.message == "`x` is not finite (row 1, repeat[1].train)"
    else:
        assert re.match(r"`x` is (nan|-inf|infinite).*, after step 1 of `sgd`", found.problem.message)


@pytest.mark.parametrize("defers", [True, False])
def test_a_checkpoint_is_not_saved_of_what_ends_the_run(defers: bool) -> None:
    text = """\
parameters: {x: [3.0, 4.0]}
expression: f = (x ** 4).sum()
optimizer: {sgd: {lr: 10}}
steps: [{repeat: {times: 8, steps: [train, checkpoint]}}]
"""
    plan = compiled(text)
    state = initial_state(plan)
    watch = Watch(plan, state, defers=defers)
    saved: list[int] = []
    with pytest.raises(runner.RunError, match="`f` is"):
        list(runner.execute(plan, state, checkpoint=lambda tag: saved.append(state.row), watch=watch))
    assert saved == [2, 3]


@pytest.mark.parametrize("logged", ["first", "first, x, k"])
def test_a_weight_is_named_where_a_metric_is_a_part_of_it(logged: str) -> None:
    text = f"""
parameters: {{x: {{shape: [2], init: [-3.0e+38, 2.0]}}, k: 2.0}}
expression: loss = x[0] + (x[1] + k) * 0
metrics: {{first: "x[0]"}}
optimizer: {{adam: {{lr: 3.0e+37}}}}
steps: 2
log: {{include: [{logged}]}}
"""
    with pytest.raises(runner.RunError, match=r"`x` is -inf at \[0\], after step 2 of `adam`"):
        list(runner.execute(compiled(text)))
