"""Steps that `check` starts from the state that a snapshot recorded."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load, save

from runner.compare.snapshots import restarts
from runner.compare.snapshots.capture import measured, plan_of
from runner.compare.snapshots.checking import Request, check
from runner.compare.snapshots.model import StoredRow
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.restarts import take_restarts
from runner.engine import execute
from runner.errors import SnapshotError
from tests.cli.commands import steprun, steprun_process
from tests.compare.snapshotting import checked, edit, taken, target

CHAOTIC = """\
parameters:
  w: {shape: [6], init: {normal: {}}}
expression: |
  loss = (3 * w).cos().sum() + (w * w.roll(1)).sin().sum()
optimizer: {adam: {lr: 2 if t <= 44 else 2, betas: [0.9, 0.999 if t <= 44 else 0.999]}}
steps: 60
log: {every: 4}
snapshot: {restart: [1, 12]}
"""
"""From the third row on rounding decides every number."""

FAULTS = {
    "lr off by 0.1%": ("else 2,", "else 2.002,"),
    "beta2 of 0.9989": ("else 0.999]", "else 0.9989]"),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=pytest.mark.slow) if place else name for place, name in enumerate(FAULTS)]
)
def test_a_late_fault_of_a_chaotic_training_shows_only_after_a_restart(tmp_path: Path, fault: str) -> None:
    old, new = FAULTS[fault]
    plain = CHAOTIC.replace("snapshot: {restart: [1, 12]}\n", "")
    taken(tmp_path, plain, "plain", runs=8)
    taken(tmp_path, CHAOTIC, runs=8)
    for name in ("plain", "model"):
        edit(tmp_path / f"{name}.yaml", old, new)
    assert checked(tmp_path, name="plain").status == "holds"
    outcome = checked(tmp_path)
    text = "\n".join(outcome.lines)
    assert outcome.status == "differs"
    assert re.findall(r"started from the recorded state after row (\d+)", text) == ["12"]
    assert "row 13, repeat[49].train: `w` differs" in text
    assert "cause     gradients bit-equal, update of `w` differs: look at the optimizer" in text
    assert [each["after"] for each in outcome.details["restarts"]] == [12]


@pytest.fixture(scope="module")
def chaotic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config and its snapshot, for tests that change neither."""
    folder = tmp_path_factory.mktemp("chaotic")
    taken(folder, CHAOTIC, runs=8)
    return folder


@pytest.mark.slow
def test_the_first_steps_from_a_state_are_certain_where_the_run_is_not(chaotic: Path) -> None:
    snapshot, _ = read(Path(target(chaotic).snapshot))
    inherited, own = (
        snapshot.rows[13].values["loss"].uncertainty,
        snapshot.restarts[1].rows[0].values["loss"].uncertainty,
    )
    assert inherited is not None
    assert own is not None
    assert inherited.rms > 1
    assert own.rms < 2 * 1e-4  # a stored uncertainty is up to twice what was measured


