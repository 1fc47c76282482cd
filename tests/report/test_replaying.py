"""Rows that are computed again: the value and the gradient of each node are those of torch written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import runner
from runner.plan.streams import stream_seed
from runner.report.run.numbers import written
from runner.report.run.stepping.replaying import replays
from runner.report.run.subject import Subject, read_subject
from tests.manifests import manifest_fields
from tests.report.runs import CONFIGS, data_of, record
from tests.tables import over

DATA = CONFIGS / "data"

NETWORK = """\
parameters: {w: {shape: [3, 4], init: normal}, b: {shape: [4], init: zeros}}
constants: {x: {shape: [5, 3], init: normal}}
expression: |
  a = x @ w
  h = tanh(a + b)
  loss = h.square().sum()
optimizer: {sgd: {lr: 0.1}}
steps: [STEPS]
"""

DIGITS = f"""\
parameters: {{w: {{shape: [10, 64], init: normal}}, b: {{shape: [10], init: zeros}}}}
data: {{train: {{file: {DATA}/digits.npz, columns: {{images: images, labels: labels}}, dtype: {{images: float32}},
  batch_size: 500, shuffle: true}}}}
expression: |
  scores = linear(images.flatten(1), w, b)
  loss = cross_entropy(scores, labels)
optimizer: {{adam: {{lr: 0.01}}}}
steps: STEPS
"""


def subject_of(run: Path, *allowed: Path) -> Subject:
    return read_subject(run, allowed)


def by_name(subject: Subject, position: int) -> Mapping[str, tuple[Any, Any]]:
    """The value and the gradient of inputs and named values in a row."""
    found = replays(subject)
    assert found.reason is None
    assert found.differs == 0.0
    computation, flow = found.flows[position].computation, found.flows[position].flow
    assert subject.plan is not None
    nodes = {name: node for name, node in subject.plan.lowered.values.items() if node in flow}
    nodes |= {node.meta["input"]: node for node in computation.nodes if node.op == "placeholder"}
    return {name: flow[node] for name, node in nodes.items()}


@pytest.mark.parametrize(
    "steps",
    ["zero_grad, backward, step, zero_grad, backward, step", "backward, step, backward, step", "train, train"],
)
def test_each_node_has_the_value_and_gradient_of_torch(steps: str, tmp_path: Path) -> None:
    subject = subject_of(record(NETWORK.replace("STEPS", steps), tmp_path))
    rows = list(subject.run)
    start = runner.engine.initial_state(subject.plan)
    checked = 0
    for place, row in enumerate(rows):
        if row.step not in ("backward", "train"):
            continue
        before = rows[place - 1]
        w, b = (before[name].clone().requires_grad_() for name in ("w", "b"))
        x = start.constants["x"]
        a = x @ w
        a.retain_grad()
        h = torch.tanh(a + b)
        h.retain_grad()
        loss = h.square().sum()
        loss.retain_grad()
        loss.backward()
        found = by_name(subject, place)
        expected = {"x": x, "w": w, "b": b, "a": a, "h": h, "loss": loss}
        assert set(found) == set(expected)
        for name, tensor in expected.items():
            value, gradient = found[name]
            assert torch.equal(value, tensor)
            assert (gradient is None) == (tensor.grad is None)
            assert gradient is None or torch.equal(gradient, tensor.grad)
        checked += 1
    assert checked == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        "{epochs: 2}",
        "[{repeat: {times: 7, steps: [train]}}]",
        "[{repeat: {times: 2, steps: [{for_each: {data: train, epochs: 1, steps: [zero_grad, backward, step]}}]}}]",
    ],
    ids=["epochs", "repeat", "nested"],
)
def test_a_row_is_computed_from_its_own_batch(steps: str, tmp_path: Path) -> None:
    """The gradient of a weight in the graph is the one that the log has for the row."""
    subject = subject_of(record(DIGITS.replace("STEPS", steps), tmp_path, allowed=[DATA]), DATA)
    found = replays(subject)
    assert (found.reason, found.differs) == (None, 0.0)
    rows = list(subject.run)
    computing = [place for place, row in enumerate(rows) if row.step in ("train", "backward")]
    assert list(found.flows) == computing
    for place in computing:
        _, gradient = by_name(subject, place)["w"]
        assert torch.equal(gradient, rows[place]["w.grad"])
        images, _ = by_name(subject, place)["images"]
        labels, _ = by_name(subject, place)["labels"]
        before = rows[place - 1]
        scores = F.linear(images.flatten(1), before["w"], before["b"])
        assert torch.equal(F.cross_entropy(scores, labels), rows[place]["loss"])


RANDOM = """\
parameters: {w: {shape: [3, 4], init: normal}, noise: {shape: [2], init: zeros}}
constants: {x: {shape: [5, 3], init: normal}}
expression: |
  h = dropout(x @ w, 0.5, training)
  loss = h.square().sum()
