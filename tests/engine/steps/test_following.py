"""Steps that act on what was measured, against torch's own scheduler and loops written by hand."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import runner
from runner.compare.variants.state_transfer import transfer
from runner.engine import initial_state
from runner.engine.eager import execute
from runner.record.checkpoints.store import restore_state, state_contents
from tests.engine.running import compiled, numbers, rows_of, same

NAN, INF = math.nan, math.inf

MEASURED = """
on_nonfinite: ignore
parameters:
  w: [1.0]
  rate: {{init: {rate}, requires_grad: false}}
  score: {{init: 0, dtype: float64, requires_grad: false}}
constants: {{scores: {{init: {scores}, dtype: float64}}}}
data: {{valid: {{file: samples.csv, columns: {{x: x}}}}}}
expression: loss = (w * x).sum()
metrics: {{merit: score}}
optimizer: {{sgd: {{lr: rate}}}}
steps:
  - repeat:
      times: {times}
      steps:
        - assign: {{score: "scores[iteration - 1]"}}
        - evaluate: valid
        {step}
  - {{forward: loss}}
"""
"""A run whose n-th evaluation measures the n-th number of a list."""


def measured(folder: Path, scores: Sequence[float], step: str, rate: float = 0.1) -> str:
    (folder / "samples.csv").write_text("x\n1\n2\n")
    return MEASURED.format(scores=list(scores), times=len(scores), step=step, rate=rate)


def sequences() -> list[list[float]]:
    chosen = [
        [1.0] * 12,
        [3.0, 2.0, 1.0, 1.0, 1.0 - 1e-4, 1.0 - 1.1e-4, 1.0, 1.0, 0.5, NAN, NAN, 0.4, INF, -INF, -INF, 0.0],
        [NAN] * 6,
        [-1.0, -1.0001, -1.001, -2.0, -2.0, -2.0, -1.0, 0.0, -0.0, 0.0],
        [INF, INF, 1.0, INF, 1.0],
        [1e-300, 1e-308, 5e-324, 0.0, -0.0, -5e-324, -1e-300],
    ]
    draw = random.Random(0)
    return chosen + [[draw.choice((0.0, 1.0, 2.0, draw.gauss(0, 1))) for _ in range(30)] for _ in range(4)]


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"patience": 0},
    {"patience": 1, "cooldown": 2, "factor": 0.5},
    {"mode": "max", "patience": 2, "threshold_mode": "abs", "threshold": 0.5},
    {"mode": "max", "patience": 0, "min_lr": 0.03, "factor": 0.7},
    {"patience": 0, "threshold": 1.0, "eps": 0.02},
    {"patience": 0, "threshold": 0, "factor": 0.0, "threshold_mode": "abs"},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_a_plateau_reduces_the_rate_as_torchs_scheduler_does(arguments: dict[str, Any], tmp_path: Path) -> None:
    for scores in sequences():
        written = "".join(f", {name}: {value}" for name, value in arguments.items())
        text = measured(tmp_path, scores, f"- reduce_lr_on_plateau: {{rate: rate, on: valid.merit{written}}}")
        found = [row["rate"] for row in rows_of(text, tmp_path) if row.step == "reduce_lr_on_plateau"]
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
        expected = []
        for score in scores:
            scheduler.step(score)
            expected.append(torch.tensor(optimizer.param_groups[0]["lr"], dtype=torch.float64))
        assert len(found) == len(expected)
        assert all(map(same, found, expected)), (arguments, scores)


def test_the_defaults_are_those_of_torch() -> None:
    import inspect

    from runner.config.models import ReduceLROnPlateau

    torchs = inspect.signature(torch.optim.lr_scheduler.ReduceLROnPlateau).parameters
    own = {name: field.default for name, field in ReduceLROnPlateau.model_fields.items() if not field.is_required()}
    assert own == {name: torchs[name].default for name in own}


def by_hand(scores: Sequence[float], evaluations: int, sign: int, delta: float) -> int:
    """The number of evaluations after which a loop with patience ends."""
    best, worse = sign * INF, 0
    for count, score in enumerate(scores, 1):
        if score * sign < best * sign - delta:
            best, worse = score, 0
        else:
            worse += 1
        if worse == evaluations:
            return count
    return len(scores)


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
@pytest.mark.parametrize("delta", [0, 0.5])
@pytest.mark.parametrize("evaluations", [1, 3])
def test_patience_leaves_the_loop_after_so_many_evaluations_that_are_not_better(
    mode: str, sign: int, delta: float, evaluations: int, tmp_path: Path
) -> None:
    for scores in sequences():
        step = f"- patience: {{on: valid.merit, evaluations: {evaluations}, mode: {mode}, min_delta: {delta}}}"
        rows = rows_of(measured(tmp_path, scores, step), tmp_path)
        assert sum(row.step == "evaluate" for row in rows) == by_hand(scores, evaluations, sign, delta), scores
        assert rows[-1].step == "forward"


def test_a_step_acts_once_on_an_evaluation(tmp_path: Path) -> None:
    plateau = "reduce_lr_on_plateau: {rate: rate, on: valid.merit, patience: 0, factor: 0.5}"
    text = measured(tmp_path, [1.0] * 4, f"- {plateau}\n        - {plateau}").replace("repeat:", "repeat:", 1)
    twice = text.replace("- evaluate: valid", "- {evaluate: valid, every: 2}")
    rows = [row for row in rows_of(twice, tmp_path) if row.step == "reduce_lr_on_plateau"]
    assert [row.iteration for row in rows] == [2, 2, 4, 4]  # each of the two steps, once an evaluation
    assert [float(row["rate"]) for row in rows if row["rate"] is not None] == [0.1, 0.1, 0.05, 0.025]


def test_patience_counts_anew_when_its_loop_begins_again(tmp_path: Path) -> None:
    text = measured(tmp_path, [2.0, 3.0, 3.0, 1.0, 3.0, 3.0], "- patience: {on: valid.merit, evaluations: 2}")
    head, loop = text.split("steps:\n", 1)
    indented = "".join(f"      {line}\n" for line in loop.splitlines() if "forward" not in line)
    rows = rows_of(f"{head}steps:\n  - repeat:\n      times: 3\n      steps:\n{indented}", tmp_path)
    assert sum(row.step == "evaluate" for row in rows) == 3 * 3


def test_a_source_alone_means_its_objective(tmp_path: Path) -> None:
    text = measured(tmp_path, [1.0] * 9, "- patience: {on: valid, evaluations: 2}")
    rows = rows_of(text, tmp_path)
    assert sum(row.step == "evaluate" for row in rows) == 3  # the objective is the same each time


def test_an_evaluation_without_the_result_is_not_counted(tmp_path: Path) -> None:
    text = measured(tmp_path, [1.0] * 9, "- patience: {on: valid.merit, evaluations: 2}")
    text = text.replace("metrics: {merit: score}", "metrics: {merit: score, other: score}")
    other = text.replace(
        "- evaluate: valid", "- {evaluate: valid, every: 3}\n        - evaluate: {data: valid, metrics: other}"
    )
    assert [row.iteration for row in rows_of(other, tmp_path)][-2] == 9  # at 3 the first, at 6 and 9 not better


STEPS = """- checkpoint: {best: valid.merit}
        - reduce_lr_on_plateau: {rate: rate, on: valid.merit, patience: 0, cooldown: 1, factor: 0.5}
        - patience: {on: valid.merit, evaluations: 4}
        - train"""


def test_a_run_goes_on_from_its_state_after_every_row_in_the_same_bits(tmp_path: Path) -> None:
    text = measured(tmp_path, [3.0, 4.0, 2.0, NAN, 2.0, 2.0, 1.0, 5.0, 5.0, 5.0, 5.0, 0.0], STEPS)
    plan = compiled(text, tmp_path)
    whole: list[runner.Row] = []
    saved: list[Any] = []
    state = initial_state(plan)
    for row in execute(plan, state):
        whole.append(row)
        saved.append(torch.load(_written(plan, state), weights_only=True))
    assert whole[-2].iteration == 11
    for number, contents in enumerate(saved):
        again = initial_state(plan)
        restore_state(again, contents, "cpu")
        rest = list(execute(plan, again))
        assert len(rest) == len(whole) - number - 1
        for row, expected in zip(rest, whole[number + 1 :], strict=True):
            assert row.path == expected.path
            assert all(same(value, numbers(expected)[name]) for name, value in numbers(row).items())


def test_a_state_that_is_copied_into_a_run_goes_on_with_what_its_steps_remember(tmp_path: Path) -> None:
    text = measured(tmp_path, [3.0, 4.0, 2.0, 2.0, 2.0, 1.0, 5.0, 5.0, 5.0, 5.0, 0.0], STEPS)
    plan = compiled(text, tmp_path)
    source, target = initial_state(plan), initial_state(plan)
    leading, following = execute(plan, source), execute(plan, target)
    for _ in range(20):
        next(leading)
        next(following)  # its steps are bound before the state is copied
    for tracker in target.trackers.values():
        tracker.best, tracker.worse, tracker.cooldown, tracker.fresh = -INF, 3, 3, not tracker.fresh
    transfer(source, target, plan.optimizers, {})
    rest = list(leading)
    assert len(rest) > 3
    for row, expected in zip(following, rest, strict=True):
        assert row.path == expected.path
        assert all(map(same, row.values, expected.values))


def _written(plan: runner.Plan, state: Any) -> Any:
    """The contents of a state as they are now."""
    import io

    file = io.BytesIO()
    torch.save(state_contents(plan, state), file)
    file.seek(0)
    return file


@pytest.mark.parametrize(("mode", "best"), [("min", [1, 4, 7]), ("max", [1, 6])])
def test_the_best_checkpoint_is_saved_only_when_a_result_is_better(mode: str, best: list[int], tmp_path: Path) -> None:
    scores = [3.0, NAN, 3.0, 2.0, 2.0, 4.0, 1.0, 1.0]
    plan = compiled(measured(tmp_path, scores, f"- checkpoint: {{best: valid.merit, mode: {mode}}}"), tmp_path)
    state, saved = initial_state(plan), []
    for _ in execute(plan, state, checkpoint=lambda tag: saved.append((tag, state.iterations[0]))):
        pass
    assert [number for tag, number in saved if tag == "best"] == best


def test_a_run_directory_keeps_the_state_at_the_best_evaluation(tmp_path: Path) -> None:
    text = measured(tmp_path, [3.0, 1.0, 2.0, 1.0], "- train\n        - checkpoint: {best: valid.merit}")
    (tmp_path / "run.yaml").write_text(text)
    run = runner.run(tmp_path / "run.yaml", runs_dir=tmp_path / "runs")
    folder = run.path / "checkpoints"
    assert len([path for path in folder.iterdir() if path.name.startswith("best")]) == 2
    from safetensors.torch import load_file

    tensors = load_file(next(folder.glob("best-*.safetensors")))
    rows = [row for row in runner.execute(compiled(text, tmp_path)) if row.step == "train"]
    assert any(torch.equal(tensor, rows[1]["w"]) for tensor in tensors.values() if tensor.shape == (1,))


def test_a_short_form_is_the_loop_written_out(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("x,y\n" + "".join(f"{n / 7},{n * n / 50}\n" for n in range(11)))
    (tmp_path / "valid.csv").write_text("x,y\n" + "".join(f"{n / 5},{n * n / 25}\n" for n in range(5)))
    config = """
