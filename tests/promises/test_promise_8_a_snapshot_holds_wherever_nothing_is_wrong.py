"""A snapshot holds wherever nothing is wrong, and only there.

Another machine is a process whose math libraries take other kernels. `tests/matrix` tries all of the gallery and many
settings; here are one training and its faults.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ELSEWHERE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}

TRAINING = """\
parameters:
  w1: {shape: [33, 40], init: xavier_normal}
  b1: {shape: [40], init: zeros}
  w2: {shape: [40, 5], init: xavier_normal}
constants:
  x: {shape: [70, 33], init: {normal: {}}}
  y: {shape: [70], dtype: int64, init: {expression: "arange(70) % 5"}}
expression: |
  h = tanh(layer_norm(x @ w1 + b1, [40], eps=1e-5))
  logits = h @ w2
  loss = cross_entropy(logits, y)
metrics: {accuracy: (logits.argmax(1) == y).float().mean()}
optimizer: {adam: {lr: 0.01, betas: [0.9, 0.999]}}
steps: 12
snapshot: {tensors: stats}
"""

FAULTS = {
    "eps": ("eps=1e-5", "eps=1e-6"),
    "beta2": ("0.999]", "0.9989]"),
    "loss": ("loss = cross_entropy(logits, y)", "loss = cross_entropy(logits, y) * (1 + 1e-5)"),
    "activation": ("tanh(layer_norm(", "tanh(1.00001 * layer_norm("),
    "rate": ("lr: 0.01", "lr: 0.01001"),
}

SAME = {
    "nothing": ("", ""),
    "another order": ("x @ w1 + b1", "b1 + x @ w1"),
    "fused": ("x @ w1 + b1", "addmm(b1, x, w1)"),
    "another form": ("cross_entropy(logits, y)", "nll_loss(log_softmax(logits, 1), y)"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config in its own folder for each fault and each change of none, with the snapshot of the right one."""
    folder = tmp_path_factory.mktemp("promise")
    for name in (*FAULTS, *SAME):
        (folder / name).mkdir()
        (folder / name / "training.yaml").write_text(TRAINING)
    steprun(folder, "snapshot", *(f"{name}/training.yaml" for name in (*FAULTS, *SAME)), **PLAIN)
    for name, (old, new) in (*FAULTS.items(), *SAME.items()):
        assert old in TRAINING
        (folder / name / "training.yaml").write_text(TRAINING.replace(old, new, 1) if old else TRAINING)
    return folder


PLAIN = {"OMP_NUM_THREADS": "1"}


def steprun(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments], cwd=folder, env={**own, **settings, "PYTHONPATH": ROOT},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


ROOT = str(Path(__file__).parents[2])


@pytest.mark.slow
def test_a_snapshot_holds_wherever_nothing_is_wrong_and_only_there(folder: Path) -> None:
    done = steprun(folder, "check", "--json", **PLAIN, **ELSEWHERE)
    assert done.stderr == ""
    found = {Path(each["name"]).parent.name: each for each in json.loads(done.stdout)["snapshots"]}
    assert {name: found[name]["status"] for name in SAME} == dict.fromkeys(SAME, "holds")
    assert {name: found[name]["status"] for name in FAULTS} == dict.fromkeys(FAULTS, "differs")
    assert found["nothing"]["exact"] is False
    for name in FAULTS:
        assert found[name]["details"]["causes"][0].endswith("which can explain this"), name
