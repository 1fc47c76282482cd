"""`steprun run`: what is printed, what is kept, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from runner.cli.input.options import amount
from tests.cli.commands import LINEAR, steprun, steprun_process
from tests.tables import over


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "linear.yaml").write_text(LINEAR)
    return tmp_path


def directories(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("runs/*/*/run.json"))


def test_the_bare_config_prints_each_row_and_the_run_directory_last(folder: Path) -> None:
    done = steprun("linear.yaml", cwd=folder)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line for line in lines if line.startswith("row ")] == ["row 0  start", "row 1  1.backward", "row 2  2.step"]
    assert "tensor([99.9000])" in done.out
    assert lines[-1] == f"recorded in {directories(folder)[0].relative_to(folder)}"


def test_the_run_directory_holds_what_was_printed(folder: Path) -> None:
    steprun("linear.yaml", cwd=folder)
    run = runner.open_run(directories(folder)[0])
    assert run.manifest["status"] == "finished"
    assert run.manifest["command"] == ["steprun", "linear.yaml"]
    assert run.tensor("x1.grad")[1:].tolist() == [[10.0], [10.0]]
    assert run.tensor("x1").tolist() == [[100.0], [100.0], [pytest.approx(99.9)]]


def test_an_override_and_set_are_the_same(folder: Path) -> None:
    by_override = steprun("linear.yaml", "learning_rate=1", "--no-record", cwd=folder)
    by_set = steprun("linear.yaml", "--set", "learning_rate=1", "--no-record", cwd=folder)
    assert "tensor([90.])" in by_override.out
    assert by_override == by_set


def test_a_config_on_standard_input_runs_as_one_in_a_file(folder: Path) -> None:
    from_file = steprun("linear.yaml", "--no-record", cwd=folder)
    from_stdin = steprun("-", "--no-record", cwd=folder, stdin=LINEAR)
    assert from_stdin == from_file


def test_no_record_keeps_nothing(folder: Path) -> None:
    assert steprun("linear.yaml", "--no-record", cwd=folder).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["linear.yaml"]


def test_quiet_prints_the_run_directory_alone(folder: Path) -> None:
    done = steprun("linear.yaml", "--quiet", cwd=folder)
    assert done.out == f"{directories(folder)[0].relative_to(folder)}\n"


def test_runs_dir_is_where_the_directory_is_made(folder: Path) -> None:
    steprun("linear.yaml", "--runs-dir", "elsewhere", cwd=folder)
    assert len(list(folder.glob("elsewhere/linear/*/run.json"))) == 1


def test_json_is_one_object_a_row(folder: Path) -> None:
    done = steprun("linear.yaml", "--json", cwd=folder)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["row"], row["step"], row["x1.grad"]) for row in rows] == [
        (0, "start", None),
        (1, "backward", [10.0]),
        (2, "step", [10.0]),
    ]
    assert done.err == f"recorded in {directories(folder)[0].relative_to(folder)}\n"
    assert steprun("linear.yaml", "--json", "--quiet", cwd=folder).err == ""


def endless(folder: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A run that does not end by itself and writes every row, after its first line."""
    (folder / "linear.yaml").write_text(LINEAR.replace("steps: [backward, step]", "steps: 100000000"))
    command = [sys.executable, "-m", "runner", "linear.yaml", "--json", "log.budget=1000000000000", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=folder)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def stop_reading(process: subprocess.Popen[str]) -> str:
    """What the run says elsewhere once nobody reads its output."""
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    return process.communicate()[1]


@pytest.mark.slow
def test_a_run_that_nobody_listens_to_at_all_is_interrupted_too(folder: Path) -> None:
    process = endless(folder, stderr=subprocess.STDOUT)
    stop_reading(process)
    assert process.returncode == 130
    assert runner.open_run(directories(folder)[0]).status == "interrupted"