def test_the_perturbed_runs_from_each_state_are_announced(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(CHAOTIC, encoding="utf-8")
    plan = plan_of(path)
    seen: list[tuple[int, int, int]] = []
    measurement = measured(plan, list(execute(plan)), runs=3)
    take_restarts(plan, measurement, announce=lambda after: lambda number, total: seen.append((after, number, total)))
    assert seen == [(after, number, 3) for after in (1, 12) for number in (1, 2, 3)]


@pytest.mark.slow
def test_a_refactored_expression_holds_after_each_restart(tmp_path: Path) -> None:
    taken(tmp_path, CHAOTIC, runs=8)
    edit(
        tmp_path / "model.yaml",
        "(3 * w).cos().sum() + (w * w.roll(1)).sin().sum()",
        "((w + 2 * w).cos() + (w.roll(1) * w).sin()).sum()",
    )
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", False)


SWITCHES = ["ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=SSE41", "MKL_CBWR=COMPATIBLE"]


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.slow
def test_a_restart_holds_in_another_environment(chaotic: Path, switch: str) -> None:
    name, _, value = switch.partition("=")
    done = steprun_process("check", "model.yaml", cwd=chaotic, environment={name: value})
    assert done.code == 0, done.out + done.err


RANDOM = """\
seed: 3
parameters:
  w: {shape: [3, 2], init: {normal: {}}}
  v: {shape: [2], init: 0}
data:
  train: {columns: {x: x.npy}, batch_size: 4, shuffle: true}
expression: |
  h = dropout(x @ w, 0.5) + v
  loss = (h * h).mean() + 0.01 * randn(2).sum()
optimizers:
  first: {adamw: {lr: 0.1 / t}, parameters: [w]}
  second: {sgd: {lr: 0.1, momentum: 0.9}, parameters: [v]}
steps:
  - for_each: {data: train, epochs: 2, steps: [forward, backward, {step: first}, {step: second}, zero_grad]}
  - repeat: {times: 2, steps: [train]}
"""
SEARCHING = """\
parameters: {w: [3.0, -1.0, 2.0]}
expression: loss = (w - w.roll(1) ** 2).square().sum() + w.cos().sum()
optimizer: {lbfgs: {max_iter: 3}}
steps: 4
"""
RULE = """\
parameters: {w: [3.0, -1.0, 2.0]}
expression: loss = (w * w).sum() + w.cos().sum()
optimizer:
  rule:
    state: {v: 0}
    update: |
      v = 0.9 * v + grad
      param = param - 0.01 * v
steps: 4
"""


@pytest.mark.parametrize(("text", "rows"), [(RANDOM, 33), (SEARCHING, 5), (RULE, 5)])
def test_a_restart_goes_on_as_the_run_did(tmp_path: Path, text: str, rows: int) -> None:
    """State, gradients, optimizers, random streams and the place in the data: the rows are those of the run."""
    samples = torch.randn((11, 3), generator=torch.Generator().manual_seed(0))
    numpy.save(tmp_path / "x.npy", samples.numpy())
    path = taken(tmp_path, f"{text}snapshot: {{restart: {list(range(rows - 1))}}}\n")
    snapshot, _ = read(path)
    assert [restart.after for restart in snapshot.restarts] == list(range(len(snapshot.rows) - 1))
    for restart in snapshot.restarts:
        own = snapshot.rows[restart.after + 1 : restart.after + 4]
        assert [texts(row) for row in restart.rows] == [texts(row) for row in own]
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", True)


def texts(row: StoredRow) -> tuple[int, str, dict[str, str]]:
    """A row without its uncertainties."""
    return row.number, row.path, {name: kept.text.partition(" ~")[0] for name, kept in row.values.items()}


@pytest.mark.slow
def test_states_are_named_by_content_and_those_of_no_restart_are_removed(tmp_path: Path) -> None:
    path = taken(tmp_path, CHAOTIC, runs=8)
    states = sorted(path.parent.glob("model.*.safetensors"))
    assert len(states) == 2
    assert all(hashlib.sha256(each.read_bytes()).hexdigest()[:16] == each.name.split(".")[1] for each in states)
    before = path.read_bytes()
    assert steprun("snapshot", tmp_path / "model.yaml").code == 0
    assert path.read_bytes() == before  # taking it again moves no line
    edit(tmp_path / "model.yaml", "[1, 12]", "[12]")
    assert checked(tmp_path).status == "holds"
    assert checked(tmp_path, "differing").status == "updated"
    assert len(sorted(path.parent.glob("model.*.safetensors"))) == 1
    assert checked(tmp_path).status == "holds"


@pytest.mark.slow
def test_a_restart_that_the_snapshot_has_not_is_a_note_until_it_is_updated(tmp_path: Path) -> None:
    taken(tmp_path, CHAOTIC, runs=3)
    edit(tmp_path / "model.yaml", "[1, 12]", "[1, 2, 12, 13]")
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.lines) == (
        "holds",
        ("the snapshot has no state after rows 2, 13: `steprun check --update` stores it",),
    )
    assert checked(tmp_path, "new", runs=3).status == "updated"
    assert checked(tmp_path).lines == ()


ADAM = "{adam: {lr: 2 if t <= 44 else 2, betas: [0.9, 0.999 if t <= 44 else 0.999]}}"
MISFITS = {
    "the state of `optimizer`": [(ADAM, "{sgd: {lr: 0.1}}")],
    "the steps": [("steps: 60", "steps: [{repeat: {times: 60, steps: [backward, step]}}]")],
    "the state of `optimizer`, the shape of `v`": [
        ("parameters:\n", "parameters:\n  v: {shape: [2], init: 0}\n"),
        ("loss = ", "loss = v.sum() + "),
    ],
    "the shape of `w`, the state of `optimizer`": [("shape: [6]", "shape: [7]")],
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_state_that_does_not_fit_an_edited_config_is_passed_over(tmp_path: Path, misfit: str) -> None:
    taken(tmp_path, CHAOTIC)
    for old, new in MISFITS[misfit]:
        edit(tmp_path / "model.yaml", old, new)
    assert f"the state after row 12 does not fit the edited config: {misfit} changed" in checked(tmp_path).lines


def test_a_run_that_ends_before_a_step_follows_the_row_is_refused_at_its_place(tmp_path: Path) -> None:
    text = CHAOTIC.replace("steps: 60", "steps:\n  - repeat: {times: 60, steps: [train, {stop: , when: t_loss() > 0}]}")
    text = text.replace("t_loss() > 0", "w.sum() > -1000").replace("every: 4", "every: 1")
    (tmp_path / "model.yaml").write_text(text)
    done = steprun("snapshot", tmp_path / "model.yaml")
    assert done.code == 2
    assert "snapshot.restart.0\n" in done.err
    assert "^ the run ends before a step follows row 1\n" in done.err


def broken(path: Path, kind: str) -> str:
    """Break the first state of a snapshot, and give its name."""
    name = re.findall(r'state: "(.*)"', path.read_text())[0]
    state = path.parent / name
    match kind:
        case "missing":
            state.unlink()
        case "flipped":
            data = bytearray(state.read_bytes())
            data[-1] ^= 1
            state.write_bytes(data)
        case "empty":
            state.write_bytes(b"")
        case "link":
            state.rename(path.parent / "elsewhere")
            state.symlink_to(path.parent / "elsewhere")
        case "hole":
            state.write_bytes(b"")
            os.truncate(state, 3 << 30)
        case "digits":
            content = save({"state": torch.frombuffer(bytearray(b"9" * 5000), dtype=torch.uint8)})
            other = f"model.{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
            (path.parent / other).write_bytes(content)
            edit(path, name, other)
            return other
        case "other":
            content = save({"state": torch.zeros(4, dtype=torch.uint8)})
            other = f"model.{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
            (path.parent / other).write_bytes(content)
            edit(path, name, other)
            return other
    return name


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "the state is in {}, and there is no such file"),
        ("flipped", "{} is damaged: its digest is not the one in its name"),
        ("empty", "{} is damaged: its digest is not the one in its name"),
        ("link", "{} cannot be read: it is a link"),
        ("hole", "{} cannot be read: it has 3,221,225,472 bytes, and at most 268,435,456 are read"),
        ("other", "{} is damaged: it is not the state of a run"),
        ("digits", "{} is damaged: it is not the state of a run"),
    ],
)
def test_a_state_that_cannot_be_read_is_reported_at_its_line(tmp_path: Path, kind: str, message: str) -> None:
    path = taken(tmp_path, CHAOTIC)
    name = broken(path, kind)
    with pytest.raises(SnapshotError, match=re.escape(message.format(name))) as caught:
        read(path)
    lines = path.read_text().splitlines()
    assert [lines[int(each.line or 0) - 1].strip() for each in caught.value.problems] == [f'state: "{name}"']
    assert check(target(tmp_path), Request()).status == "damaged"


