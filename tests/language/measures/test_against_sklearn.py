"""The metrics of the language against scikit-learn: random predictions, ties, one class, none, NaN."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runner import catalogue
from runner.language import measures
from runner.language.measures.operands import FEW, OperandError

Array = Any
CLASSES = 4


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """scikit-learn warns of what is not defined; here it is an expected result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def draws(count: int = 60) -> Iterator[tuple[numpy.random.Generator, int]]:
    """Generators, each with a number of samples from 2 on."""
    for seed in range(count):
        draw = numpy.random.default_rng(seed)
        yield draw, int(draw.integers(2, 30))


def close(found: Tensor, expected: float) -> None:
    assert found.shape == ()
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


def tensors(*arrays: Array) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_every_metric_of_the_table_has_its_function_and_names_its_equal_in_scikit_learn() -> None:
    assert sorted(catalogue.measures()) == sorted(measures.__all__)
    for name, operation in catalogue.measures().items():
        assert operation.target == f"runner.language.measures.{name}"
        (equal,) = [flag for flag in operation.flags if flag.startswith("sklearn.")]
        assert callable(getattr(metrics, equal.rpartition(".")[2]))


def test_metrics_of_many_models_at_once_are_computed_under_vmap() -> None:
    draw = numpy.random.default_rng(0)
    predictions, target = draw.integers(0, CLASSES, (3, 20)), draw.integers(0, CLASSES, 20)
    few, true = tensors(predictions, target)
    found = torch.func.vmap(lambda each: measures.accuracy(each, true))(few)
    expected = [metrics.accuracy_score(target, each) for each in predictions]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    numbers = draw.normal(size=(3, 20))
    (each,) = tensors(numbers)
    squares = torch.func.vmap(lambda row: measures.r2(row, each[0]))(each)
    assert squares.tolist() == pytest.approx([metrics.r2_score(numbers[0], row) for row in numbers], rel=1e-12)


def test_signatures_are_those_of_the_functions() -> None:
    import inspect

    for name, operation in catalogue.measures().items():
        (overload,) = operation.overloads
        taken = inspect.signature(getattr(measures, name)).parameters
        defaults = [None if each.default is inspect.Parameter.empty else repr(each.default) for each in taken.values()]
        assert [argument.name for argument in overload] == list(taken), name
        assert [argument.default for argument in overload] == defaults, name


def test_accuracy() -> None:
    for draw, samples in draws():
        scores, target = draw.normal(size=(samples, CLASSES)), draw.integers(0, CLASSES, samples)
        expected = metrics.accuracy_score(target, scores.argmax(1))
        close(measures.accuracy(*tensors(scores.argmax(1), target)), expected)
        close(measures.accuracy(*tensors(scores, target)), expected)
        close(measures.accuracy(*tensors(scores.astype("float32"), target.astype("float32"))), expected)


@pytest.mark.parametrize("k", [1, 2, 3, CLASSES, 9])
def test_top_k_accuracy_also_with_equal_scores(k: int) -> None:
    for draw, samples in draws():
        score, target = numpy.round(draw.normal(size=(samples, CLASSES))), draw.integers(0, CLASSES, samples)
        expected = metrics.top_k_accuracy_score(target, score, k=k, labels=range(CLASSES))
        close(measures.top_k_accuracy(*tensors(score, target), k=k), expected)


def test_confusion_matrix_has_targets_as_rows() -> None:
    for draw, samples in draws():
        prediction, target = draw.integers(0, CLASSES, samples), draw.integers(0, CLASSES, samples)
        expected = metrics.confusion_matrix(target, prediction, labels=range(CLASSES))
        found = measures.confusion_matrix(*tensors(prediction, target), num_classes=CLASSES)
        assert found.dtype == torch.int64
        assert found.tolist() == expected.tolist()


OF_CLASSES: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    "precision": (measures.precision, metrics.precision_score),
    "recall": (measures.recall, metrics.recall_score),
    "f1": (measures.f1, metrics.f1_score),
}


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_metric_of_two_classes_is_nan_where_scikit_learn_divides_by_0(name: str) -> None:
    found, expected = OF_CLASSES[name]
    for draw, samples in draws():
        chance = draw.choice([0.0, 0.1, 0.5, 1.0], size=2)
        prediction, target = ((draw.random(samples) < each).astype(int) for each in chance)
        close(found(*tensors(prediction, target)), expected(target, prediction, zero_division=numpy.nan))
        close(found(*tensors(prediction > 0, target.astype("float32"))), float(found(*tensors(prediction, target))))


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_metric_of_several_classes_leaves_out_those_that_do_not_occur(name: str, average: str) -> None:
    found, expected = OF_CLASSES[name]
    for draw, samples in draws():
        prediction, target = draw.integers(0, CLASSES, samples), draw.integers(0, draw.integers(1, CLASSES), samples)
        result = found(*tensors(prediction, target), average=average, num_classes=CLASSES + 2)
        close(result, expected(target, prediction, average=average))


