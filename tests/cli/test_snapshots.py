"""`steprun snapshot` and `steprun check`: what is printed, what is written, how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.commands import LINEAR, steprun, top_modules_after


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "linear.yaml").write_text(LINEAR)
    (tmp_path / "other.yaml").write_text(LINEAR.replace("10 * x1", "20 * x1"))
    assert steprun("snapshot", "linear.yaml", "other.yaml", "--uncertainty=0", cwd=tmp_path).code == 0
    return tmp_path


def edit(folder: Path, name: str = "linear") -> None:
    path = folder / "snapshots" / f"{name}.yaml"
    text = path.read_text()
    assert "    x2: 199.7\n" in text
    path.write_text(text.replace("    x2: 199.7\n", "    x2: 199.8\n"))


def untimed(text: str) -> str:
    """The text with every time as `1.0 s` and no more blanks than one between cells."""
    return re.sub(r" {2,}", "  ", re.sub(r"\d+\.\d+ s\b", "1.0 s", text))


def test_a_snapshot_is_taken_and_told(tmp_path: Path) -> None:
    (tmp_path / "linear.yaml").write_text(LINEAR)
    done = steprun("snapshot", "linear.yaml", cwd=tmp_path)
    told = "snapshots/linear.yaml  3 rows, 5 tensors; uncertainty from 8 perturbed runs\n"
    assert (done.code, done.out, done.err) == (0, told, "")
    done = steprun("snapshot", "linear.yaml", "--uncertainty", "4", cwd=tmp_path)
    assert done.code == 2  # a bare `--uncertainty` takes no word: `4` is a config
    done = steprun("snapshot", "linear.yaml", "--uncertainty=4", "-q", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert "uncertainty: {rules: 1, runs: 4}\n" in (tmp_path / "snapshots" / "linear.yaml").read_text()
    assert (tmp_path / "snapshots" / "linear.yaml").is_file()


def test_what_holds_is_a_table_and_a_last_line(folder: Path) -> None:
    done = steprun("check", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert untimed(done.out) == (
        "config  status  rows  compared by  took\n"
        "linear.yaml  holds  3  bits  1.0 s\n"
        "other.yaml  holds  3  bits  1.0 s\n"
        "2 snapshots: 2 hold in 1.0 s\n"
    )
    assert untimed(steprun("check", "-q", cwd=folder).out) == "2 snapshots: 2 hold in 1.0 s\n"


def test_what_differs_comes_first_and_exits_with_3(folder: Path) -> None:
    edit(folder)
    done = steprun("check", ".", "--quiet", cwd=folder)
    assert (done.code, done.err) == (3, "")
    assert untimed(done.out) == (
        "linear.yaml: differs\n"
        "  row 2, 2.step: `x2` differs\n"
        "  expected  199.8 at [0]\n"
        "  found  199.7\n"
        "  apart  abs 0.1, rel 0.000501, 6,554 ULP of float32\n"
        "  passes at rtol 0.000501, or atol 0.101 alone, or ulp 6,554\n"
        "  cause  gradients bit-equal, update of `x2` differs: look at the optimizer\n"
        "  the update is 1.5 × the expected one\n"
        "\n"
        "2 snapshots: 1 differs, 1 holds in 1.0 s\n"
    )


def test_update_writes_what_differs_and_says_how_much(folder: Path) -> None:
    edit(folder)
    done = steprun("check", "--update", "linear.yaml", cwd=folder)
    assert done.code == 0
    assert done.out.startswith("linear.yaml: updated\n  wrote snapshots/linear.yaml: 1 tensor changed\n")
    assert "x2: 199.7\n" in (folder / "snapshots" / "linear.yaml").read_text()
    assert steprun("check", cwd=folder).code == 0


def test_update_takes_three_words(folder: Path) -> None:
    assert steprun("check", "--update=all", cwd=folder).code == 0
    assert steprun("check", "--update=new", cwd=folder).code == 0
    done = steprun("check", "--update=some", cwd=folder)
    assert done.code == 2
    assert "--update is `some`" in done.err
    assert "it takes new, differing, all" in done.err


def test_update_takes_the_snapshot_of_a_config_that_has_none(folder: Path) -> None:
    (folder / "third.yaml").write_text(LINEAR)
    done = steprun("check", "third.yaml", cwd=folder)
    assert done.code == 3
    assert "third.yaml has no snapshot\n  = `steprun snapshot third.yaml` takes one" in done.out
    assert "1 snapshot: 1 missing in " in done.out
    assert steprun("check", "third.yaml", "--update=new", cwd=folder).code == 0
    assert (folder / "snapshots" / "third.yaml").is_file()


def test_fail_fast_says_how_many_were_left(folder: Path) -> None:
    edit(folder)
    done = steprun("check", "-x", "-q", cwd=folder)
    assert done.code == 3
    assert untimed(done.out).endswith("1 snapshot: 1 differs, 1 not checked in 1.0 s\n")


def test_junit_and_json_say_the_same(folder: Path) -> None:
    edit(folder)
    (folder / "snapshots" / "other.yaml").write_text("format: 1\n")
    done = steprun("check", "--junit", "build/steprun.xml", "--json", cwd=folder)
    assert (done.code, done.err) == (3, "")
    told = json.loads(done.out)
    assert told["exit_code"] == 3
    assert told["counts"] == {"differs": 1, "damaged": 1}
    assert [each["name"] for each in told["snapshots"]] == ["linear.yaml", "snapshots/other.yaml"]
    assert told["snapshots"][0]["details"]["first"]["tensors"][0]["worst"]["ulps"] == 6554
    assert told["snapshots"][1]["details"]["problems"][0]["line"] == 1
    suite = ElementTree.parse(folder / "build" / "steprun.xml").getroot().find("testsuite")
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "2",
        "failures": "1",
        "errors": "1",
    }
    failure, error = suite.find("testcase/failure"), suite.find("testcase/error")
    assert failure is not None
    assert error is not None
    assert failure.get("message") == "row 2, 2.step: `x2` differs"
    assert (failure.text or "").splitlines() == told["snapshots"][0]["text"]
    assert "the snapshot is cut off" in (error.text or "")


def test_junit_goes_through_links_and_into_pipes_which_stay(folder: Path) -> None:
    (folder / "results.xml").write_text("old")
    (folder / "link.xml").symlink_to("results.xml")
    assert steprun("check", "--junit", "link.xml", cwd=folder).code == 0
    assert (folder / "link.xml").is_symlink()
    assert ElementTree.parse(folder / "results.xml").getroot()[0].get("tests") == "2"
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert steprun("check", "--junit", "pipe", cwd=folder).code == 0
        assert ElementTree.fromstring(os.read(reader, 1 << 16))[0].get("tests") == "2"
    finally:
        os.close(reader)
    assert (folder / "pipe").is_fifo()


def test_junit_is_xml_whatever_a_file_is_called(folder: Path) -> None:
    (folder / "c\x01d.yaml").write_text("name: c\n" + LINEAR)
    assert steprun("check", "c\x01d.yaml", "--junit", "results.xml", cwd=folder).code == 3
    case = ElementTree.parse(folder / "results.xml").getroot()[0][0]
    assert (case.get("name"), case[0].text) == (
        "c\ufffdd.yaml",
        "c\ufffdd.yaml has no snapshot\n= `steprun snapshot 'c\ufffdd.yaml'` takes one",
    )


def test_a_damaged_snapshot_alone_exits_with_2(folder: Path) -> None:
    (folder / "snapshots" / "other.yaml").write_text("")
    done = steprun("check", cwd=folder)
    assert done.code == 2
    assert "snapshots/other.yaml: damaged\n" in done.out
    done = steprun("snapshot", "other.yaml", cwd=folder)
    assert done.code == 2
    assert "the snapshot is empty" in done.err
    assert (folder / "snapshots" / "other.yaml").read_text() == ""


def test_nothing_to_check_is_said(tmp_path: Path) -> None:
    done = steprun("check", cwd=tmp_path)
    assert done.code == 2
    assert "there is no snapshot below ." in done.err


def test_an_override_holds_for_every_config(folder: Path) -> None:
    done = steprun("check", "--set", "parameters.x1.init=5", cwd=folder)
    assert done.code == 3
    assert done.out.count("`parameters.x1.init` was edited (override parameters.x1.init=5)") == 4
    assert done.out.count("cause     `parameters.x1.init` was edited") == 2


def test_quiet_tells_of_what_does_not_hold_alone(folder: Path) -> None:
    done = steprun("check", "--set", "engine=compile", "-q", cwd=folder)
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert "2 skipped" in done.out
    assert "`engine: compile`" in steprun("check", "--set", "engine=compile", cwd=folder).out


def test_a_fault_of_what_is_kept_is_told_once(folder: Path) -> None:
    (folder / "linear.yaml").write_text(LINEAR + "snapshot: {every: 0, include: [y]}\nlog: {include: [z]}\n")
    done = steprun("snapshot", "linear.yaml", cwd=folder)
    assert done.code == 2
    assert re.findall(r"^linear\.yaml:\d+:\d+  (\S+)$", done.err, re.MULTILINE) == [
        "snapshot.every",
        "snapshot.include.0",
    ]


def test_an_overlay_needs_a_snapshot_of_the_same_rows(folder: Path) -> None:
    (folder / "third.yaml").write_text(LINEAR)
    done = steprun("snapshot", "third.yaml", "--overlay", cwd=folder)
    assert done.code == 2
    assert "third.yaml has no snapshot to overlay" in done.err
    done = steprun("snapshot", "linear.yaml", "--overlay", "--set", "steps=2", cwd=folder)
    assert done.code == 2
    assert "the run of linear.yaml has other rows than its snapshot" in done.err
    before = (folder / "snapshots" / "linear.yaml").read_bytes()
    assert steprun("snapshot", "linear.yaml", "--overlay", cwd=folder).code == 0
    assert (folder / "snapshots" / "linear.yaml").read_bytes() == before


def test_two_configs_of_one_name_are_told_apart(folder: Path) -> None:
    (folder / "third.yaml").write_text("name: linear\n" + LINEAR)
    done = steprun("snapshot", "third.yaml", cwd=folder)
    assert done.code == 2
    assert "snapshots/linear.yaml belongs to linear.yaml, not to third.yaml" in done.err
    assert "give one of the two configs a `name` of its own" in done.err


def test_the_table_of_many_names_what_does_not_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.cli.commands.snapshots.LONGEST_TABLE", 1)
    edit(folder)
    out = untimed(steprun("check", cwd=folder).out)
    assert "linear.yaml  differs  3  bits  1.0 s\n" in out
    assert "other.yaml" not in out


def test_help_imports_no_torch() -> None:
    for command in ("snapshot", "check"):
        assert "torch" not in top_modules_after(command, "--help")


@pytest.mark.slow
def test_what_differs_is_told_without_sympy(folder: Path) -> None:
    edit(folder)
    code = "import sys; from runner.cli.main import main; main(['check']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert "`x2` differs" in done.stdout
    assert "torch" in done.stderr.split()
    assert "sympy" not in done.stderr.split()


HOSTILE = "\x1b]52;c;cHduZWQ=\x07\x9b2J\u202e"


def test_no_text_of_a_snapshot_reaches_the_terminal_as_an_escape(folder: Path) -> None:
    path = folder / "snapshots" / "linear.yaml"
    escaped = json.dumps(HOSTILE)[1:-1]
    text = path.read_text()
    for old, new in (
        ('of: "linear.yaml"', f'of: "{escaped}.yaml"'),
        ('  torch: "', f'  torch: "{escaped}'),
        ("expression.f: ", f'"expression.{escaped}": '),
        ("  x2: weight", f'  "{escaped}": weight'),
        ("  2 2.step:", f'  "2 {escaped}":'),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        for arguments in (["check"], ["check", "--json"], ["check", "--junit", "out.xml"]):
            done = steprun(*arguments, cwd=folder)
            for character in "\x1b\x07\x9b\u202e":
                assert character not in done.out + done.err, (old, arguments)
    assert "\x1b" not in (folder / "out.xml").read_text()


@pytest.mark.parametrize(
    ("section", "shown"),
    [("", "uncertainty, same bits"), ("snapshot: {rtol: 1e-3}\n", "tolerance, same bits"),
     ("snapshot: {uncertainty: false}\n", "tolerance, same bits")],
)  # fmt: skip
def test_the_table_says_by_what_a_snapshot_was_compared(section: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "linear.yaml").write_text(LINEAR + section)
    assert steprun("snapshot", "linear.yaml", "--uncertainty=3", cwd=tmp_path).code == 0
    assert "linear.yaml  holds  3  bits  " in untimed(steprun("check", cwd=tmp_path).out)
    path = tmp_path / "snapshots" / "linear.yaml"
    path.write_text(re.sub(r'  battery: "\w+"', '  battery: "0000000000000000"', path.read_text()))
    assert f"linear.yaml  holds  3  {shown}  " in untimed(steprun("check", cwd=tmp_path).out)


@pytest.mark.parametrize("option", ["--uncertainty=4", "--budget=3"])
def test_options_of_measuring_are_refused_where_nothing_is_written(option: str, folder: Path) -> None:
    done = steprun("check", option, cwd=folder)
    assert done.code == 2
    assert f"{option.partition('=')[0]} has no effect without --update" in done.err
    assert steprun("check", "--update", option, cwd=folder).code == 0
    assert steprun("check", "--update", "--uncertainty=2", cwd=folder).code == 2
