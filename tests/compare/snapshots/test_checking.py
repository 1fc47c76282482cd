"""A config held to its snapshot: what holds, what does not, what an update writes, and what nothing overwrites."""

from __future__ import annotations

import difflib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from runner.compare.snapshots.checking import Request, Target, check
from runner.compare.snapshots.comments import annotated
from runner.compare.snapshots.reading import read
from tests.compare.snapshotting import LINEAR, WIDE, checked, contents, edit, sidecar_of, taken

NOISY = """\
parameters: {w: {shape: [4], init: {normal: {}}}}
constants: {x: {shape: [6, 4], init: {normal: {}}}}
expression: f = dropout(x @ w, 0.5, training).square().sum()
optimizer: {sgd: {lr: 0.01}}
steps: 5
"""

ASSIGNED = 'steps: [backward, step, {assign: {w: "w + 0.001 * ones(9, 9)"}}]'


def changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]


@pytest.mark.parametrize("text", [LINEAR, WIDE, NOISY], ids=["linear", "wide", "noisy"])
def test_a_run_holds_to_its_own_snapshot_and_writes_nothing(text: str, tmp_path: Path) -> None:
    taken(tmp_path, text)
    before = contents(tmp_path)
    for update in (None, "new", "differing"):
        outcome = checked(tmp_path, update)  # type: ignore[arg-type]
        assert (outcome.status, outcome.exit_code, outcome.exact, outcome.lines) == ("holds", 0, True, ())
    assert contents(tmp_path) == before
    assert checked(tmp_path, "all").status == "updated"
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_another_process_holds_too(tmp_path: Path) -> None:
    taken(tmp_path, NOISY)
    code = "import sys; from runner.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", code, "check", str(tmp_path), "-q"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 snapshot: 1 holds in ")


def test_one_moved_tensor_is_told_and_an_update_changes_its_line_alone(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    whole = path.read_text()
    edit(path, "    x2: 199.7", "    x2: 199.8")
    edited = path.read_text()
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exit_code) == ("differs", 3)
    assert outcome.lines[:3] == ("row 2, 2.step: `x2` differs", "  expected  199.8 at [0]", "  found     199.7")
    assert path.read_text() == edited
    assert checked(tmp_path, "differing").lines == (f"wrote {path}: 1 tensor changed",)
    assert changed_lines(edited, path.read_text()) == ["-    x2: 199.8", "+    x2: 199.7"]
    assert path.read_text() == whole


def test_one_moved_large_tensor_changes_one_line(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE.replace("steps: 2", ASSIGNED))
    before = path.read_text()
    (tmp_path / "model.yaml").write_text((tmp_path / "model.yaml").read_text().replace("0.001", "0.002"))
    assert checked(tmp_path).status == "differs"
    assert checked(tmp_path, "differing").lines == (f"wrote {path}: 1 tensor changed, 1 field of the config edited",)
    lines = changed_lines(before, path.read_text())
    heads = ["  steps.2.assign.w: ", "elements: ", "    w: sha"]
    assert [
        line[: len(head) + 1] for line, head in zip(lines, [each for each in heads for _ in "-+"], strict=True)
    ] == [sign + head for head in heads for sign in "-+"]
    assert checked(tmp_path).status == "holds"