@pytest.mark.parametrize(
    "record", [pytest.param(True, id=""), pytest.param(False, id="no record", marks=pytest.mark.slow)]
)
def test_a_run_whose_output_nobody_reads_any_more_is_interrupted(folder: Path, record: bool) -> None:
    process = endless(folder, *([] if record else ["--no-record"]))
    told = stop_reading(process)
    assert process.returncode == 130
    expected = ""
    if record:
        directory = directories(folder)[0]
        assert runner.open_run(directory).status == "interrupted"
        goes_on = f"`steprun resume {directory.relative_to(folder)}` goes on"
        expected = f"steprun\n      interrupted when its output was closed; {goes_on}\n"
    assert told == expected


def test_an_expectation_that_does_not_hold_exits_3_and_keeps_the_rows(folder: Path) -> None:
    (folder / "linear.yaml").write_text(LINEAR.replace("[backward, step]", "[backward, {expect: {x1.grad: 11}}, step]"))
    done = steprun("linear.yaml", cwd=folder)
    assert done.code == 3
    assert "linear.yaml:5:29  steps.1.expect.x1.grad" in done.err
    assert "Traceback" not in done.err
    assert done.out.splitlines()[-1] == f"recorded until then in {directories(folder)[0].relative_to(folder)}"
    run = runner.open_run(directories(folder)[0])
    assert (run.manifest["status"], len(run)) == ("failed", 2)


def test_all_faults_of_a_config_exit_2_and_nothing_is_kept(folder: Path) -> None:
    (folder / "linear.yaml").write_text(LINEAR.replace("sgd: {lr:", "sgd: {rl:").replace("init: 100", "initial: 100"))
    done = steprun("linear.yaml", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert "did you mean `init`?" in done.err
    assert not (folder / "runs").exists()


def test_faults_of_a_config_may_be_json(folder: Path) -> None:
    (folder / "linear.yaml").write_text(LINEAR.replace("10 * x1", "10 * x7"))
    done = steprun("linear.yaml", "--format", "json", cwd=folder)
    told = json.loads(done.err)
    assert (told["error"], told["exit_code"], done.code) == ("ConfigError", 2, 2)
    assert (told["problems"][0]["source"], told["problems"][0]["line"]) == ("linear.yaml", 3)


def test_a_fault_in_an_override_names_the_override(folder: Path) -> None:
    done = steprun("linear.yaml", "nonsense=1", cwd=folder)
    assert done.code == 2
    assert done.err.startswith("override nonsense=1:1:1")


def test_debug_shows_where_a_fault_was_found(folder: Path) -> None:
    done = steprun("absent.yaml", cwd=folder, environment={"STEPRUN_DEBUG": "1"})
    assert done.code == 2
    assert done.err.startswith("Traceback (most recent call last):")
    assert done.err.endswith("steprun\n      there is no file absent.yaml\n")


def test_a_misspelt_command_is_told_as_one(folder: Path) -> None:
    done = steprun("shwo", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert (
        done.err == "steprun\n      there is no command and no file `shwo`\n      = did you mean the command `show`?\n"
    )


def test_a_misspelt_command_is_told_to_programs_too(folder: Path) -> None:
    done = steprun("shwo", "linear.yaml", "--format", "json", cwd=folder)
    (problem,) = json.loads(done.err)["problems"]
    assert done.code == 2
    assert problem["hint"] == "did you mean the command `show`?"


def test_a_limit_is_raised_by_its_flag(folder: Path) -> None:
    refused = steprun("linear.yaml", "--max-nodes", "2", "--no-record", cwd=folder)
    assert refused.code == 2
    assert "raise it with --max-nodes" in refused.err
    assert steprun("linear.yaml", "--max-nodes", "1_000", "--no-record", cwd=folder).code == 0


@over(
    ("text", "bytes_of_it"),
    [
        ("1000GB", 10**12),
        ("8MiB", 8 << 20),
        ("8 MB", 8 * 10**6),
        ("1.5GiB", 3 << 29),
        ("1_000", 1000),
        ("2TB", 2 * 10**12),
        ("3kB", 3000),
    ],
)
def test_a_size_is_written_in_any_unit(text: str, bytes_of_it: int, folder: Path) -> None:
    assert amount("memory", text) == bytes_of_it
    assert steprun("linear.yaml", "--max-memory", "1000GB", "--no-record", cwd=folder).code == 0


@over("text", ["lots", "1__0", "1.5", "", "-1", "9" * 5000])
def test_a_limit_that_is_no_number_is_told(text: str, folder: Path) -> None:
    done = steprun("linear.yaml", "--max-memory", text, cwd=folder)
    assert done.code == 2
    assert f"--max-memory is `{text}`: it takes a count such as 10000, or a size such as 8MiB" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["linear.yaml"],
        ["absent.yaml"],
        pytest.param(["linear.yaml", "learning_rate=oops"], marks=pytest.mark.slow),
    ],
)
def test_a_process_of_its_own_does_the_same(folder: Path, arguments: list[str]) -> None:
    assert steprun_process(*arguments, "--no-record", cwd=folder) == steprun(*arguments, "--no-record", cwd=folder)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are Unix's")
