"""The page's own scripts: small, without what could run text, and right where node can tell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import runner.report
from runner.report.page import SCRIPTS

ROOT = Path(__file__).parents[2]
ASSETS = Path(runner.report.__file__).parent / "assets"
FILES = {path.relative_to(ASSETS).as_posix() for path in ASSETS.rglob("*.*")}
MOST_BYTES = 96 << 10

REFUSED = (
    *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "createContextualFragment", "DOMParser"),
    *("eval(", "Function(", "setTimeout", "setInterval", "import(", "fetch(", "XMLHttpRequest", "WebSocket"),
    *("localStorage", "sessionStorage", "cookie", "postMessage", "sendBeacon", "location.href", "window.open"),
)
"""What would run text, ask for something, or keep something."""


def test_the_scripts_are_those_of_the_folder_and_small() -> None:
    assert {*(f"{name}.js" for name in SCRIPTS), "report.css"} == FILES
    assert sum((ASSETS / name).stat().st_size for name in FILES) <= MOST_BYTES


def test_no_script_runs_text_or_asks_for_something() -> None:
    found = [
        f"{path.name}:{number}: {word}"
        for path in sorted(ASSETS.rglob("*.js"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in REFUSED
        if word in line
    ]
    assert found == []
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|expression\(", style)


def test_every_script_says_what_it_is_for_and_fits_its_lines() -> None:
    for path in ASSETS.rglob("*.js"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("// ")
        assert lines[0].endswith(".")
        assert [line for line in lines if len(line) > 140 or line != line.rstrip() or "\t" in line] == []
        assert len(lines) <= 200


def test_no_two_scripts_define_one_name() -> None:
    texts = (path.read_text(encoding="utf-8") for path in ASSETS.rglob("*.js"))
    names = [name for text in texts for name in re.findall(r"^(?:function|const|let) (\w+)", text, re.MULTILINE)]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_every_name_of_the_scripts_is_used() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ASSETS.rglob("*.js")]
    names = [name for text in texts for name in re.findall(r"^(?:function|const|let) (\w+)", text, re.MULTILINE)]
    words = Counter(re.findall(r"\w+", "\n".join(texts)))
    assert [name for name in names if words[name] < 2] == []


@pytest.mark.slow
def test_eslint_finds_nothing() -> None:
    eslint = os.environ.get("STEPRUN_ESLINT") or shutil.which("eslint")
    if eslint is None:
        pytest.skip("eslint is not installed")
    done = subprocess.run(
        [eslint, "runner/report/assets", "tests/report", "eslint.config.mjs"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", ".pre-commit-config.yaml", "CONTRIBUTING.md"])
def test_one_release_of_eslint_is_named(path: str) -> None:
    assert set(re.findall(r"eslint@([\d.]+)", (ROOT / path).read_text(encoding="utf-8"))) == {"10.15.0"}


def test_the_scripts_compute_what_they_should() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run(
        [node, str(Path(__file__).parent / "scripts.mjs"), str(ASSETS)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