def test_what_a_person_wrote_into_a_snapshot_stays_at_its_line(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    clean = path.read_text()
    edit(path, "format: 2\n", "# kept since March\nformat: 2\n")
    edit(path, 'of: "model.yaml"\n', 'of: "model.yaml"  # not "that # one"\n')
    edit(path, "  2 2.step:\n", "\n  # the update\n  # and what follows\n  2 2.step:   # look: here\n")
    edit(path, "    x1.grad: 10.0\n    x2: 199.7\n", "    x1.grad: 10.0 # ten\n    # moved\n    x2: 199.7 # wrong\n")
    noted = path.read_text()
    assert checked(tmp_path).status == "holds"
    edit(path, "    x2: 199.7 #", "    x2: 199.8 #")
    assert checked(tmp_path, "differing").lines == (f"wrote {path}: 1 tensor changed",)
    assert path.read_text() == noted
    (tmp_path / "model.yaml").write_text(LINEAR.replace("backward, step", "backward"))
    assert checked(tmp_path, "all").status == "updated"
    shorter = path.read_text()
    assert shorter.count("#") == 4  # those of the step are gone with it
    assert 'of: "model.yaml"  # not "that # one"\n' in shorter
    path.write_text(clean)
    assert annotated(clean, noted) == noted
    assert annotated(clean, clean) == clean
    assert annotated(noted, clean) == noted


def test_notes_of_two_overlays_are_told_apart() -> None:
    clean = "# head\noverlays:\n  - environment:\n      threads: 1\n  - environment:\n      threads: 2\n...\n"
    noted = clean.replace("threads: 2\n", "threads: 2 # ours\n").replace("...", "# the end\n...")
    assert annotated(clean, noted) == noted


def test_statistics_that_are_rounded_otherwise_are_left_as_they_stand(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    number = read(path)[0].rows[0].values["w"].text.split()[2]
    edit(path, f"mean {number}", "mean 0.123")
    edited = path.read_text()
    assert checked(tmp_path).status == "holds"
    edit(path, "    f: ", "    f: 1")
    assert checked(tmp_path, "differing").status == "updated"
    assert changed_lines(edited, path.read_text()) == []


def test_an_edited_config_is_compared_and_the_edited_lines_come_first_among_the_causes(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    before = path.read_bytes()
    changed = LINEAR.replace("10 * x1", "11 * x1").replace("lr: learning_rate", "lr: learning_rate, momentum: 0.5")
    (tmp_path / "model.yaml").write_text(changed + "seed: 4\n")
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exit_code, outcome.exact) == ("differs", 3, False)
    assert outcome.lines[:4] == (
        "`expression.f` was edited (line 3)",
        "`optimizer.sgd.momentum` is new (line 4)",
        "`seed` is new (line 6)",
        "row 1, 1.backward: `f` differs; so does `x1.grad`",
    )
    assert outcome.details["causes"][0] == "`expression.f` was edited (line 3), which can explain this"
    assert [edit["field"] for edit in outcome.details["edited"]] == ["expression.f", "optimizer.sgd.momentum", "seed"]
    assert path.read_bytes() == before


def test_a_refactored_expression_holds_and_an_update_refreshes_the_digests_alone(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR, runs=3)
    before = path.read_text()
    (tmp_path / "model.yaml").write_text(LINEAR.replace("f = 10 * x1 + 30 * x2", "f = 10 * (x1 + 3 * x2)"))
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exit_code, outcome.exact) == ("holds", 0, False)
    assert outcome.lines == ("`expression.f` was edited (line 3)",)
    assert path.read_text() == before
    assert checked(tmp_path, "differing", runs=3).lines == (
        f"wrote {path}: 0 tensors changed, 1 field of the config edited",
    )
    assert [line[:17] for line in changed_lines(before, path.read_text())] == ["-  expression.f: ", "+  expression.f: "]
    assert checked(tmp_path).lines == ()


def test_steps_that_moved_into_another_loop_are_compared_and_what_is_new_is_a_note(tmp_path: Path) -> None:
    taken(tmp_path, LINEAR.replace("[backward, step]", "6"))
    loop = "[{repeat: {times: 2, steps: [{repeat: {times: 3, steps: [train]}}]}}, forward]"
    (tmp_path / "model.yaml").write_text(LINEAR.replace("[backward, step]", loop))
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.rows) == ("holds", 7)
    assert "1 row is new: row 7, 2.forward" in outcome.lines


def test_a_row_that_is_missing_from_an_edited_config_is_a_difference_and_the_others_are_compared(
    tmp_path: Path,
) -> None:
    taken(tmp_path, LINEAR)
    (tmp_path / "model.yaml").write_text(LINEAR.replace("[backward, step]", "[backward]"))
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.rows) == ("differs", 2)
    assert "1 row is missing: row 2, 2.step" in outcome.lines


def test_an_edited_config_that_keeps_other_iterations_is_compared_where_both_keep_one(tmp_path: Path) -> None:
    looped = LINEAR.replace("[backward, step]", "20")
    taken(tmp_path, looped + "snapshot: {every: 5}\n", runs=3)
    refactored = looped.replace("f = 10 * x1 + 30 * x2", "f = 10 * (x1 + 3 * x2)")
    (tmp_path / "model.yaml").write_text(refactored + "snapshot: {every: 10}\n")
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.rows) == ("differs", 3)
    assert outcome.lines[1] == "2 rows are missing: the first is row 1, repeat[5].train"
    assert outcome.details["first"] is None