def test_an_interrupted_run_exits_130_keeps_its_rows_and_can_be_resumed(folder: Path) -> None:
    process = endless(folder)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    directory = directories(folder)[0]
    assert process.returncode == 130
    shown = directory.relative_to(folder)
    assert told == (
        "stopping after this step; once more stops at once\n"
        f"steprun\n      interrupted; `steprun resume {shown}` goes on\n"
    )
    assert list((directory / "checkpoints").glob("*.json"))
    assert runner.open_run(directory).manifest["status"] == "interrupted"


@pytest.mark.skipif(os.name == "nt", reason="signals are Unix's")
@pytest.mark.slow
def test_a_resumption_that_is_refused_says_nothing_of_rows(folder: Path) -> None:
    process = endless(folder)
    process.send_signal(signal.SIGINT)
    process.communicate()
    directory = directories(folder)[0]
    for checkpoint in (directory / "checkpoints").glob("*.json"):
        checkpoint.write_text(checkpoint.read_text()[:-9])
    done = steprun("resume", directory, cwd=folder)
    assert (done.code, done.out) == (1, "")
    assert "is truncated or damaged" in done.err
    assert "= remove checkpoints/" in done.err


def test_a_name_on_the_command_line_is_the_name_of_the_run(folder: Path) -> None:
    assert steprun("run", "linear.yaml", "--quiet", "--name", "base-2", cwd=folder).code == 0
    (directory,) = directories(folder)
    assert directory.parent == folder / "runs" / "base-2"
    run = runner.open_run(folder / "runs" / "base-2" / "latest")
    assert (run.path, run.config.name) == (directory, "base-2")
    assert steprun("diff", "runs/base-2", "runs/base-2/latest", cwd=folder).code == 0


EXPECTED = "expected a name of letters, digits, `-` and `_`, found"
NAMES = [
    ("a b", f"{EXPECTED} the text `a b`\n      = write one such as `my-run`"),
    ("", f"{EXPECTED} empty text\n      = write one such as `my-run`"),
    ("../x", f"{EXPECTED} the text `../x`\n      = write one such as `my-run`"),
    ("a" * 101, "a name of 101 characters, and at most 100 are allowed\n      = write a shorter one"),
]


@pytest.mark.parametrize(("name", "message"), NAMES)
def test_a_bad_name_is_told(name: str, message: str, folder: Path) -> None:
    done = steprun("run", "linear.yaml", "--name", name, cwd=folder)
    assert done.code == 2
    assert done.err.startswith(f"steprun\n      --name: {message}")
    assert directories(folder) == []


def test_a_finished_run_goes_on_with_a_larger_count(folder: Path) -> None:
    (folder / "loop.yaml").write_text(LINEAR.replace("[backward, step]", "3"))
    steprun("loop.yaml", "--quiet", cwd=folder)
    done = steprun("resume", "runs/loop/latest", "steps=5", cwd=folder)
    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if line.startswith("row ")]
    assert rows == ["row 4  repeat[4].train", "row 5  repeat[5].train"]
    earlier, longer = sorted(directories(folder), key=lambda each: len(runner.open_run(each)))
    assert done.out.splitlines()[-1] == f"recorded in {longer.relative_to(folder)}"
    assert (len(runner.open_run(earlier)), len(runner.open_run(longer))) == (4, 6)
    refused = steprun("resume", str(longer), "steps=2", cwd=folder)
    assert refused.code == 2
    assert refused.err == (
        f"steprun\n      `steps` gives the last loop 2 iterations, and {longer} has 5\n      = write a larger count\n"
    )
    assert len(directories(folder)) == 2


