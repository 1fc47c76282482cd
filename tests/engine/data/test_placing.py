from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from runner.engine.data import placing
from runner.engine.data.placing import ResidentSamples, SentSamples, placed
from runner.engine.data.samples import open_samples
from tests.engine.data.test_batches import DECLARATIONS, STREAMED, source, write_arrays


class Sending:
    """Counts the bytes of what is sent, to where everything is already."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[int] = []
        monkeypatch.setattr(placing, "sender", self.sender)

    def sender(self, device: str) -> Callable[[Tensor], Tensor]:
        def send(tensor: Tensor) -> Tensor:
            self.sent.append(tensor.nbytes)
            return tensor.clone()

        return send


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_arrays(tmp_path)
    return tmp_path


def test_on_the_cpu_samples_stay_as_they_are(folder: Path) -> None:
    plan = source(folder, DECLARATIONS["npy"], ", batch_size: 4")
    samples = open_samples(plan)
    assert placed(samples, plan, "cpu") is samples


@pytest.mark.parametrize("largest", [0, 1 << 28])
@pytest.mark.parametrize("kind", DECLARATIONS)
def test_placed_samples_are_the_samples(folder: Path, kind: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "RESIDENT_BYTES", largest)
    sending = Sending(monkeypatch)
    plan = replace(source(folder, DECLARATIONS[kind], ", batch_size: 4"), streams=kind in STREAMED)
    samples = open_samples(plan)
    there = placed(samples, plan, "cuda")
    chosen = torch.tensor([3, 0, 5])
    for found, expected in ((there.between(2, 6), samples.between(2, 6)), (there.at(chosen), samples.at(chosen))):
        assert found.keys() == expected.keys()
        assert all(found[name].equal(expected[name]) for name in expected)
    assert sending.sent


def test_of_a_small_source_only_the_numbers_of_samples_are_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sending = Sending(monkeypatch)
    plan = source(folder, DECLARATIONS["npy"], ", batch_size: 4")
    there = placed(open_samples(plan), plan, "cuda")
    assert isinstance(there, ResidentSamples)
    assert sum(sending.sent) == plan.bytes
    sending.sent.clear()
    there.between(0, 4)
    assert sending.sent == []
    there.at(torch.tensor([1, 2]))
    assert sending.sent == [16]


def test_of_a_large_source_each_batch_is_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sending = Sending(monkeypatch)
    plan = source(folder, DECLARATIONS["npy"], ", batch_size: 4")
    monkeypatch.setattr(placing, "RESIDENT_BYTES", plan.bytes - 1)
    there = placed(open_samples(plan), plan, "cuda")
    assert isinstance(there, SentSamples)
    assert sending.sent == []
    batch = there.between(0, 4)
    assert sending.sent == [column.nbytes for column in batch.values()]
