"""A folder with a config and its snapshot, for the tests of these."""

from __future__ import annotations

from pathlib import Path

from runner.compare.snapshots.checking import Outcome, Request, Target, check
from runner.compare.snapshots.updating import Update

LINEAR = """\
parameters: {x1: {shape: [1], init: 100}, x2: {shape: [1], init: 200}}
constants: {learning_rate: 0.01}
expression: f = 10 * x1 + 30 * x2
optimizer: {sgd: {lr: learning_rate}}
steps: [backward, step]
"""

WIDE = """\
parameters: {w: {shape: [9, 9], init: {normal: {}}}}
expression: f = (w * w).sum()
optimizer: {sgd: {lr: 0.1}}
steps: 2
"""

FIRST_FORMAT = """\
# the numbers of model.yaml, as `steprun check` expects them; `steprun check --update` writes what differs
format: 1
of: "model.yaml"
config:
  parameters: "337a93abd87e526c"
environment:
  torch: "2.13.0+cpu"
  device: "cpu"
  device_name: null
  dtype: "float32"
  cpu_capability: "AVX2"
  threads: 1
  engine: "eager"
calibration:
  runs: 3
  over: "threads 1, 2"
  torch: "2.13.0+cpu"
  spread:
    x1: 0.0
large: full
tensors:
  f: value float32 [1]
  x1: weight float32 [1]
  x1.grad: gradient float32 [1]
  x2: weight float32 [1]
  x2.grad: gradient float32 [1]
rows:
  0 start:
    x1: 100.0
    x1.grad: null
    x2: 200.0
    x2.grad: null
  1 1.backward:
    f: 7000.0
    x1: 100.0
    x1.grad: 10.0
    x2: 200.0
    x2.grad: 30.0
  2 2.step:
    x1: 99.9
    x1.grad: 10.0
    x2: 199.7
    x2.grad: 30.0
...
"""
"""A snapshot of `LINEAR` in format 1, under the name model.yaml."""


def target(folder: Path, name: str = "model") -> Target:
    return Target(str(folder / f"{name}.yaml"), str(folder / "snapshots" / f"{name}.yaml"))


def checked(folder: Path, update: Update | None = None, name: str = "model", runs: int = 0) -> Outcome:
    """The outcome of a check; where it writes, `runs` perturbed runs measure how uncertain the numbers are."""
    return check(target(folder, name), Request(update, runs=runs))


def taken(folder: Path, text: str, name: str = "model", runs: int = 0) -> Path:
    """Write a config, take its snapshot and give the path of that."""
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    assert checked(folder, "new", name, runs).status == "written"
    return Path(target(folder, name).snapshot)


def sidecar_of(path: Path) -> Path:
    """The file with the large tensors of a snapshot, of which there is one."""
    (sidecar,) = sidecars_of(path)
    return sidecar


def sidecars_of(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.stem}.*.safetensors"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
