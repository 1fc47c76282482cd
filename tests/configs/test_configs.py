"""Every example runs, its expectations hold, and they are not idle: what they pin cannot move unnoticed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

import runner
from tests.configs.long_examples import LONG_EXAMPLES
from tests.effort import thinned
from tests.tables import over

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
OFF = 1.01

PERTURBATIONS = {
    "fine-tune-from-run": [
        ("from_run: data/pretrained-digits.safetensors", "from_run: null"),
        ("images.flip(2).flatten(1)", "images.flatten(1)"),
        ("{adam: {lr: 0.02}}", "{adam: {lr: 1e-5}}"),
        ("w1: {shape: [64, 32], init: zeros, requires_grad: false}", "w1: {shape: [64, 32], init: zeros}"),
    ],
    "linear": [
        ("{sgd: {lr: learning_rate}}", "{sgd: {lr: 1.01 * learning_rate}}"),
        ("10 * x1", "10.1 * x1"),
        ("shape: [1], init: 30}", "shape: [1], init: 30.3}"),
    ],
    "parameter": [
        ("learning_rate: 2", "learning_rate: 2.02"),
        ("init: 666", "init: 672.66"),
        ("init: ones", "init: zeros"),
    ],
    "manual-update": [
        ("learning_rate: 0.01", "learning_rate: 0.0101"),
        ("x3 - learning_rate * x3.grad", "x3 + learning_rate * x3.grad"),
    ],
    "linear-regression": [
        ("{sgd: {lr: learning_rate}}", "{sgd: {lr: 1.01 * learning_rate}}"),
        ("+ offset", "+ 1.01 * offset"),
        ("times: 200", "times: 20"),
    ],
    "logistic-regression": [
        ("per_hour: 0", "per_hour: 0.01"),
        ("hours + offset", "1.01 * hours + offset"),
        ("times: 3", "times: 0"),
    ],
    "digits": [
        ("lr: 0.01}", "lr: 0.00001}"),
        ("epochs: 8", "epochs: 1"),
        ("flatten(1) / 16", "flatten(1) / 1600"),
    ],
    "two-optimizers": [("lr: 0.1,", "lr: 0.101,"), ("lr: 0.2,", "lr: 0.202,"), ("point_y - 1", "point_y - 1.01")],
    "physics": [
        ("acceleration + u)", "acceleration + 1.01 * u)"),
        ("times: 20", "times: 1"),
        ("u = 1 +", "u = 1.01 +"),
    ],
    "polynomial-sgd": [
        ("{lr: 0.8}", "{lr: 0.808}"),
        ("predicted = powers", "predicted = 1.01 * powers"),
        ("times: 900", "times: 90"),
    ],
    "polynomial-lbfgs": [
        ("{line_search_fn", "{max_iter: 4, line_search_fn"),
        (
            "extends: polynomial-sgd.yaml",
            "extends: polynomial-sgd.yaml\nexpression: loss = mean((1.01 * powers @ coefficients - y) ** 2)",
        ),
    ],
    "logistic-exact": [
        ("{lr: 8}", "{lr: 8.08}"),
        ("(degrees - 70) / 10", "1.01 * (degrees - 70) / 10"),
        ("53.0", "53.53"),
        ("times: 100", "times: 10"),
    ],
    "matrix-factorisation": [
        ("lr: 0.005", "lr: 0.00505"),
        ("guess = people", "guess = 1.01 * people"),
        ("times: 500", "times: 50"),
    ],
    "rosenbrock": [
        ("{sgd: {lr: 0.001}", "{sgd: {lr: 0.00101}"),
        ("lr: 0.0005", "lr: 0.000505"),
        ("momentum: 0.9,", "momentum: 0.909,"),
        ("{lr: 0.002}", "{lr: 0.00202}"),
        ("{lr: 0.05}", "{lr: 0.0505}"),
        ("{line_search_fn", "{max_iter: 4, line_search_fn"),
        ("100 * (p[1]", "101 * (p[1]"),
    ],
    "sharpness-aware": [
        ("lr: 0.1}, parameters: [plain]", "lr: 0.101}, parameters: [plain]"),
        ("lr: 0.1}, parameters: [aware]", "lr: 0.101}, parameters: [aware]"),
        ("rho: 0.2", "rho: 0.202"),
        ("plain_loss = (plain.prod() - 1)", "plain_loss = (plain.prod() - 1.01)"),
        ("aware_loss = (aware.prod() - 1)", "aware_loss = (aware.prod() - 1.01)"),
        ("{aware: held}", "{aware: aware}"),
    ],
    "moving-average": [
        ("{lr: 1}", "{lr: 1.01}"),
        ("0.9 * average", "0.909 * average"),
        ("0.1 * w", "0.101 * w"),
        ("[0.2, 1.6, 1.95]", "[0.2, 1.6, 1.9695]"),
    ],
    "own-optimizer": [
        ("  lr: 0.01", "  lr: 0.0101"),
        ("beta1: 0.9", "beta1: 0.909"),
        ("beta2: 0.99", "beta2: 0.9801"),
        ("(grad - mean)", "(grad - 1.01 * mean)"),
        ("predicted = fastest", "predicted = 1.01 * fastest"),
    ],
    "schedule": [
        ("linear_lr(0.2,", "linear_lr(0.202,"),
        ("cosine_annealing_lr(0.2,", "cosine_annealing_lr(0.202,"),
        ("T_max=90", "T_max=91"),
        ("predicted = exponent", "predicted = 1.01 * exponent"),
    ],
    "gan": [
        ("lr: critic_rate *", "lr: 1.01 * critic_rate *"),
        ("lr: generator_rate *", "lr: 1.01 * generator_rate *"),
        ("centre + spread * randn", "centre + 0.4 + spread * randn"),
        ("dim=1) - 1) ** 2", "dim=1) - 2) ** 2"),
        ("times: 200", "times: 20"),
    ],
    "variational-autoencoder": [
        ("{adam: {lr: lr}}", "{adam: {lr: 1.01 * lr}}"),
        ('reduction="sum") /', 'reduction="sum") * 1.01 /'),
        ("mean ** 2 - 1 -", "mean ** 2 - 1.01 -"),
        ("exp(log_variance / 2) *", "0 * exp(log_variance / 2) *"),
        ("times: 300", "times: 3"),
    ],
    "transformer": [
        ("{adam: {lr: lr}}", "{adam: {lr: 1.01 * lr}}"),
        ("loss = cross_entropy(", "loss = 1.01 * cross_entropy("),
        (".triu(1)", ".triu(2)"),
        ("* log(frequency)", "* 1.01 * log(frequency)"),
        ("times: 40", "times: 10"),
    ],
    "damped-oscillator": [
        ("exp(-0.25 * t)", "exp(-0.2525 * t)"),
        ("cos(2 * t)", "cos(2.02 * t)"),
        ("u = amplitude *", "u = 1.01 * amplitude *"),
        ("times: 10", "times: 1"),
    ],
    "oscillator-equation": [
        ("4.0625 * u", "4.1 * u"),
        ("friction * velocity", "1.01 * friction * velocity"),
        ("times: 30", "times: 3"),
    ],
    "gradient-accumulation": [
        ("{sgd: {lr: lr}}", "{sgd: {lr: 1.01 * lr}}"),
        ("targets[n // 2:]) ** 2) / 2", "targets[n // 2:]) ** 2) / 2.02"),
        ("targets[:n // 2]) ** 2) / 2", "targets[:n // 2]) ** 2) / 2.02"),
        ("(inputs @ whole - targets)", "(inputs @ whole - 1.01 * targets)"),
        ("times: 25", "times: 24"),
    ],
    "micro-batches": [
        ("whole: {sgd: {lr: lr}", "whole: {sgd: {lr: 1.01 * lr}"),
        ("parts: {sgd: {lr: lr}", "parts: {sgd: {lr: 1.01 * lr}"),
        ("max_norm: 0.5", "max_norm: 0.505"),
        ("batch_size: 8", "batch_size: 6"),
        ("parts_loss = mean(", "parts_loss = 1.01 * mean("),
        ("times: 100", "times: 10"),
    ],
    "early-stopping": [
        ("  lr: 0.2", "  lr: 0.202"),
        ("best_step >= patience", "best_step > patience"),
        ("(features(x) @ weights - y)", "(features(x) @ weights - 1.01 * y)"),
        ("times: 1000", "times: 150"),
    ],
    "fine-tuning": [
        ("lr: 0.05}", "lr: 0.0505}"),
        ("t <= 20", "t <= 19"),
        ("t <= 20", "t <= 21"),
        ("0 if t <= 20", "1e-4 if t <= 20"),
        ("predicted - y) ** 2)", "predicted - y) ** 2) * 1.01"),
        ("times: 200", "times: 2"),
    ],
    "plateau": [
        ("@ weights - y) ** 2", "@ weights - 1.01 * y) ** 2"),
        ("factor: 0.5", "factor: 0.9"),
        ("min_lr: 0.005", "min_lr: 0.00505"),
        ("times: 200", "times: 10"),
    ],
    "bfloat16": [
        ("loss = mse_loss(fitted", "loss = 1.01 * mse_loss(fitted"),
        ("fitted = features", "fitted = 1.01 * features"),
        ("times: 100", "times: 5"),
    ],
    "tabular": [
        ("train.x.std(0)", "train.x.std(0) / 2"),
        ("batch_size: 32", "batch_size: 24"),
        ("{adam: {lr: 0.01}}", "{adam: {lr: 0.02}}"),
        ("loss = cross_entropy(", "loss = 1.01 * cross_entropy("),
    ],
    "imbalanced": [
        ("counts.sum() / (2 * counts)", "counts.sum() / (2.02 * sqrt(counts))"),
        ("share: [0, 0.7]", "share: [0, 0.6]"),
        ("max_iter: 60", "max_iter: 5"),
        ("score = (x - mean)", "score = 1.01 * (x - mean)"),
    ],
    "lstm": [
        ("{adam: {lr: 0.02}}", "{adam: {lr: 0.03}}"),
        ("{sum: errors, over: mask}", "{sum: 1.01 * errors, over: mask}"),
        ("epochs: 30", "epochs: 29"),
        ("accumulate: 2, ", ""),
    ],
    "batch-norm": [
        ("{adam: {lr: 0.01}}", "{adam: {lr: 0.0001}}"),
        ("momentum: 0.1", "momentum: 0.01"),
        ("loss = cross_entropy(", "loss = 1.01 * cross_entropy("),
        ("momentum * h.var(0)", "1.5 * momentum * h.var(0)"),
    ],
    "sweep-learning-rate": [
        ("  rate: 0.02", "  rate: 0.0002"),
        ("flatten(1) / 16", "flatten(1) / 1600"),
        ("w: {shape: [64, 10], init: zeros}", "w: {shape: [64, 10], init: xavier_normal}"),
    ],
    "sweep-folds": [
        ("{lbfgs: {line_search_fn", "{lbfgs: {max_iter: 4, line_search_fn"),
        ("(predicted - y) ** 2) + penalty", "(predicted - y) ** 2) + 1.01 * penalty"),
        ("times: 5", "times: 1"),
    ],
    "sweep-random": [
        ("{lr: rate,", "{lr: 1.01 * rate,"),
        ("momentum: momentum}", "momentum: 0.707}"),
        ("[1.0, 100.0]", "[1.01, 100.0]"),
    ],
    "convolution": [
        ("{adam: {lr: lr}}", "{adam: {lr: 1.01 * lr}}"),
        ("cross_entropy(scores, labels)", "1.01 * cross_entropy(scores, labels)"),
        ("times: 50", "times: 5"),
    ],
}
"""What to write instead, so that a config computes something else and must fail one of its expectations."""


class _Loader(yaml.SafeLoader):
    """Reads `on` and `off` as text, as YAML 1.2 and steprun do."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if first not in "oO" or not tag.endswith(":bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _document(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def execute(config: runner.Config) -> list[runner.Row]:
    return list(runner.execute(runner.compile(config)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_runs_and_its_expectations_hold(path: Path) -> None:
    assert execute(runner.load(path))


@over("path", CONFIGS)
def test_every_example_says_what_it_is_and_expects_something(path: Path) -> None:
    document = _document(path)
    assert document["description"]
    assert list(_expectations(document))


@pytest.mark.slow
@over(
    ("name", "old", "new"),
    thinned([(name, *change) for name, changes in PERTURBATIONS.items() for change in changes], itemgetter(0), 3),
    split=lambda name, *_: name,
    slow=LONG_EXAMPLES,
)
def test_an_example_that_computes_something_else_fails_an_expectation(name: str, old: str, new: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    steps = text.index("steps:")
    assert text.count(old, 0, steps if old in text[:steps] else None) == 1
    with pytest.raises(runner.ExpectationError, match="expect"):
        execute(runner.loads(text.replace(old, new, 1), base=str(FOLDER)))


def test_every_example_is_perturbed() -> None:
    assert sorted(PERTURBATIONS) == sorted(path.stem for path in CONFIGS)


def test_the_gallery_names_every_example() -> None:
    text = (FOLDER.parent / "docs" / "gallery.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[([\w-]+)\]\(\.\./configs/\1\.yaml\) \|", text, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in CONFIGS)


def _expectations(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every expectation of a document: the mapping that holds its value, and under which key."""
    if isinstance(node, list):
        for item in node:
            yield from _expectations(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key != "expect":
                yield from _expectations(value)
                continue
            for name, expected in value.items():
                yield (expected, "value") if isinstance(expected, dict) else (value, name)


def _off_by_one_per_cent(value: Any) -> Any:
    match value:
        case None:
            return 0  # no gradient is not a gradient of zero
        case str():
            return f"{OFF} * ({value})"
        case list():
            return [_off_by_one_per_cent(item) for item in value]
    return value * OFF or 0.01


PLACES = [
    pytest.param(path, place, id=f"{path.stem}-{place}")
    for path in CONFIGS
    for place, _ in enumerate(_expectations(_document(path)))
]


@pytest.mark.slow
@over(
    ("path", "place"),
    thinned(PLACES, lambda row: row.values[0], every=4),
    split=lambda path, _: path.stem,
    slow=LONG_EXAMPLES,
)
def test_an_expectation_off_by_one_per_cent_does_not_hold(path: Path, place: int) -> None:
    document = copy.deepcopy(_document(path))
    holder, key = list(_expectations(document))[place]
    holder[key] = _off_by_one_per_cent(holder[key])
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    with pytest.raises((runner.ExpectationError, runner.ConfigError), match="expect"):  # a constant has no gradient
        execute(runner.loads(text, base=str(FOLDER)))
