"""The files with the states of points: large parts become several files, and each file is read once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.errors import RunError
from runner.sweep.record import states
from runner.sweep.record.states import MOST_BYTES, StateFiles, has_states, load_state, load_states, save_states
from runner.sweep.running import How, resume_sweep
from tests.sweep.inline import inline
from tests.sweep.test_running import assert_is_the_run_alone, swept

__all__ = ["inline"]


def state(number: int, tensors: int = 2, elements: int = 3) -> tuple[Any, Mapping[str, Tensor]]:
    values = {f"weights.w{place}": torch.full((elements,), number + place / 8) for place in range(tensors)}
    return {"mapping": [["row", number]]}, values


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []
    real = states.read_tensors

    def read_tensors(file: Any, name: str) -> Any:
        names.append(name)
        return real(file, name)

    monkeypatch.setattr(states, "read_tensors", read_tensors)
    monkeypatch.setattr(states, "_FILES", states._Files())
    return names


def test_states_of_more_tensors_than_one_file_can_have_are_several_files(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "MOST_TEXT", 50_000)
    files = StateFiles("000001-0")
    names = [files.add(f"{point:016x}", state(point, tensors=100, elements=1)) for point in range(7)]
    files.save(tmp_path)
    assert names == ["000001-0"] * 3 + ["000001-0-1"] * 3 + ["000001-0-2"]
    for name in set(names):
        header = int.from_bytes((tmp_path / "states" / f"{name}.safetensors").read_bytes()[:8], "little")
        assert header + (tmp_path / "states" / f"{name}.json").stat().st_size < 50_000
    for point, name in enumerate(names):
        contents, tensors = load_state(tmp_path, name, f"{point:016x}")
        assert contents == {"mapping": [["row", point]]}
        assert len(tensors) == 100
        assert tensors["weights.w4"].tolist() == [point + 0.5]


def test_states_of_many_bytes_are_several_files() -> None:
    files = StateFiles("000001-0")
    names = [files.add(str(point), state(point, tensors=1, elements=MOST_BYTES // 10)) for point in range(5)]
    assert names == ["000001-0"] * 2 + ["000001-0-1"] * 2 + ["000001-0-2"]


def test_a_file_is_read_once_for_all_its_points(tmp_path: Path, read: list[str]) -> None:
    save_states(tmp_path, "a", {str(point): state(point) for point in range(5)})
    save_states(tmp_path, "b", {"5": state(5)})
    for point in range(5):
        _, tensors = load_state(tmp_path, "a", str(point))
        assert tensors["weights.w1"].tolist() == [point + 0.125] * 3
        load_state(tmp_path, "b", "5")
    assert read == ["a", "b"]
    tensors["weights.w1"].zero_()  # what an optimizer writes is its own
    assert load_state(tmp_path, "a", "4")[1]["weights.w1"].tolist() == [4.125] * 3


def test_a_file_that_was_replaced_or_removed_is_read_again(tmp_path: Path, read: list[str]) -> None:
    save_states(tmp_path, "a", {"0": state(0)})
    load_state(tmp_path, "a", "0")
    save_states(tmp_path, "a", {"0": state(7)})
    assert load_states(tmp_path, "a", ["0"])["0"][0] == {"mapping": [["row", 7]]}
    (tmp_path / "states" / "a.safetensors").unlink()
    with pytest.raises(RunError, match=r"a\.safetensors is damaged: No such file or directory"):
        load_state(tmp_path, "a", "0")


def test_files_that_were_read_are_kept_up_to_a_bound(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "MOST_KEPT", 100_000)  # two of the files
    for name in "abc":
        save_states(tmp_path, name, {"0": state(0, tensors=1, elements=10_000)})
    for name in "ababcab":
        load_state(tmp_path, name, "0")
    assert read == ["a", "b", "c", "a", "b"]
    monkeypatch.setattr(states, "MOST_KEPT", 10_000)
    for _ in range(2):
        load_state(tmp_path, "b", "0")
    assert read[5:] == ["b"]
    assert not states._FILES.kept


def test_whether_states_are_there_is_what_the_disk_says(tmp_path: Path, read: list[str]) -> None:
    save_states(tmp_path, "a", {"0": state(0)})
    load_state(tmp_path, "a", "0")
    assert has_states(tmp_path, "a")
    assert read == ["a", "a"]


HEAD = """\
parameters: {w: {shape: [4], init: {normal: {std: 1}}}}
constants: {rate: 0.1}
expression: loss = (w ** 2).sum()
optimizer: {adam: {lr: rate}}
steps: 9
"""
HALVED = """\
sweep:
  grid: {rate: [1e-3, 0.1, 0.3], seed: [0, 1]}
  objective: {minimize: loss}
  halving: {at: [4], keep: 1/2}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("lanes", ["off", "exact"])
def test_survivors_go_on_from_several_files_with_the_bits_of_the_run_alone(
    lanes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "MOST_TEXT", 3_000)
    sweep, plan, _ = swept(tmp_path, HALVED, HEAD, lanes=lanes)
    (file, *others) = sorted(path.stem for path in (sweep.path / "states").glob("*.json"))
    assert others
    assert all(other.startswith(f"{file}-") for other in others)
    finished = [index for index in range(6) if sweep.outcome(index).status == "finished"]
    assert len(finished) == 3
    for index in finished:
        assert_is_the_run_alone(sweep, plan, index)
    assert resume_sweep(sweep.path, How())[0].tasks == plan.tasks
