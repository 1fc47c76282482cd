"""What the project says of itself in several places is the same everywhere."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
PYTHON = "Programming Language :: Python :: 3."


def versions() -> list[str]:
    """The versions of Python that the classifiers name, oldest first."""
    return [f"3.{each.removeprefix(PYTHON)}" for each in PROJECT["project"]["classifiers"] if each.startswith(PYTHON)]


def test_the_workflow_tests_the_versions_of_python_that_the_project_names() -> None:
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == versions()


def test_the_oldest_version_of_python_is_the_one_required() -> None:
    oldest = versions()[0]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_the_workflow_runs_the_commands_of_the_readme() -> None:
    assert [step["run"] for step in WORKFLOW["jobs"]["test"]["steps"] if "run" in step][-1] == ".ci/run"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob(".github/**/*.yml")) + sorted(ROOT.glob(".pre-commit-*.yaml")), ids=lambda path: path.name
)
def test_every_file_of_the_services_is_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))
