"""Every shape is known before step 1, on tensors with memory and without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from runner.language.inference.inference import Bounds, Inference, TooLarge, readable_bytes
from runner.language.lowering.lower import lower_statements
from runner.language.measures.ranking import roc_auc
from runner.plan.memory import bounded_memory
from tests.language.lowering import fault_of, lower, scope, tensors
from tests.tables import over


def test_the_same_shapes_are_found_without_memory() -> None:
    text = (
        "h = tanh(x @ w)\nv, i = h.max(dim=1)\ny = x if iteration > 1 else x * 2\n"
        "g = grad((h ** 2).sum(), w)\nu = c[iteration] * x\nloss = h.sum() + g.sum()"
    )
    real = lower(text)
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = {name: torch.empty_like(each, requires_grad=each.requires_grad) for name, each in tensors().items()}
        fake = lower_statements(text, scope(given), Inference(gradients=True))
    for name, node in real.values.items():
        one, other = node.meta["example"], fake.values[name].meta["example"]
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize("text", ["x[x > 0].sum()", "unique(x)", "nonzero(x)", "one_hot(k)"])
def test_what_depends_on_data_is_told_where_there_is_none(text: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = {"x": torch.empty(2, 3), "k": torch.empty(3, dtype=torch.int64)}
        fault = fault_of(text, given=given)
    assert fault.message.endswith("depends on data, but a config of more than 64 MiB is planned without it")
    assert fault.hint == "write it with a mask: `where(x > 0, x, 0)`"


def test_operations_are_counted() -> None:
    inference = Inference(Bounds(nodes=2))
    inference.count()
    inference.count()
    with pytest.raises(TooLarge, match="more than 2 operations; raise it with --max-nodes"):
        inference.count()


def test_memory_is_counted_once_for_views() -> None:
    inference = Inference()
    x = torch.zeros(100)
    for function in (lambda: x, lambda: x[:50], lambda: x.view(10, 10), lambda: (x, torch.ones(25))):
        inference.run(function, (), {}, False)
    assert inference.bytes == 400 + 100
    assert inference.largest == 400


def test_one_tensor_is_bounded_views_included() -> None:
    inference = Inference(Bounds(bytes=1000))
    inference.run(torch.zeros, (250,), {}, False)
    with pytest.raises(TooLarge, match=r"the result has shape \(251,\): 1004 B, more than the limit of 1000 B"):
        inference.run(torch.zeros, (251,), {}, False)
    with pytest.raises(TooLarge, match="more than the limit of 1000 B"):
        inference.run(lambda: [torch.zeros(1).expand(10**9)], (), {}, False)


def test_a_session_leaves_grad_mode_and_random_state_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    inference = Inference(gradients=True)
    with torch.no_grad(), inference.session():
        assert torch.is_grad_enabled()
        inference.run(torch.rand, (5,), {}, True)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.rand(2), expected)


@over(
    ("size", "text"),
    [
        *((0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")),
        *((1 << 62, "4096.0 PiB"), (1 << 1200, "more than 1 ZiB")),
    ],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert readable_bytes(size) == text


def test_torch_may_load_modules_for_a_metric_while_memory_is_limited() -> None:
    resource = pytest.importorskip("resource")
    limits = []

    def metric(x: Tensor) -> Tensor:
        limits.append(resource.getrlimit(resource.RLIMIT_AS))
        return x.mean()

    metric.__module__ = roc_auc.__module__  # whose shapes are inferred without computing
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with bounded_memory(64 << 20):
        Inference().run(metric, (torch.zeros(3),), {}, False)
    assert limits == [(hard, hard)]