RANKING: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    "roc_auc": (measures.roc_auc, metrics.roc_auc_score),
    "average_precision": (measures.average_precision, metrics.average_precision_score),
}


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("name", RANKING)
def test_ranks_of_scores_also_where_they_are_equal(name: str, decimals: int) -> None:
    found, expected = RANKING[name]
    for draw, samples in draws():
        score, target = numpy.round(draw.normal(size=samples), decimals), draw.integers(0, 2, samples)
        target[:2] = 0, 1
        close(found(*tensors(score, target)), expected(target, score))
        close(found(*tensors(score.astype("float32"), target > 0)), expected(target, score.astype("float32")))


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", RANKING)
def test_each_class_against_all_others(name: str, average: str) -> None:
    found, expected = RANKING[name]
    options = {"multi_class": "ovr"} if name == "roc_auc" else {}
    for draw, samples in draws():
        score = numpy.round(numpy.exp(draw.normal(size=(samples + CLASSES, CLASSES))), 1) + 0.1
        score /= score.sum(1, keepdims=True)
        target = numpy.concatenate([numpy.arange(CLASSES), draw.integers(0, CLASSES, samples)])
        close(found(*tensors(score, target), average=average), expected(target, score, average=average, **options))


def test_r2_of_one_or_several_outputs_also_for_a_constant_target() -> None:
    for draw, samples in draws():
        prediction, target = draw.normal(size=(samples, 3)), draw.normal(size=(samples, 3))
        target[:, 0] = 2.5
        target[:, 1] = prediction[:, 1]
        close(measures.r2(*tensors(prediction, target)), metrics.r2_score(target, prediction))
        for column in range(3):
            one, other = prediction[:, column].copy(), target[:, column].copy()
            close(measures.r2(*tensors(one, other)), metrics.r2_score(other, one))


NONE, NO_CLASSES = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
ONE_CLASS, ZEROS = torch.tensor([0.1, 0.7, 0.2]), torch.tensor([0, 0, 0])

UNDEFINED: dict[str, Callable[[], Tensor]] = {
    "accuracy of no samples": lambda: measures.accuracy(NO_CLASSES, NO_CLASSES),
    "accuracy of nan": lambda: measures.accuracy(torch.tensor([[0.0, math.nan]]), torch.tensor([1])),
    "top k of no samples": lambda: measures.top_k_accuracy(torch.zeros(0, 3), NO_CLASSES),
    "top k of nan": lambda: measures.top_k_accuracy(torch.tensor([[0.0, math.nan]]), torch.tensor([1])),
    "precision of no samples": lambda: measures.precision(NO_CLASSES, NO_CLASSES),
    "macro f1 of no samples": lambda: measures.f1(NO_CLASSES, NO_CLASSES, "macro", 3),
    "weighted recall of no samples": lambda: measures.recall(NO_CLASSES, NO_CLASSES, "weighted", 3),
    "micro recall of no samples": lambda: measures.recall(NO_CLASSES, NO_CLASSES, "micro", 3),
    "area of no samples": lambda: measures.roc_auc(NONE, NO_CLASSES),
    "area of zeros": lambda: measures.roc_auc(ONE_CLASS, ZEROS),
    "area of ones": lambda: measures.roc_auc(ONE_CLASS, ZEROS + 1),
    "area of nan": lambda: measures.roc_auc(torch.tensor([0.1, math.nan]), torch.tensor([0, 1])),
    "area of a class without samples": lambda: measures.roc_auc(torch.rand(3, 3), torch.tensor([0, 1, 1])),
    "average precision of no samples": lambda: measures.average_precision(NONE, NO_CLASSES),
    "average precision of zeros": lambda: measures.average_precision(ONE_CLASS, ZEROS),
    "average precision of nan": lambda: measures.average_precision(torch.tensor([0.1, math.nan]), torch.tensor([0, 1])),
    "r2 of one sample": lambda: measures.r2(torch.ones(1), torch.ones(1)),
    "r2 of nan": lambda: measures.r2(torch.tensor([math.nan, 1.0]), torch.tensor([0.0, 1.0])),
    "r2 of a nan prediction of a constant": lambda: measures.r2(torch.tensor([math.nan, 1.0]), torch.ones(2)),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_what_is_not_defined_is_nan(name: str) -> None:
    assert math.isnan(UNDEFINED[name]())


def test_extreme_scores_are_ranked() -> None:
    score = torch.tensor([-math.inf, -1e308, 0.0, 5e-324, math.inf], dtype=torch.float64)
    target = torch.tensor([0, 1, 0, 0, 1])
    finite = torch.tensor([-4.0, -3.0, -2.0, -1.0, 0.0])
    close(measures.roc_auc(score, target), metrics.roc_auc_score(target.numpy(), finite.numpy()))


def test_half_precision_and_integers_are_scores_too() -> None:
    score, target = torch.tensor([3, 1, 2, 1]), torch.tensor([1, 0, 0, 1])
    expected = metrics.roc_auc_score(target.numpy(), score.numpy())
    for dtype in (torch.int64, torch.float16, torch.bfloat16, torch.uint8):
        close(measures.roc_auc(score.to(dtype), target), expected)


OF_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": measures.accuracy,
    "top_k_accuracy": lambda score, target: measures.top_k_accuracy(score, target, 1),
}