def test_a_finished_run_without_a_larger_count_says_what_to_do(folder: Path) -> None:
    steprun("linear.yaml", "--quiet", cwd=folder)
    (directory,) = directories(folder)
    done = steprun("resume", "runs/linear", cwd=folder)
    shown = directory.relative_to(folder)
    assert done.err == f"steprun\n      {shown} is finished\n      = run its config again for a new run\n"
    for words in (("--retry", "failed"), ("--jobs", "2"), ("--on", "ray"), ("--address", "auto"), ("--yes",)):
        done = steprun("resume", "runs/linear", *words, cwd=folder)
        message = f"{words[0]} is for a sweep, and runs/linear is a run"
        assert done.err == f"steprun\n      {message}\n      = leave {words[0]} out\n"


LONG = """\
parameters: {w: {shape: [2], init: 1}}
expression: loss = (w ** 2).sum()
optimizer: {sgd: {lr: 0.01}}
steps: 60
"""


def test_rows_and_columns_choose_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG)

    def printed(*arguments: str) -> list[str]:
        done = steprun("long.yaml", *arguments, cwd=tmp_path, environment={"COLUMNS": "70"})
        assert (done.code, done.err) == (0, "")
        return done.out.splitlines()

    lines = printed()
    assert lines[0].split() == ["row", "path", "loss", "|grad|"]
    assert lines[1].split() == ["1", "repeat[1].train", "2", "2.8284"]
    assert [line.split()[0] for line in lines[1:22]] == [*map(str, range(1, 60, 3)), "60"]
    assert lines[22] == "row 60  repeat[60].train"
    assert max(map(len, lines)) <= 70
    assert "\x1b" not in "".join(lines)
    assert sum(line.startswith("row ") for line in printed("--rows", "full")) == 61
    assert printed("--rows", "full", "--columns", "loss", "--no-record")[:3] == [
        "row 0  start",
        "row 1  repeat[1].train",
        "* loss  tensor(2.)",
    ]
    (line,) = printed("--rows", "none")
    assert line.startswith("recorded in ")


@over(
    ("arguments", "message"),
    [
        (["--rows", "some"], "--rows is `some`\n      = write `full`, `lines` or `none`\n"),
        (["--columns", "los"], "`los` matches no column\n      = did you mean `loss`?\n"),
        (["--columns", " , "], "--columns names no column\n      = write for example `--columns loss`\n"),
        (["--columns", "loss", "-q"], "--columns has no effect with --quiet\n      = leave --columns out\n"),
        (["--rows", "lines", "--json"], "--rows has no effect with --json\n      = leave --rows out\n"),
        (["--rows", "none", "--columns", "loss"], "--columns has no effect with --rows none\n      = leave"),
    ],
)
def test_what_cannot_be_asked_of_rows(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "long.yaml").write_text(LONG)
    done = steprun("long.yaml", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"steprun\n      {message}")
    assert not (tmp_path / "runs").exists()


def test_a_resumed_run_prints_lines_of_the_rows_that_it_computes(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG)
    steprun("long.yaml", "-q", cwd=tmp_path)
    done = steprun("resume", "runs/long/latest", "steps=100", "--columns", "loss", cwd=tmp_path)
    assert done.err == ""
    numbers = [line.split()[0] for line in done.out.splitlines()[1:-3]]
    assert (numbers[0], numbers[-1]) == ("61", "100")
    assert len(numbers) == 21


def test_a_run_that_fails_prints_its_last_row_before_the_fault(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG.replace("lr: 0.01", "lr: 1e30"))
    done = steprun("long.yaml", cwd=tmp_path)
    assert done.code == 1
    assert [line for line in done.out.splitlines() if line.startswith("row ")][-1] == "row 2  repeat[2].train"
