"""Updates of snapshots that another environment took: whole, and as uncertain as before."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runner.compare.snapshots.reading import read
from runner.config.files.safe_files import Folder
from tests.cli.commands import steprun
from tests.compare.snapshotting import (
    LINEAR,
    WIDE,
    checked,
    contents,
    edit,
    sidecar_of,
    sidecars_of,
    taken,
)
from tests.compare.uncertainty.elsewhere import elsewhere, line_of

# --- an update is one change


@pytest.mark.parametrize("calls", range(5))
def test_a_kill_at_any_point_of_an_update_leaves_a_whole_snapshot(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = taken(tmp_path, WIDE, runs=3)
    before = contents(tmp_path)
    (tmp_path / "model.yaml").write_text(WIDE.replace("lr: 0.1", "lr: 0.2"))
    done = 0

    def killed_at(name: str) -> None:
        nonlocal done
        if done == calls:
            raise KeyboardInterrupt(name)
        done += 1

    for name in ("write", "remove"):
        original = getattr(Folder, name)

        def wrapped(self: Folder, *args: object, original: object = original, name: str = name, **more: object) -> None:
            killed_at(name)
            original(self, *args, **more)  # type: ignore[operator]
            killed_at(name)

        monkeypatch.setattr(Folder, name, wrapped)
    with contextlib.suppress(KeyboardInterrupt):
        checked(tmp_path, "all", runs=3)
    monkeypatch.undo()
    snapshot, _ = read(path)  # raises where the text and the elements do not belong together
    is_old = path.read_bytes() == before["snapshots/model.yaml"]
    weights = snapshot.rows[-1]["w"]
    assert isinstance(weights, torch.Tensor)
    assert checked(tmp_path).status == ("differs" if is_old else "holds")
    assert checked(tmp_path, "all", runs=3).status == "updated"
    assert len(sidecars_of(path)) == 1  # what was left over is gone
    assert checked(tmp_path).status == "holds"


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_text("precious")
    inside = tmp_path / "inside"
    inside.mkdir()
    path = taken(inside, WIDE)
    sidecar = sidecar_of(path)
    sidecar.rename(outside / sidecar.name)
    sidecar.symlink_to(outside / sidecar.name)
    assert checked(inside).status == "damaged"
    sidecar.unlink()
    (outside / sidecar.name).rename(sidecar)
    for name in (f".{path.name}.writing", f"{path.name}.tmp"):
        (path.parent / name).symlink_to(victim)
    assert checked(inside, "all").status == "updated"
    assert victim.read_text() == "precious"
    folder = path.parent
    folder.rename(outside / "snapshots")
    folder.symlink_to(outside / "snapshots")
    before = contents(outside)
    done = steprun("snapshot", "model.yaml", "--uncertainty=0", cwd=inside)
    assert done.code != 0
    assert "it is a link" in done.err
    assert contents(outside) == before
    outcome = checked(inside)
    told = (f"cannot use {path.parent} as the folder of snapshots: it is a link", "= replace it with a folder")
    assert (outcome.status, outcome.lines) == ("damaged", told)


def test_an_update_warns_where_a_number_means_little(tmp_path: Path) -> None:
    text = "parameters: {x: 0.3}\nexpression: y = 3.9 * x * (1 - x)\nsteps:\n"
    taken(tmp_path, text + "  - repeat: {times: 40, steps: [forward, {assign: {x: y}}]}\n", runs=3)
    outcome = checked(tmp_path, "all", runs=3)
    assert outcome.status == "updated"
    assert any(
        re.fullmatch(r"from row \d+ on `y`.* uncertain to .*: keep earlier rows", line) for line in outcome.lines
    )


def test_the_details_count_what_is_kept_as_a_digest_alone(tmp_path: Path) -> None:
    taken(tmp_path, WIDE + "snapshot: {tensors: digest}\n", runs=3)
    assert checked(tmp_path).details["digests"] == 5  # `w` after each of 3 rows, `w.grad` after 2


def test_an_empty_mapping_that_gets_entries_is_no_field_that_was_removed(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    edit(tmp_path / "model.yaml", "normal: {}", "normal: {std: 1.0}")
    assert [each["field"] for each in checked(tmp_path).details["edited"]] == ["parameters.w.init.normal.std"]
    path.unlink()
    assert checked(tmp_path, "new").status == "written"
    edit(tmp_path / "model.yaml", "normal: {std: 1.0}", "normal: {}")
    found = [(each["field"], each["kind"]) for each in checked(tmp_path).details["edited"]]
    assert found == [("parameters.w.init.normal.std", "removed")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_or_a_huge_file_in_place_of_a_snapshot_does_not_block(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    path.unlink()
    os.mkfifo(path)
    assert checked(tmp_path).lines[0] == f"cannot read {path}: it is a pipe, socket or device"
    path.unlink()
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert "bytes, and at most" in checked(tmp_path).lines[0]


def test_an_edit_in_a_base_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(LINEAR)
    taken(tmp_path, "extends: base.yaml\n")
    edit(tmp_path / "base.yaml", "30 * x2", "31 * x2")
    outcome = checked(tmp_path)
    assert outcome.lines[0] == f"`expression.f` was edited ({tmp_path / 'base.yaml'}:3)"


# --- updates and overlays of measured snapshots


def test_an_overlay_of_a_measured_snapshot_is_as_uncertain_as_what_it_lies_over(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE, runs=3)
    elsewhere(path)
    edit(path, line_of(path, "    f: "), line_of(path, "    f: ").replace(": ", ": 1", 1))
    assert checked(tmp_path).status == "differs"
    done = steprun("snapshot", "model.yaml", "--overlay", cwd=tmp_path)
    assert done.code == 0, done.err
    snapshot, _ = read(path)
    assert [list(row) for row in snapshot.overlays[0].rows.values()] == [["f"]]
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", True)
    rows = snapshot.overlaid(snapshot.overlays[0])
    assert rows[1].values["f"].uncertainty == snapshot.rows[1].values["f"].uncertainty


REFACTORED = """\
parameters: {w: {shape: [5, 7], init: {normal: {}}}}
constants: {x: {shape: [9, 5], init: {normal: {}}}}
expression: f = ((x @ w) ** 2).mean()
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""