@pytest.mark.parametrize("name", OF_SCORES)
def test_shares_of_scores_in_every_dtype_that_torch_compares(name: str) -> None:
    score, target = torch.tensor([[3, 1], [0, 2], [4, 5], [7, 6]]), torch.tensor([0, 1, 0, 0])
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8):
        close(OF_SCORES[name](score.to(dtype), target), 3 / 4)
    close(OF_SCORES[name](score > 2, torch.tensor([0, 0, 1, 1])), {"accuracy": 2 / 4, "top_k_accuracy": 3 / 4}[name])


@pytest.mark.parametrize("name", OF_SCORES)
def test_shares_of_infinite_scores_are_numbers_and_of_nan_are_not(name: str) -> None:
    score, target = torch.tensor([[math.inf, -math.inf], [-math.inf, 0.0], [1.0, 2.0]]), torch.tensor([0, 0, 1])
    close(OF_SCORES[name](score, target), 2 / 3)
    for place in range(6):
        undefined = score.clone()
        undefined.view(-1)[place] = math.nan
        close(OF_SCORES[name](undefined, target), math.nan)


@pytest.mark.slow
def test_a_metric_is_the_same_where_values_can_not_be_read() -> None:
    """As while an engine traces: each operation then passes through a dispatch mode."""
    draw = torch.Generator().manual_seed(0)
    score, target = torch.rand(9, CLASSES, generator=draw), torch.randint(0, CLASSES, (9,), generator=draw)
    for name, metric in (OF_SCORES | {"confusion_matrix": _matrix}).items():
        for given in (score, torch.where(score > 0.9, math.nan, score), score[:0]):
            direct = metric(given, target[: len(given)])
            with Passing():
                traced = metric(given, target[: len(given)])
            torch.testing.assert_close(traced, direct, rtol=0, atol=0, equal_nan=True, msg=name)


class Passing(TorchDispatchMode):
    """Calls each operation as it is."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "reads a value"
        return func(*args, **(kwargs or {}))


def _matrix(score: Tensor, target: Tensor) -> Tensor:
    return measures.confusion_matrix(score.argmax(1), target, CLASSES)


def test_accuracy_of_few_and_of_many_samples() -> None:
    for count in (FEW, FEW + 1, 1000):
        found, target = tensors(*numpy.random.default_rng(count).integers(0, 3, (2, count)))
        close(measures.accuracy(found, target), metrics.accuracy_score(target.numpy(), found.numpy()))
        close(measures.accuracy(found, target.double()), metrics.accuracy_score(target.numpy(), found.numpy()))


def test_no_gradient_flows_through_a_metric() -> None:
    score = torch.rand(5, requires_grad=True)
    assert not measures.roc_auc(score, torch.tensor([0, 1, 0, 1, 1])).requires_grad
    assert not measures.r2(score, torch.rand(5)).requires_grad
    assert not measures.accuracy(torch.rand(2, 3, requires_grad=True), torch.tensor([0, 1])).requires_grad


WRONG: dict[str, tuple[Callable[[], Tensor], str, str]] = {
    "a class past the last": (
        lambda: measures.confusion_matrix(torch.tensor([0, 3]), torch.tensor([0, 1]), 3),
        "`prediction` has the class 3, and the classes are 0 to 2",
        "give `num_classes` their number",
    ),
    "a negative class": (
        lambda: measures.confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, -1]), 3),
        "`target` has the class -1, and the classes are 0 to 2",
        "give `num_classes` their number",
    ),
    "more than two classes": (
        lambda: measures.f1(torch.tensor([0, 2]), torch.tensor([0, 1])),
        "`prediction` has the class 2, and the classes are 0 to 1",
        "write `average='macro', num_classes=…` for more than two",
    ),
    "two classes, and three targets": (
        lambda: measures.roc_auc(torch.rand(3), torch.tensor([0, 1, 2])),
        "`target` has the class 2, and the classes are 0 to 1",
        "give `score` a column for each class: (samples, classes)",
    ),
    "a target without a score": (
        lambda: measures.top_k_accuracy(torch.rand(3, 2), torch.tensor([0, 1, 2])),
        "`target` has the class 2, and the classes are 0 to 1",
        "give `score` a column for each class",
    ),
    "a fraction": (
        lambda: measures.accuracy(torch.tensor([0, 1]), torch.tensor([0.0, 0.5])),
        "`target` has 0.5, which is not a class",
        "classes are whole numbers, from 0",
    ),
    "nan": (
        lambda: measures.accuracy(torch.tensor([0, 1]), torch.tensor([0.0, math.nan])),
        "`target` has nan, which is not a class",
        "classes are whole numbers, from 0",
    ),
    "complex scores": (
        lambda: measures.roc_auc(torch.rand(2) * 1j, torch.tensor([0, 1])),
        "`score` is complex, and scores are real",
        "take its `.real`",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_operand_is_an_error_with_a_hint(name: str) -> None:
    compute, message, hint = WRONG[name]
    with pytest.raises(OperandError, match=r"`(prediction|target|score)`") as caught:
        compute()
    assert str(caught.value) == message
    assert caught.value.hint == hint
