from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
import torch

from runner.plan import determinism
from runner.plan.determinism import CONFIGURED, WORKSPACE, configure, deterministic


def switches() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_on_the_cpu_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinism, "_MODE", None)
    monkeypatch.delenv(WORKSPACE, raising=False)
    configure("cpu")
    with deterministic("cpu"):
        assert not torch.are_deterministic_algorithms_enabled()
    assert WORKSPACE not in os.environ


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_cuda_what_is_not_deterministic_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = switches()
    with deterministic(device):
        assert switches() == (True, False, False)
    assert switches() == before


def test_cudnn_chooses_by_measuring_again_afterwards() -> None:
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        before = switches()
        with deterministic("cuda"):
            assert switches() == (True, False, False)
        assert switches() == before


def test_a_process_that_may_not_assign_switches_of_cudnn_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends, "__allow_nonbracketed_mutation_flag", False)  # as torch.testing does
    with deterministic("cuda"):
        assert not torch.backends.cudnn.benchmark


def test_runs_that_overlap_are_deterministic_to_their_end() -> None:
    before = switches()
    first, second = ExitStack(), ExitStack()
    first.enter_context(deterministic("cuda"))
    second.enter_context(deterministic("cuda"))
    first.close()
    assert switches() == (True, False, False)
    second.close()
    assert switches() == before


def test_the_workspace_of_cublas_is_configured_unless_a_person_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    configure("cuda:1")
    assert os.environ[WORKSPACE] == CONFIGURED
    monkeypatch.setenv(WORKSPACE, ":16:8")
    configure("cuda")
    assert os.environ[WORKSPACE] == ":16:8"