def test_an_update_of_an_edited_config_whose_bits_moved_holds_afterwards(tmp_path: Path) -> None:
    taken(tmp_path, REFACTORED, runs=4)
    (tmp_path / "model.yaml").write_text(
        REFACTORED.replace("((x @ w) ** 2).mean()", "(x @ w / 3 * (x @ w)).mean() * 3")
    )
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.details["bits"]) == ("holds", False)
    assert checked(tmp_path, "differing", runs=4).status == "updated"
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact, outcome.lines) == ("holds", True, ())


def test_new_writes_over_no_difference_where_uncertainties_would_come(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    edit(path, "    f: 7000.0", "    f: 7001.0")
    before = path.read_bytes()
    assert checked(tmp_path, "new", runs=3).status == "differs"
    assert path.read_bytes() == before


def test_an_update_refuses_noise_as_taking_a_snapshot_does(tmp_path: Path) -> None:
    text = "parameters: {w: {shape: [5], init: {normal: {}}}}\nexpression: f = (w.exp().log() - w).sum()\n"
    (tmp_path / "model.yaml").write_text(text + "log: {include: [f]}\nsteps: [forward]\n")
    outcome = checked(tmp_path, "new", runs=4)
    assert outcome.status == "failed"
    assert "is uncertain by more than a tenth, in every row" in outcome.lines[0]
    assert not (tmp_path / "snapshots").exists()


def test_taking_again_follows_a_config_that_measures_nothing_any_more(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(LINEAR)
    assert steprun("snapshot", "model.yaml", "--uncertainty=3", cwd=tmp_path).code == 0
    (tmp_path / "model.yaml").write_text(LINEAR + "snapshot: {uncertainty: false}\n")
    assert steprun("snapshot", "model.yaml", cwd=tmp_path).code == 0
    assert read(tmp_path / "snapshots" / "model.yaml")[0].measured is None
    done = steprun("snapshot", "model.yaml", "--uncertainty=2", cwd=tmp_path)
    assert (done.code, "it takes 0, or 3 or more" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("section", "old", "new", "field"),
    [
        ("{every: 5}", "lr: 0.1", "lr: 0.11", "optimizer.sgd.lr"),
        (
            "{include: [f]}",
            "w: {shape: [5, 7], init: {normal: {}}}",
            "w: {shape: [5, 7], init: {normal: {std: 2}}}",
            ".std",
        ),
        ("{include: [w]}", "f = ((x @ w)", "f = 1.1 * ((x @ w)", "expression.f"),
    ],
)
def test_an_edit_is_a_cause_though_what_it_changes_first_is_not_kept(
    section: str, old: str, new: str, field: str, tmp_path: Path
) -> None:
    text = REFACTORED.replace("steps: 3", "steps: 10") + f"snapshot: {section}\n"
    taken(tmp_path, text, runs=3)
    assert old in text
    (tmp_path / "model.yaml").write_text(text.replace(old, new))
    outcome = checked(tmp_path)
    assert outcome.status == "differs"
    assert any(field in cause and cause.endswith("can explain this") for cause in outcome.details["causes"])


UPDATES = """\
import sys
from pathlib import Path
from runner.compare.snapshots.checking import Request, Target, check
folder, rate = Path(sys.argv[1]), sys.argv[2]
target = Target(str(folder / "model.yaml"), str(folder / "snapshots" / "model.yaml"))
for _ in range(30):
    outcome = check(target, Request("all", (f"optimizer.sgd.lr={rate}",), runs=0))
    assert outcome.status == "updated", outcome.lines
"""


@pytest.mark.slow
def test_of_two_updates_at_once_each_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    both = [
        subprocess.Popen([sys.executable, "-c", UPDATES, str(tmp_path), rate], env=environment)
        for rate in ("0.2", "0.3")
    ]
    assert [process.wait() for process in both] == [0, 0]
    read(path)
    assert len(sidecars_of(path)) == 1


def test_a_snapshot_that_another_process_writes_for_long_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = taken(tmp_path, LINEAR)
    monkeypatch.setattr("runner.compare.snapshots.writing.PATIENCE", 0.0)
    with Folder(path.parent) as folder, folder.locked():
        outcome = checked(tmp_path, "all")
    assert outcome.lines[0] == f"cannot write the snapshot {path}: another process is writing to it"