def test_an_edited_config_of_which_nothing_matches_says_so(tmp_path: Path) -> None:
    taken(tmp_path, LINEAR)
    text = LINEAR.replace("steps: [backward, step]", "steps: [forward]").replace(
        "optimizer: {sgd: {lr: learning_rate}}\n", ""
    )
    (tmp_path / "model.yaml").write_text(text)
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exit_code) == ("stale", 3)
    assert outcome.lines == (
        "the config was edited, and none of its steps is in the snapshot",
        "`steps` was edited (line 4)",
        "`optimizer.sgd.lr` was removed",
        "= `steprun check --update` takes the numbers of the edited config",
    )
    assert checked(tmp_path, "differing").status == "updated"
    assert checked(tmp_path).lines == ()


@pytest.mark.parametrize(
    "written",
    ["name: model\n", "description: another\n", "log: {budget: 100000}\n", "snapshot: {rtol: 1e-3}\n", "seed: 0\n"],
)
def test_what_no_number_depends_on_makes_no_snapshot_stale(written: str, tmp_path: Path) -> None:
    taken(tmp_path, LINEAR)
    (tmp_path / "model.yaml").write_text(LINEAR + written)
    assert checked(tmp_path).status == "holds"


def test_a_config_without_a_snapshot_and_a_snapshot_without_a_config(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    (tmp_path / "other.yaml").write_text(LINEAR)
    outcome = checked(tmp_path, name="other")
    assert (outcome.status, outcome.exit_code) == ("missing", 3)
    name = tmp_path / "other.yaml"
    assert outcome.lines == (f"{name} has no snapshot", f"= `steprun snapshot {name}` takes one")
    (tmp_path / "model.yaml").unlink()
    before = contents(tmp_path)
    for request in (Request(), Request("all")):
        orphan = check(Target(None, str(path)), request)
        assert (orphan.status, orphan.exit_code) == ("orphan", 3)
        assert orphan.lines == (
            f"{path} belongs to model.yaml, which does not exist",
            "= restore the config, or remove this file",
        )
    assert contents(tmp_path) == before


def test_two_configs_of_one_name_do_not_share_a_snapshot(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    (tmp_path / "other.yaml").write_text("name: model\n" + LINEAR)
    outcome = check(Target(str(tmp_path / "other.yaml"), str(path)), Request("all"))
    assert outcome.status == "damaged"
    assert outcome.lines == (
        f"{path} belongs to model.yaml, not to {tmp_path / 'other.yaml'}",
        "= give one of the two configs a `name` of its own",
    )


def test_a_snapshot_that_its_config_no_longer_goes_by_is_told(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    before = contents(tmp_path)
    (tmp_path / "model.yaml").write_text("name: other\n" + LINEAR)
    for update in (None, "differing"):
        outcome = check(Target(None, str(path)), Request(update))  # type: ignore[arg-type]
        assert (outcome.status, outcome.exit_code) == ("stale", 3)
        assert outcome.lines == (
            f"{path} belongs to {tmp_path / 'model.yaml'}, whose name is `other`",
            f"= `steprun snapshot {tmp_path / 'model.yaml'}` takes other.yaml; remove this one",
        )
    assert contents(tmp_path)["snapshots/model.yaml"] == before["snapshots/model.yaml"]


@pytest.mark.parametrize("update", [None, "new", "differing", "all"])
def test_nothing_is_written_over_a_snapshot_that_cannot_be_read(update: str | None, tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    sidecar_file = sidecar_of(path)
    text, sidecar = path.read_text(), sidecar_file.read_bytes()
    damages = {
        "edited": (text.replace("    f: ", "    f: one"), sidecar),
        "cut": (text[:-30], sidecar),
        "format": (text.replace("format: 2", "format: 7"), sidecar),
        "sidecar": (text, sidecar[:-1] + bytes([sidecar[-1] ^ 1])),
        "none": (text, b""),
    }
    for damaged, large in damages.values():
        path.write_text(damaged)
        sidecar_file.write_bytes(large)
        before = contents(tmp_path)
        outcome = checked(tmp_path, update)  # type: ignore[arg-type]
        assert (outcome.status, outcome.exit_code) == ("damaged", 2)
        assert contents(tmp_path) == before


def test_a_config_that_is_not_valid_or_fails_is_told_with_its_place(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    before = path.read_bytes()
    (tmp_path / "model.yaml").write_text(LINEAR.replace("30 * x2", "30 * x4"))
    outcome = checked(tmp_path, "all")
    assert (outcome.status, outcome.exit_code) == ("failed", 2)
    assert outcome.lines[0] == f"{tmp_path / 'model.yaml'}:3:32  expression"
    (tmp_path / "model.yaml").write_text(LINEAR.replace("step]", "{expect: {x1.grad: 11}}, step]"))
    outcome = checked(tmp_path, "all")
    assert (outcome.status, outcome.exit_code) == ("failed", 3)
    assert "expected 11.0, found 10.0" in outcome.lines[2]
    assert path.read_bytes() == before


# --- updates


def test_new_adds_and_touches_nothing_else(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR + "snapshot: {include: [x1, x1.grad]}\n")
    edit(path, "    x1.grad: 10.0", "    x1.grad: 11.0")
    before = path.read_text()
    (tmp_path / "model.yaml").write_text(LINEAR.replace("step]", "step, backward]"))
    outcome = checked(tmp_path, "new")
    assert outcome.status == "differs"
    lines = changed_lines(before, path.read_text())
    assert [line for line in lines if line.startswith("-")] == []
    assert {"+    f: 7000.0", "+  3 3.backward:"} <= set(lines)
    assert checked(tmp_path).status == "differs"  # what differed still does
    edit(path, "    x1.grad: 11.0", "    x1.grad: 10.0")
    assert checked(tmp_path, "new").status == "updated"
    assert checked(tmp_path).status == "holds"


def test_rows_and_tensors_that_are_gone_are_dropped(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR.replace("step]", "step, backward]"))
    (tmp_path / "model.yaml").write_text(LINEAR + "snapshot: {include: [x1]}\n")
    assert checked(tmp_path, "differing").status == "updated"
    snapshot, _ = read(path)
    assert [column.name for column in snapshot.columns] == ["x1"]
    assert len(snapshot.rows) == 3


@pytest.mark.parametrize("tensors", ["stats", "digest"])
def test_a_snapshot_keeps_the_same_whatever_the_log_keeps_of_tensors(tensors: str, tmp_path: Path) -> None:
    full = taken(tmp_path, WIDE, "a")
    kept = taken(tmp_path, WIDE + f"log: {{tensors: {tensors}}}\n", "b")
    rows = [path.read_text(encoding="utf-8").partition("\ntensors:")[2] for path in (full, kept)]
    assert rows[0] == rows[1] != ""
    assert checked(tmp_path, name="b").status == "holds"


DATA = """\
parameters: {w: {file: start.npy}}
constants: {scale: {file: scale.npy}}
data: {train: {file: points.csv, columns: {x: [a, b]}, batch_size: 2}}
expression: loss = ((x * w).sum() * scale).sum()
optimizer: {sgd: {lr: 0.1}}
steps: {epochs: 1}
"""


def test_a_data_file_that_is_another_one_is_told_where_numbers_differ(tmp_path: Path) -> None:
    numpy.save(tmp_path / "start.npy", numpy.ones(2, numpy.float32))
    numpy.save(tmp_path / "scale.npy", numpy.ones(1, numpy.float32))
    points = tmp_path / "points.csv"
    points.write_text("a,b,c\n1.0,2.0,3.0\n4.0,5.0,6.0\n")
    path = taken(tmp_path, DATA)
    kept, _ = read(path)
    assert list(kept.files) == ["start.npy", "scale.npy", "points.csv"]
    assert kept.files["points.csv"] == hashlib.sha256(points.read_bytes()).hexdigest()[:16]
    assert checked(tmp_path).status == "holds"

    points.write_text(points.read_text().replace("3.0", "3.5"))  # which nothing reads
    assert checked(tmp_path).status == "holds"
    points.write_text(points.read_text().replace("5.0", "5.5"))
    outcome = checked(tmp_path)
    assert outcome.status == "differs"
    assert outcome.lines[0] == "`points.csv` is not the file that the snapshot was taken with"
    assert outcome.details["changed_files"] == ["points.csv"]

    assert checked(tmp_path, "differing").status == "updated"
    assert checked(tmp_path).status == "holds"
    assert read(path)[0].files["points.csv"] == hashlib.sha256(points.read_bytes()).hexdigest()[:16]


def test_a_snapshot_that_tells_of_no_file_is_held_to_its_numbers(tmp_path: Path) -> None:
    numpy.save(tmp_path / "start.npy", numpy.ones(2, numpy.float32))
    numpy.save(tmp_path / "scale.npy", numpy.ones(1, numpy.float32))
    (tmp_path / "points.csv").write_text("a,b\n1.0,2.0\n3.0,4.0\n")
    path = taken(tmp_path, DATA)
    told = path.read_text()
    edit(path, told[told.index("files:") : told.index("environment:")], "")
    assert read(path)[0].files == {}
    assert checked(tmp_path).status == "holds"