seed: 3
parameters: {{a: 0.0, b: 0.0}}
data:
  train: {{file: train.csv, columns: {{x: x, y: y}}, batch_size: 4, shuffle: true}}
  valid: {{file: valid.csv, columns: {{x: x, y: y}}}}
expression: loss = ((a * x + b - y) ** 2).mean()
optimizer: {{sgd: {{lr: 0.3}}}}
steps: {steps}
"""
    for patience in ("", ", patience: 2"):
        written = """
  - repeat:
      times: 12
      steps:
        - for_each: {data: train, epochs: 1, steps: [train]}
        - evaluate: valid
        - checkpoint: {best: valid.loss}
"""
        written += "        - patience: {on: valid.loss, evaluations: 2}\n" if patience else ""
        short = rows_of(config.format(steps=f"{{epochs: 12, evaluate: valid{patience}}}"), tmp_path)
        long = rows_of(config.format(steps=written), tmp_path)
        assert [row.step for row in short] == [row.step for row in long]
        assert len(short) < 49 if patience else len(short) == 49
        for one, other in zip(short, long, strict=True):
            assert all(map(same, one.values, other.values))


def test_a_forged_state_of_a_following_step_is_refused(tmp_path: Path) -> None:
    from runner.record.checkpoints.state import Forged, check_state

    plan = compiled(measured(tmp_path, [1.0, 1.0], STEPS), tmp_path)
    state = initial_state(plan)
    contents = state_contents(plan, state)
    check_state(plan, initial_state(plan), contents)
    position = next(iter(contents["trackers"]))
    good = contents["trackers"][position]
    for wrong, match in (
        ([], "not a list of four values"),
        ([1.0, *good[1:]], "the best result of step"),
        ([good[0], -1, *good[2:]], "the evaluations of step"),
        ([*good[:2], 1 << 70, good[3]], "the cooldown of step"),
        ([*good[:3], 1], "whether step"),
        ([*good[:3], True], "`values` has no `valid.merit`"),
    ):
        forged = {**contents, "trackers": {**contents["trackers"], position: wrong}}
        with pytest.raises(Forged, match=match):
            check_state(plan, initial_state(plan), forged)
    with pytest.raises(Forged, match="it is not a mapping"):
        check_state(plan, initial_state(plan), {k: v for k, v in contents.items() if k != "trackers"})
