"""The README's commands are what is run, and its figures are what is measured."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import steprun
from tests.tables import over

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    done = subprocess.run([ROOT / ".ci" / "run", "--show"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_continuous_integration_takes_both_commands_from_the_readme() -> None:
    shown = commands()
    assert len(shown) == 2
    blocks = fenced("sh")
    assert all(f"{command}\n" in blocks for command in shown)


@over("part", ["pip install", "constraints.txt", "[dev]", "pytest", "ruff check", "mypy --strict"])
def test_the_first_command_tests_everything(part: str) -> None:
    assert part in commands()[0]


@pytest.mark.parametrize("part", ["python3 -m venv", "pip install", "constraints.txt", "steprun configs/linear.yaml"])
def test_the_second_command_installs_and_runs_the_example(part: str) -> None:
    assert part in commands()[1]


def test_the_first_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    config, shown = fenced("yaml")[0], fenced("console")[0]
    name = config.partition("\n")[0].removeprefix("# ")
    (tmp_path / name).write_text(config, encoding="utf-8")
    command, _, shown = shown.partition("\n")
    assert command == f"$ steprun {name}"
    *rows, recorded = steprun(name, cwd=tmp_path).out.splitlines()
    *rows_shown, recorded_shown = shown.splitlines()
    assert rows == rows_shown
    directory = rf"recorded in runs/{name.removesuffix('.yaml')}/\d{{8}}-\d{{6}}-[0-9a-f]{{4}}"
    assert re.fullmatch(directory, recorded)
    assert re.fullmatch(directory, recorded_shown)


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    (code,) = fenced("python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["run"].tensor("x1.grad", missing=0.0).shape == (4, 1)


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