optimizer: OPTIMIZER
steps:
  - assign: {noise: randn(2)}
  - repeat:
      times: 2
      steps:
        - train
        - {forward: loss, every: 2}
        - {assign: {noise: randn(2)}, when: "randn(1)[0] > -9"}
  - zero_grad
  - backward
"""
OPTIMIZERS = {"sgd": "{sgd: {lr: 0.1}, parameters: [w]}", "lbfgs": "{lbfgs: {lr: 0.1, max_iter: 2}, parameters: [w]}"}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_random_numbers_are_those_of_the_row(optimizer: str, tmp_path: Path) -> None:
    """Each evaluation has a stream, whose number is counted by hand here; L-BFGS shows its first evaluation."""
    run = record(RANDOM.replace("OPTIMIZER", OPTIMIZERS[optimizer]), tmp_path)
    before = torch.get_rng_state()
    subject = subject_of(run)
    found = replays(subject)
    assert (found.reason, found.differs) == (None, 0.0)
    assert torch.equal(torch.get_rng_state(), before)
    rows = list(subject.run)
    assert [row.step for row in rows[1:]] == [
        *("assign", "train", "assign", "train", "forward", "assign", "zero_grad", "backward")
    ]
    start = runner.engine.initial_state(subject.plan)
    numbers = {2: 2, 4: 4, 5: 5, 8: 7}  # of the row, the stream: each `assign` draws too
    assert list(found.flows) == list(numbers)
    for place, number in numbers.items():
        w = rows[place - 1]["w"].clone().requires_grad_()
        torch.manual_seed(stream_seed(0, "expression", "", number))
        h = F.dropout(start.constants["x"] @ w, 0.5)
        h.retain_grad()
        loss = h.square().sum()
        assert torch.equal(loss, rows[place]["loss"])
        loss.backward()
        value, gradient = by_name(subject, place)["h"]
        assert torch.equal(value, h)
        assert gradient is None if rows[place].step == "forward" else torch.equal(gradient, h.grad)


TWO = """\
parameters: {w: 2.0, v: 3.0}
expression: |
  first = w * w
  second = first * v
