"""`load_model`: a run as a function, with the bits of the same model by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import runner
from runner.record.apply.model import MOST_COMPILED
from tests.apply.runs import by_hand, samples, table, trained
from tests.engine.running import same
from tests.tables import over


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> runner.Run:
    return trained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(run: runner.Run) -> runner.Model:
    return runner.load_model(run.path)


@pytest.mark.parametrize("length", [1, 2, 10, 53])
def test_a_model_has_the_bits_of_the_same_computation_by_hand(
    run: runner.Run, model: runner.Model, length: int
) -> None:
    x = samples(table(length, seed=5))
    expected = by_hand(run, x)
    found = model(x=x)
    for name, value in expected.items():
        assert same(found[name], value), name
        assert same(model.value(name, x=x), value), name
    assert not found["logits"].requires_grad


def test_a_model_gives_what_the_given_columns_suffice_for(model: runner.Model) -> None:
    x, y = samples(table(4)), torch.tensor([0, 1, 2, 0])
    without = ["h", "logits", "probabilities", "label", "centred", "noisy", "sure"]
    assert list(model(x=x)) == without
    assert list(model(x=x, y=y)) == ["h", "logits", "probabilities", "label", "centred", "noisy", "loss", "sure"]
    assert model.values == ("h", "logits", "probabilities", "label", "centred", "pair", "noisy", "loss", "sure")


def test_the_loss_of_a_model_is_that_of_evaluate(run: runner.Run, model: runner.Model) -> None:
    columns = table()
    x, y = samples(columns), torch.from_numpy(columns["y"])
    logits = by_hand(run, x)["logits"]
    weights = len(y) / (3.0 * torch.bincount(y))
    expected = torch.nn.functional.cross_entropy(logits, y, weight=weights)
    assert same(model.value("loss", x=x, y=y), expected)


def test_a_model_describes_itself(run: runner.Run, model: runner.Model) -> None:
    assert repr(model) == "<Model of wine: h, logits, probabilities, label, centred, pair, noisy, loss, sure>"
    assert {name: (column.shape, column.dtype) for name, column in model.columns.items()} == {
        "x": ((2,), torch.float32),
        "y": ((), torch.int64),
    }
    assert set(model.parameters) == {"w1", "w2"}
    last = run.tensor("w1")[-1]
    assert same(model.parameters["w1"], last)


def test_a_model_needs_no_data_file(tmp_path: Path) -> None:
    run = trained(tmp_path)
    x = samples(table(3))
    expected = by_hand(run, x)["label"]
    (tmp_path / "train.csv").unlink()
    assert same(runner.load_model(run.path).value("label", x=x), expected)


def test_compiled_functions_are_bounded(model: runner.Model) -> None:
    for length in range(1, MOST_COMPILED + 9):
        model.value("label", x=torch.zeros(length, 2))
    assert len(model._compiled) == MOST_COMPILED


@over(
    "arguments, message",
    [
        ({"x": torch.zeros(3, 3)}, r"`x` has shape \(3, 3\), and the run's has \(samples, 2\)"),
        ({"x": torch.zeros(2)}, r"`x` has shape \(2,\), and the run's has \(samples, 2\)"),
        ({"x": torch.tensor(1.0)}, r"`x` has shape \(\), and the run's has \(samples, 2\)"),
        ({"x": torch.zeros(3, 2).double()}, r"`x` is float64, and the run's is float32\n.*x.to\(torch.float32\)"),
        ({"x": torch.zeros(0, 2)}, r"the batch has no samples"),
        ({"x": torch.zeros(3, 2, device="meta")}, r"`x` is on the meta device, without values\n.*a tensor of numbers"),
        ({"x": [[1.0, 2.0]]}, r"`x` is a list\n.*pass a torch tensor"),
        ({"xx": torch.zeros(3, 2)}, r"the run has no column `xx`\n.*did you mean `x`\?"),
        (
            {"x": torch.zeros(3, 2), "y": torch.zeros(4, dtype=torch.int64)},
            r"the columns have different numbers of samples: `x` has 3, `y` has 4",
        ),
    ],
)
def test_wrong_batches_are_usage_errors(
    arguments: dict[str, torch.Tensor], message: str, run: runner.Run, model: runner.Model
) -> None:
    with pytest.raises(runner.UsageError, match=message):
        model(**arguments)


@over(
    "name, message",
    [
        ("lable", r"the run has no named value `lable`\n.*did you mean `label`\?"),
        ("loss", r"`loss` needs the column `y`\n.*pass it: y=…"),
        ("pair", r"`pair` is not a tensor\n.*name a value that is one tensor"),
    ],
)
def test_wrong_values_are_usage_errors(name: str, message: str, run: runner.Run, model: runner.Model) -> None:
    with pytest.raises(runner.UsageError, match=message):
        model.value(name, x=torch.zeros(3, 2))


def test_a_value_that_differentiates_is_computed_without_a_graph(tmp_path: Path) -> None:
    text = """\
parameters: {w: {shape: [2], init: [0.5, -1.0]}}
data: {train: {file: train.csv, columns: {x: [a, b]}, batch_size: 5}}
functions: {"net(x)": "tanh(x @ w)"}
expression: |
  u = net(x)
  slope = grad(u.sum(), x)
  loss = (u ** 2).mean() + 0 * slope.sum()
optimizer: {sgd: {lr: 0.0}}
steps: 1
"""
    model = runner.load_model(trained(tmp_path, text).path)
    x = samples(table(4)).requires_grad_()
    w = model.parameters["w"]
    (expected,) = torch.autograd.grad(torch.tanh(x @ w).sum(), x)
    found = model.value("slope", x=x.detach())
    torch.testing.assert_close(found, expected)


def test_a_value_of_the_iteration_is_refused(tmp_path: Path) -> None:
    text = """\
parameters: {w: {shape: [2], init: [0.5, -1.0]}}
data: {train: {file: train.csv, columns: {x: [a, b]}, batch_size: 5}}
expression: |
  u = x @ w * iteration
  loss = u.mean()
optimizer: {sgd: {lr: 0.0}}
steps: 1
"""
    model = runner.load_model(trained(tmp_path, text).path)
    with pytest.raises(runner.UsageError, match="`u` depends on `iteration`, which counts the steps of a run"):
        model.value("u", x=torch.zeros(3, 2))


def test_a_run_without_such_weights_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path)
    with pytest.raises(runner.UsageError, match=r"has no checkpoint `bets`"):
        runner.load_model(run.path, at="bets")
    with pytest.raises(runner.UsageError, match=r"there is no folder .*nowhere"):
        runner.load_model(tmp_path / "nowhere")
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(runner.UsageError, match=r"kept no weights\n.*a run writes them when it ends"):
        runner.load_model(run.path)
    with pytest.raises(runner.ConfigError, match=r"cuda"):
        runner.load_model(run.path, device="cuda:99")
    with pytest.raises(runner.ConfigError, match=r"expected a device, found the text `gpu`"):
        runner.load_model(run.path, device="gpu")
