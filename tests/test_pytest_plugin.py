"""`pytest --steprun`: snapshots as tests, and nothing at all without the option."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.compare.snapshotting import LINEAR, edit, taken

PLUGIN = ("-p", "no:steprun", "-p", "runner.cli.pytest_plugin")
"""The plugin by its module, whether it is installed as an entry point or not."""

ROOT = Path(__file__).parents[1]
pytest_plugins = ["pytester"]


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGIN, *arguments)


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    taken(pytester.path, LINEAR, "a")
    taken(pytester.path, LINEAR, "b")
    (pytester.path / "snapshots" / "notes.yaml").write_text("not: ours\n")
    (pytester.path / "test_own.py").write_text("def test_own(): pass\n")
    return pytester.path


def test_each_snapshot_is_a_test(pytester: pytest.Pytester, folder: Path) -> None:
    result = run(pytester, "--steprun", "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["snapshots/a.yaml::a PASSED*", "snapshots/b.yaml::b PASSED*", "test_own.py::test_own*"]
    )


def test_the_failure_is_the_verdict(pytester: pytest.Pytester, folder: Path) -> None:
    edit(folder / "snapshots" / "b.yaml", "    x2: 199.7\n", "    x2: 199.8\n")
    result = run(pytester, "--steprun")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ steprun: b _*",
            "*b.yaml: differs",
            "row 2, 2.step: `x2` differs",
            "  expected  199.8 at [[]0[]]",
            "*cause     gradients bit-equal, update of `x2` differs: look at the optimizer",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "pytest_plugin.py" not in result.stdout.str()


def test_a_config_that_is_named_is_the_test_of_its_snapshot(pytester: pytest.Pytester, folder: Path) -> None:
    edit(folder / "snapshots" / "b.yaml", "    x2: 199.7\n", "    x2: 199.8\n")
    run(pytester, "--steprun", "a.yaml").assert_outcomes(passed=1)
    result = run(pytester, "--steprun", "b.yaml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*b.yaml: differs", "row 2, 2.step: `x2` differs"])
    (folder / "c.yaml").write_text(LINEAR)
    result = run(pytester, "--steprun", "c.yaml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*c.yaml: missing", "*c.yaml has no snapshot"])
    (folder / "c.yaml").write_text(LINEAR.replace("x1 +", "x3 +"))
    result = run(pytester, "--steprun", "c.yaml")
    result.stdout.fnmatch_lines(["*c.yaml has no snapshot"])
    (folder / "c.yaml").write_text("name: [c]\n" + LINEAR)
    result = run(pytester, "--steprun", "c.yaml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*c.yaml:1:7  name"])
    assert "Traceback" not in result.stdout.str()


def test_update_writes_what_differs(pytester: pytest.Pytester, folder: Path) -> None:
    path = folder / "snapshots" / "b.yaml"
    before = path.read_text()
    edit(path, "    x2: 199.7\n", "    x2: 199.8\n")
    run(pytester, "--steprun-update", ".").assert_outcomes(passed=3)
    assert path.read_text() == before


def test_a_damaged_snapshot_fails_with_its_place(pytester: pytest.Pytester, folder: Path) -> None:
    edit(folder / "snapshots" / "a.yaml", "    x2: 199.7\n", "    x2: much\n")
    result = run(pytester, "--steprun", "snapshots")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*`x2`: `much` is not of dtype float32"])


def test_without_the_option_there_are_no_such_tests(pytester: pytest.Pytester, folder: Path) -> None:
    run(pytester).assert_outcomes(passed=1)


@pytest.mark.slow
def test_without_the_option_nothing_of_steprun_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_modules.py").write_text(
        "import sys\n"
        "def test_modules():\n"
        "    names = sorted(name for name in sys.modules if name.partition('.')[0] in "
        "('runner', 'torch', 'yaml', 'numpy', 'pydantic', 'pyarrow'))\n"
        "    assert names == ['runner', 'runner.cli', 'runner.cli.pytest_plugin']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGIN, "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_plugin_is_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"steprun": "runner.cli.pytest_plugin"}
