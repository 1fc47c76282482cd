from __future__ import annotations

import pytest
import torch

from runner.language.inference.generators import generators, left_alone, manual_seed


def test_the_cpu_has_one_generator() -> None:
    assert generators("cpu") == (torch.default_generator,)


def test_a_device_is_seeded_by_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.cuda.manual_seed` seeds the current device, whichever the run is on."""
    of_device = tuple(torch.Generator() for _ in range(2))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", of_device)
    assert generators("cuda") == (torch.default_generator, of_device[0])
    with left_alone("cuda:1"):
        manual_seed(1234, "cuda:1")
        assert [generator.initial_seed() for generator in of_device] == [of_device[0].initial_seed(), 1234]
        assert of_device[0].initial_seed() != 1234
        assert torch.default_generator.initial_seed() == 1234


def test_generators_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    of_device = torch.Generator().manual_seed(3)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", (of_device,))
    before = torch.get_rng_state(), of_device.get_state()
    with left_alone("cuda"):
        manual_seed(5, "cuda")
        torch.rand(3, generator=of_device)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(of_device.get_state(), before[1])
