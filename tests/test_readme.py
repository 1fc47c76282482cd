"""The README's commands are what is run, and its figures are what is measured."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

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


def test_the_example_is_the_config_that_is_run() -> None:
    assert (ROOT / "configs" / "linear.yaml").read_text(encoding="utf-8") in fenced("yaml")


def test_the_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    command, _, shown = fenced("console")[0].partition("\n")
    assert command == "$ steprun configs/linear.yaml"
    printed = steprun("configs/linear.yaml", "--runs-dir", tmp_path, cwd=ROOT).out
    *rows, recorded = printed.splitlines()
    *rows_shown, recorded_shown = shown.splitlines()
    assert rows == rows_shown
    directory = r"linear/\d{8}-\d{6}-[0-9a-f]{4}"
    assert re.fullmatch(rf"recorded in {re.escape(str(tmp_path))}/{directory}", recorded)
    assert re.fullmatch(rf"recorded in runs/{directory}", recorded_shown)


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
