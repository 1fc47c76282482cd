"""Declared objectives, metrics that say how batches are combined, metrics of all samples, and short groups."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn.functional import binary_cross_entropy_with_logits

import runner
from runner.engine.state import initial_state
from runner.errors import HealthWarning
from runner.plan.compiler import PlanLimits
from tests.engine.compiled.plain import without_compiler
from tests.engine.running import compiled, rows_of, same

SAMPLES = 13


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = numpy.random.default_rng(1)
    mask = (draw.random(SAMPLES) < 0.5).astype("float64")
    mask[3:6] = 0  # a whole batch of three without samples that count
    numpy.savez(
        tmp_path / "d.npz",
        x=draw.normal(size=(SAMPLES, 3)),
        y=draw.integers(0, 2, SAMPLES),
        c=draw.integers(0, 3, SAMPLES),
        m=mask,
    )
    return tmp_path


def data(folder: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in numpy.load(folder / "d.npz").items()}


START = [0.3, -0.2, 0.5]


def config(steps: str, batch_size: int = 3, more: str = "", over: str = "m") -> str:
    return (
        f"dtype: float64\nparameters: {{w: {{init: {START}}}}}\n"
        "data:\n"
        f"  parts: {{file: d.npz, columns: {{x: x, y: y, m: m, c: c}}, batch_size: {batch_size}}}\n"
        "expression: |\n"
        "  s = x @ w\n"
        "  errors = binary_cross_entropy_with_logits(s, y.double(), reduction='none')\n"
        "  seen = c.sum() + m.sum()\n"
        f"objectives: {{loss: {{sum: errors * m, over: {over}}}}}\n"
        f"{more}optimizer: {{sgd: {{lr: 0.0}}}}\nsteps: {steps}\n"
    )


def by_hand(folder: Path, rows: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
    """The masked mean of some samples, and its gradient."""
    columns = {name: value[rows] for name, value in data(folder).items()}
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    errors = binary_cross_entropy_with_logits(columns["x"] @ w, columns["y"].double(), reduction="none")
    loss = (errors * columns["m"]).sum() / columns["m"].sum()
    loss.backward()
    assert w.grad is not None
    return loss.detach(), w.grad


def test_a_declared_objective_has_the_bits_of_its_ratio(folder: Path) -> None:
    loss, gradient = by_hand(folder)
    row = rows_of(config("[train]", SAMPLES), folder)[1]
    assert same(row["loss"], loss)
    assert same(row["w.grad"], gradient)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 12])
def test_micro_batches_weigh_by_over_also_without_samples_that_count(folder: Path, batch_size: int) -> None:
    groups = -(-SAMPLES // batch_size)
    loss, gradient = by_hand(folder)
    row = rows_of(config(f"[{{train: {{accumulate: {groups}}}}}]", batch_size), folder)[1]
    torch.testing.assert_close(row["loss"], loss)
    torch.testing.assert_close(row["w.grad"], gradient)


def test_over_may_read_a_parameter_without_its_gradient(folder: Path) -> None:
    over = "m + 0 * s.detach().abs()"
    row = rows_of(config("[{train: {accumulate: 5}}]", over=over), folder)[1]
    torch.testing.assert_close(row["w.grad"], by_hand(folder)[1])


@pytest.mark.parametrize("steps", ["[train]", "[backward, step]", "[{forward: loss}]"])
def test_the_first_objective_is_the_default_and_others_are_named(folder: Path, steps: str) -> None:
    text = config(steps, SAMPLES).replace("over: m}}", "over: m}, other: {sum: errors, over: len(x)}}")
    _, row, *_ = rows_of(text, folder)
    torch.testing.assert_close(row["loss"], by_hand(folder)[0])
    _, row = rows_of(text.replace(f"steps: {steps}", "steps: [{train: {objective: other}}]"), folder)
    errors = row["errors"]
    assert errors is not None
    torch.testing.assert_close(row["other"], errors.mean())


def test_finite_differences_agree_with_the_gradient_of_an_objective(folder: Path) -> None:
    def loss(w: torch.Tensor) -> float:
        listed = config("[{forward: loss}]", SAMPLES).replace(str(START), str(w.tolist()))
        found = rows_of(listed, folder)[1]["loss"]
        assert found is not None
        return float(found)

    row = rows_of(config("[{train: {accumulate: 5}}]"), folder)[1]
    start, gradient = torch.tensor(START, dtype=torch.float64), row["w.grad"]
    assert gradient is not None
    for place in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[place] = 1e-6
        assert (loss(start + step) - loss(start - step)) / 2e-6 == pytest.approx(float(gradient[place]), rel=1e-6)


def test_an_objective_whose_over_is_0_ends_the_run_and_says_so(folder: Path) -> None:
    with pytest.raises(runner.RunError, match="the sum of its `over` is 0") as caught:
        rows_of(config("[{repeat: {times: 3, steps: [train]}}]"), folder)
    (problem,) = caught.value.problems
    assert problem.message == "`loss` is nan: the sum of its `over` is 0 (row 2, repeat[2].train)"
    assert problem.hint == "leave no batch without samples that count, or draw larger ones"
    assert problem.path == "objectives.loss.over"


def test_evaluate_says_that_over_is_0_in_the_whole_source(folder: Path) -> None:
    with pytest.raises(runner.RunError, match=r"`parts.loss` is inf: the sum of its `over` is 0 \(row 1, evaluate\)"):
        rows_of(config("[{evaluate: parts}]", over="0 * m"), folder)


FORMS = """metrics:
  recall: {sum: (s > 0) & (y == 1), over: y == 1}
  per_sample: {sum: errors, over: len(x)}
  over_a_column: {sum: errors, over: m}
  total: {sum: errors}
  count: {sum: y == 1}
  average: {mean: errors}
  share: {mean: s > 0}
  worst: {max: errors}
  least: {min: errors}
  any_positive: {max: y == 1}
  correct: "accuracy(s > 0, y)"
  matrix: confusion_matrix(s > 0, y, 2)
  top: "top_k_accuracy(x, c, k=2)"
  auc: roc_auc(s, y)
  auc_of_classes: roc_auc(x, c)
  area: {whole: "roc_auc(s, y)"}
  ap: average_precision(s, y)
  f: "f1(s > 0, y)"
  precise: "precision(s > 0, y)"
  macro: "recall(x.argmax(1), c, 'macro', num_classes=3)"
  fit: "r2(s, y)"
  twice: 2 * roc_auc(s, y) - 1
  spread: {whole: s.std(correction=0) + w.norm()}
  median: {whole: "errors.median()"}