def test_a_state_that_could_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.yaml").write_text(CHAOTIC)
    monkeypatch.setattr(restarts, "LARGEST_STATE", 100)
    outcome = checked(tmp_path, "new")
    assert (outcome.status, outcome.lines[0].strip()) == (
        "failed",
        f"{tmp_path / 'model.yaml'}:8:22  snapshot.restart.0",
    )
    assert re.search(r"the state after row 1 takes [\d.]+ (B|KiB), and at most 100 B are stored$", outcome.lines[2])
    assert not (tmp_path / "snapshots").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  - after: 12", "  - after: 99", "expected the number of a row above, found the number 99"),
        ("  - after: 12", "  - after: twelve", "expected the number of a row above, found the text `twelve`"),
        ("  - after: 12", "  - afetr: 12", "a restart has no key `afetr`"),
        ('    state: "model.', '    state: "../model.', "is not the name of a .safetensors file next to this one"),
        ("restarts:\n", "restarts: 3\n#", "expected a list of restarts, found the number 3"),
    ],
)
def test_a_restart_that_was_edited_is_reported(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = taken(tmp_path, CHAOTIC)
    if "restarts:" in old:
        text = path.read_text()
        path.write_text(text[: text.index("restarts:\n")] + "restarts: 3\n...\n")
    else:
        edit(path, old, new)
    with pytest.raises(SnapshotError, match=re.escape(message)):
        read(path)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("weights", "`weights` is not a mapping of w, v"),
        ("optimizers", "`optimizers` is not a mapping of first, second"),
        ("batches", "`batches` is not a mapping of train"),
    ],
)
def test_a_state_without_what_it_says_it_fits_is_damaged(tmp_path: Path, gone: str, message: str) -> None:
    text = RANDOM + "snapshot: {restart: [3]}\n"
    numpy.save(tmp_path / "x.npy", numpy.ones((11, 3), "float32"))
    path = taken(tmp_path, text)
    (old,) = path.parent.glob("model.*.safetensors")
    tensors = load(old.read_bytes())
    told = json.loads(tensors["state"].numpy().tobytes())
    for entry in told["state"]["mapping"]:
        if entry[0] == gone:
            entry[1] = {"mapping": []}
    tensors["state"] = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
    content = save(tensors)
    new = path.parent / f"model.{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    new.write_bytes(content)
    edit(path, old.name, new.name)
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exit_code) == ("failed", SnapshotError.exit_code)
    assert outcome.lines[0] == ("the state after row 3 is damaged: " + message)


def test_without_uncertainty_a_restart_is_compared_all_the_same(tmp_path: Path) -> None:
    text = CHAOTIC.replace("snapshot: {", "snapshot: {uncertainty: false, ").replace("steps: 60", "steps: 20")
    path = taken(tmp_path, text.replace("[1, 12]", "[1]"))
    assert "~" not in path.read_text()
    assert checked(tmp_path).status == "holds"
    edit(path, path.read_text().splitlines()[-3].strip(), "w: 1.0, 2.0, 3.0, 4.0, 5.0, 6.0")
    outcome = checked(tmp_path)
    assert outcome.status == "differs"
    assert outcome.lines[0] == "started from the recorded state after row 1:"