optimizers: {a: {sgd: {lr: 0.1}, parameters: [w]}, b: {sgd: {lr: 0.1}, parameters: [v]}}
steps: [{backward: first}, zero_grad, {backward: second}]
"""


def test_the_graph_of_an_objective_has_the_gradients_of_that_objective_alone(tmp_path: Path) -> None:
    graphs = {each["objective"]: each for each in data_of(record(TWO, tmp_path), "steps")["graphs"]}
    computed = {name: [state.startswith("The value") for state in graphs[name]["states"]] for name in graphs}
    assert computed == {"first": [False, True, False, False], "second": [False, False, False, True]}
    names = [node["label"] for node in graphs["second"]["nodes"]]
    gradients = {name: gradient for name, (_, gradient) in zip(names, graphs["second"]["flows"][3], strict=True)}
    assert (gradients["w"], gradients["v"]) == ("12", "4")
    assert ["4", "1"] in graphs["first"]["flows"][1]


REASONS = {
    "the log leaves out rows, and with them how often random numbers were drawn": NETWORK.replace(
        "tanh(a + b)", "dropout(a + b, 0.5)"
    ).replace("STEPS", "{repeat: {times: 9, steps: [zero_grad, backward, step]}}")
    + "log: {every: 2}\n",
    "the log has no elements of `w`": NETWORK + "log: {include: [loss, b]}\n",
    "the log has no `loss` to compare with": NETWORK + "log: {include: [w, b]}\n",
    "the log leaves out rows, and with them the weights before a `train` step": NETWORK.replace(
        "STEPS", "{repeat: {times: 9, steps: [train]}}"
    )
    + "log: {every: 3}\n",
    "a step with micro-batches computes its objective several times": NETWORK,
}


@over("reason", list(REASONS))
def test_without_what_it_needs_a_row_is_not_computed(reason: str, tmp_path: Path) -> None:
    folder = tmp_path / str(list(REASONS).index(reason))
    steps = "{train: {accumulate: 2}}" if "micro" in reason else "train, train"
    run = record(REASONS[reason].replace("STEPS", steps), folder)
    found = replays(subject_of(run))
    assert (dict(found.flows), found.reason) == ({}, reason)
    states = data_of(run, "steps")["graphs"][0]["states"]
    assert any(f"Inner values and gradients cannot be computed again: {reason}." in state for state in states)


def test_an_objective_that_comes_out_differently_is_not_shown(tmp_path: Path) -> None:
    run = record(NETWORK.replace("STEPS", "train, train"), tmp_path)
    subject = subject_of(run)
    for values in subject.numbers["loss"], {}:
        for position in values:
            values[position] *= 1.01  # type: ignore[index]
    found = replays(subject)
    assert (dict(found.flows), found.reason) == ({}, "`loss` of a row comes out with another value")


def test_a_changed_config_gives_no_graph(tmp_path: Path) -> None:
    run = record(NETWORK.replace("STEPS", "train, train"), tmp_path)
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    subject = subject_of(run)
    assert subject.plan is None
    assert subject.unplanned == (
        "config.yaml has changed since the run began: `optimizer.sgd.lr` was `0.1` and is `0.2`"
    )


def test_a_config_with_vast_tensors_is_planned_and_not_computed(tmp_path: Path) -> None:
    """The tensors of a stranger's config are not made."""
    run = record(NETWORK.replace("STEPS", "train, train"), tmp_path)
    vast = NETWORK.replace("STEPS", "train, train").replace("{shape: [5, 3]", "{shape: [3000000000, 3]")
    (run / "config.yaml").write_text(vast)
    manifest = manifest_fields(run / "run.json")
    del manifest["config_fields"]
    (run / "run.json").write_text(json.dumps(manifest))
    found = replays(subject_of(run))
    assert (dict(found.flows), found.reason) == ({}, "its tensors and data take more than 256 MiB")


def test_changed_data_give_no_inner_values(tmp_path: Path) -> None:
    data = tmp_path / "people.csv"
    data.write_text("x,y\n1,2\n2,4\n3,6\n")
    config = """\
parameters: {w: 1.0}
data: {train: {file: people.csv, columns: {x: x, y: y}, dtype: {x: float32, y: float32}, batch_size: 3}}
expression: loss = (x * w - y).square().mean()
optimizer: {sgd: {lr: 0.01}}
steps: {epochs: 3}
"""
    run = record(config, tmp_path)
    assert replays(subject_of(run, tmp_path)).reason is None
    data.write_text("x,y\n1,2\n2,4\n3,7\n")
    found = replays(subject_of(run, tmp_path))
    assert found.reason == f"the data cannot be read again: {data} has changed since the run began"


def test_data_outside_of_the_allowed_folders_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = record(DIGITS.replace("STEPS", "{epochs: 1}"), tmp_path / "run", allowed=[DATA])
    subject = subject_of(run)
    assert subject.plan is None
    assert subject.unplanned is not None
    assert "outside" in subject.unplanned


@over(
    ("value", "text"),
    [
        (torch.tensor(1.5), "1.5"),
        (torch.tensor([1, 2, 3]), "[1, 2, 3]"),
        (torch.tensor([[True, False]]), "[[true, false]]"),
        (torch.tensor([float("nan"), float("inf"), -0.0]), "[nan, inf, -0]"),
        (torch.tensor(2**62), "4,611,686,018,427,387,904"),
        (torch.full((17,), 2.0), "norm 8.246, from 2 to 2"),
        (torch.tensor([0.0] + [2.0] * 16), "norm 8, from 0 to 2, 1 zero"),
        (torch.tensor([float("nan")] * 20), "20 nan of 20 elements"),
        (torch.tensor([float("nan"), *range(-3, 16)]), "1 nan of 20 elements; the others are from -3 to 15"),
        (torch.tensor([float("nan"), float("inf")] * 20), "20 nan and 20 infinite of 40 elements"),
        (torch.tensor([1 + 2j]), "[1+2j]"),
        (torch.zeros(0), "[]"),
    ],
)
def test_a_tensor_as_text(value: torch.Tensor, text: str) -> None:
    assert written(value) == text