"""


def expected(folder: Path) -> dict[str, object]:
    found = data(folder)
    x, y, m, c = (found[name] for name in "xymc")
    s = x @ torch.tensor(START, dtype=torch.float64)
    errors = binary_cross_entropy_with_logits(s, y.double(), reduction="none")
    hits = (s > 0) == (y == 1)
    auc = sklearn_metrics.roc_auc_score(y, s)
    classes, best = c.numpy(), x.numpy().argmax(1)
    one = numpy.eye(3)[classes]
    return {
        "loss": (errors * m).sum() / m.sum(),
        "recall": sklearn_metrics.recall_score(y, s > 0),
        "per_sample": errors.mean(),
        "over_a_column": errors.sum() / m.sum(),
        "total": errors.sum(),
        "count": y.sum(),
        "average": errors.mean(),
        "share": (s > 0).double().mean(),
        "worst": errors.max(),
        "least": errors.min(),
        "any_positive": 1.0,
        "correct": hits.double().mean(),
        "matrix": sklearn_metrics.confusion_matrix(y, s > 0).tolist(),
        "top": sklearn_metrics.top_k_accuracy_score(c, x.numpy(), k=2, labels=range(3)),
        "auc": auc,
        "auc_of_classes": numpy.mean([sklearn_metrics.roc_auc_score(one[:, each], x[:, each]) for each in range(3)]),
        "area": auc,
        "ap": sklearn_metrics.average_precision_score(y, s),
        "f": sklearn_metrics.f1_score(y, s > 0),
        "precise": sklearn_metrics.precision_score(y, s > 0),
        "macro": sklearn_metrics.recall_score(classes, best, average="macro"),
        "fit": sklearn_metrics.r2_score(y, s),
        "twice": 2 * auc - 1,
        "spread": s.std(correction=0) + torch.tensor(START, dtype=torch.float64).norm(),
        "median": errors.median(),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 12, SAMPLES])
def test_every_form_is_exact_at_any_batch_size(folder: Path, batch_size: int) -> None:
    plan = compiled(config("[{evaluate: parts}]", batch_size, FORMS), folder)
    assert [problem.message for problem in plan.warnings] == ["no step uses the optimizer"]
    row = list(runner.execute(plan))[1]
    wanted = expected(folder)
    assert {column.name for column in row.columns if column.name.startswith("parts.")} == {f"parts.{n}" for n in wanted}
    for name, value in wanted.items():
        given = torch.as_tensor(value, dtype=torch.float64)
        torch.testing.assert_close(row[f"parts.{name}"], given, msg=lambda text, name=name: f"{name}: {text}")


def test_values_of_each_sample_may_lie_in_another_dimension(folder: Path) -> None:
    text = config("[{evaluate: parts}]", 4, "metrics: {a: {whole: features.std(1).sum()}}\n")
    text = text.replace("  seen", "  features = x.T * 2\n  seen")
    row = rows_of(text, folder)[1]
    torch.testing.assert_close(row["parts.a"], (2 * data(folder)["x"]).std(0).sum())


def test_a_row_of_training_has_the_metrics_of_its_batch(folder: Path) -> None:
    row = rows_of(config("[train]", 7, FORMS.replace("  matrix", "  x: {whole: x.sum()}\n  matrix")), folder)[1]
    found = {name: value[:7] for name, value in data(folder).items()}
    s = found["x"] @ torch.tensor(START, dtype=torch.float64)
    assert float(row["auc"]) == pytest.approx(sklearn_metrics.roc_auc_score(found["y"], s))  # type: ignore[arg-type]
    assert float(row["recall"]) == pytest.approx(sklearn_metrics.recall_score(found["y"], s > 0))  # type: ignore[arg-type]


def test_a_ratio_beside_a_declared_objective_is_that_of_all_micro_batches(folder: Path) -> None:
    metric = "metrics: {r: {sum: errors, over: y}, worst: {max: errors}, total: {sum: errors}}\n"
    row = rows_of(config("[{train: {accumulate: 5}}]", 3, metric), folder)[1]
    found = data(folder)
    errors = binary_cross_entropy_with_logits(
        found["x"] @ torch.tensor(START, dtype=torch.float64), found["y"].double(), reduction="none"
    )
    torch.testing.assert_close(row["r"], errors.sum() / found["y"].sum())
    torch.testing.assert_close(row["worst"], errors.max())
    torch.testing.assert_close(row["total"], errors.sum())


# what is not defined


@pytest.mark.parametrize("engine", ["eager", pytest.param("compile", marks=pytest.mark.slow)])
@pytest.mark.parametrize("policy", ["stop", "warn", "ignore"])
def test_a_metric_that_is_not_defined_is_null_with_one_warning_and_the_run_goes_on(
    folder: Path, engine: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if policy != "stop":  # one in machine code
        without_compiler(monkeypatch)
    metric = "metrics: {auc: 'roc_auc(s, y)', r: {sum: errors, over: y * 0}, acc: 'accuracy(s > 0, y)'}\n"
    head = f"engine: {engine}\non_nonfinite: {policy}\n"
    text = config("[{repeat: {times: 13, steps: [train]}}, {evaluate: parts}]", 1, head + metric, "m + 1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = rows_of(text, folder)
    assert [row["auc"] for row in rows] == [None] * 15
    assert [row["r"] for row in rows] == [None] * 15
    assert all(row["acc"] is not None for row in rows[1:14])
    assert rows[-1]["parts.auc"] is not None
    assert rows[-1]["parts.r"] is None
    said = [str(warning.message) for warning in caught if issubclass(warning.category, HealthWarning)]
    assert len(said) == 3
    assert "`auc` is nan, and null in its row (row 1, 1.repeat[1].train); later ones are not reported" in said[0]
    assert (
        "look for NaN in what it reads, or use more samples at once: these may be too few, or of one class" in said[0]
    )
    assert "`r` is nan" in said[1]
    assert "use more samples at once: the sum of its `over` is 0 where none counts" in said[1]
    assert "`parts.r` is nan" in said[2]


def test_a_later_step_reads_what_is_not_defined_as_nan(folder: Path) -> None:
    more = "metrics: {r: {sum: errors, over: y * 0}}\n"
    steps = "[{evaluate: parts}, {expect: {isnan(parts.r): true}}]"
    with pytest.warns(HealthWarning, match="is nan, and null"):
        assert len(rows_of(config(steps, more=more), folder)) == 2


def test_a_metric_that_is_not_finite_for_another_reason_still_ends_the_run(folder: Path) -> None:
    with pytest.raises(runner.RunError, match=r"`parts\.a` is nan"):
        rows_of(config("[{evaluate: parts}]", more="metrics: {a: {mean: log(s)}}\n"), folder)
    with pytest.raises(runner.RunError, match=r"`parts\.a` is nan"):
        rows_of(config("[{evaluate: parts}]", more="metrics: {a: {whole: log(s).sum()}}\n"), folder)


def test_a_metric_of_all_samples_may_be_undefined_in_a_row_of_training(folder: Path) -> None:
    metric = "metrics: {a: {whole: '(s - s.mean()).square().sum() / (s.shape[0] - 1)'}}\n"
    with pytest.warns(HealthWarning, match=r"`a` is nan, and null in its row"):
        rows = rows_of(config("[train, {evaluate: parts}]", 1, metric, "m + 1"), folder)
    assert rows[1]["a"] is None
    s = data(folder)["x"] @ torch.tensor(START, dtype=torch.float64)
    torch.testing.assert_close(rows[2]["parts.a"], s.var())


def test_a_class_out_of_range_is_an_error_at_its_place(folder: Path) -> None:
    with pytest.raises(runner.RunError, match="`target` has the class 2, and the classes are 0 to 1") as caught:
        rows_of(config("[{evaluate: parts}]", more="metrics: {a: 'f1(s > 0, c)'}\n"), folder)
    (problem,) = caught.value.problems
    assert problem.hint == "write `average='macro', num_classes=…` for more than two"
    assert problem.path == "metrics.a"


def test_a_function_of_the_config_takes_the_place_of_a_metric_with_a_warning(folder: Path) -> None:
    text = config(
        "[{evaluate: parts}]", more="functions: {'accuracy(a, b)': 0 * a.sum() + 7}\nmetrics: {a: 'accuracy(s, y)'}\n"
    )
    plan = compiled(text, folder)
    problem = plan.warnings[0]
    assert problem.message == "`accuracy` is a metric of steprun too, and this function takes its place"
    assert problem.hint == "remove it to use the metric: `steprun ops accuracy`"
    assert float(list(runner.execute(plan))[1]["parts.a"]) == 7  # type: ignore[arg-type]


# groups of micro-batches


@pytest.mark.parametrize("accumulate", [2, 3, 4, 5, 9])
def test_the_last_group_of_a_pass_has_the_batches_that_are_left(folder: Path, accumulate: int) -> None:
    steps = f"[{{for_each: {{data: parts, epochs: 2, steps: [{{train: {{accumulate: {accumulate}}}}}]}}}}]"
    rows = rows_of(config(steps, over="m + 1"), folder)[1:]
    groups = [slice(start, start + 3 * accumulate) for start in range(0, SAMPLES, 3 * accumulate)] * 2
    assert len(rows) == len(groups)
    found = data(folder)
    for row, group in zip(rows, groups, strict=True):
        w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
        errors = binary_cross_entropy_with_logits(found["x"][group] @ w, found["y"][group].double(), reduction="none")
        loss = (errors * found["m"][group]).sum() / (found["m"][group] + 1).sum()
        loss.backward()
        torch.testing.assert_close(row["errors"], errors.detach())
        torch.testing.assert_close(row["loss"], loss.detach())
        torch.testing.assert_close(row["w.grad"], w.grad)


def test_a_short_group_of_a_mean_weighs_by_length(folder: Path) -> None:
    text = config("[{for_each: {data: parts, steps: [{train: {accumulate: 2, objective: mean}}]}}]")
    text = text.replace("  seen", "  mean = errors.mean()\n  seen")
    rows = rows_of(text, folder)[1:]
    assert [None if (errors := row["errors"]) is None else len(errors) for row in rows] == [6, 6, 1]
    for row in rows:
        errors = row["errors"]
        assert errors is not None
        torch.testing.assert_close(row["mean"], errors.mean())


def test_a_run_that_resumes_before_a_short_group_ends_in_the_same_bits(folder: Path) -> None:
    steps = "[{for_each: {data: parts, epochs: 2, steps: [{train: {accumulate: 2}}]}}]"
    plan = compiled(config(steps, over="m + 1").replace("lr: 0.0", "lr: 0.1"), folder)
    whole = list(runner.execute(plan))
    state = initial_state(plan)
    steps_of = runner.execute(plan, state)
    first = [next(steps_of) for _ in range(3)]
    rest = list(runner.execute(plan, state))
    assert len(first) + len(rest) == len(whole)
    assert same(rest[-1]["w"], whole[-1]["w"])


# memory


def test_gathered_values_count_in_the_estimate(folder: Path) -> None:
    numpy.savez(
        folder / "d.npz",
        x=numpy.zeros((400_000, 3)),
        y=numpy.zeros(400_000, int),
        c=numpy.zeros(400_000, int),
        m=numpy.ones(400_000),
    )
    without = compiled(config("[{evaluate: parts}]", 1000), folder).estimates.data
    gathered = compiled(config("[{evaluate: parts}]", 1000, "metrics: {auc: 'roc_auc(s, y)'}\n"), folder).estimates.data
    assert gathered - without >= 2 * 400_000 * 16
    limits = PlanLimits(memory=40_000_000)
    text = config("[{evaluate: parts}]", 1000, "metrics: {auc: 'roc_auc(s, y)'}\n")
    with pytest.raises(runner.ConfigError, match=r"this run needs about .* MiB, but only 38.1 MiB are available"):
        runner.compile(runner.loads(text, base=str(folder)), limits=limits)


def test_infinite_scores_are_ranked_and_do_not_end_a_run(folder: Path) -> None:
    row = rows_of(config("[{evaluate: parts}]", more="metrics: {a: 'roc_auc(where(s > 0, inf, s), y)'}\n"), folder)[1]
    value = row["parts.a"]
    assert value is not None
    assert not math.isnan(value)
