"""Imports point one way, and what must start quickly imports nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import runner

ROOT = Path(runner.__file__).parent

LAYERS = {
    "plain_text": -1,
    "errors": 0,
    "safe_files": 0,
    "catalogue": 1,
    "config": 2,
    "language": 2,
    "optim": 3,
    "plan": 4,
    "engine": 5,
    "record": 6,
    "compare": 7,
    "cli": 8,
}
"""How high each part of the package stands: a part may import what stands lower, and itself."""

HEAVY = ("torch", "pyarrow", "numpy", "pandas")


def modules() -> list[Path]:
    return sorted(
        path
        for path in ROOT.rglob("*.py")
        if path.parent != ROOT or path.stem in ("errors", "plain_text", "safe_files")
    )


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of the package that a file imports, inside functions and for type checkers too."""
    package = ["runner", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name, node.lineno
            for alias in node.names:
                yield f"{name}.{alias.name}", node.lineno


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = part_of(path)
    wrong = []
    for name, line in imported(path):
        parts = name.split(".")
        if parts[0] != "runner" or len(parts) < 2 or parts[1] == own or parts[1] not in LAYERS:
            continue
        if LAYERS[parts[1]] >= LAYERS[own]:
            wrong.append(f"{path.relative_to(ROOT.parent)}:{line} imports runner.{parts[1]}")
    assert wrong == []


def test_every_part_has_its_layer() -> None:
    assert {part_of(path) for path in modules()} <= set(LAYERS)


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`."""
    report = "import sys; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import runner",
        "import runner.errors",
        "import runner.catalogue; runner.catalogue.operations(); runner.catalogue.optimizers()",
        "import runner.config; runner.config.loads('parameters: {x: 1}\\nexpression: x * x')",
        "import runner.config; runner.config.json_schema()",
        "import runner.language.text.parse, runner.language.text.scalars",
        "import runner.cli.app",
    ],
)
def test_it_imports_no_torch(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY)


def test_the_package_itself_imports_only_the_standard_library() -> None:
    assert loaded_after("import runner").isdisjoint({*HEAVY, "pydantic", "yaml", "typer"})


PACKAGES = ("numpy", "pyarrow", "pydantic", "rich", "safetensors", "torch", "typer", "yaml")
"""What `pyproject.toml` says that steprun needs."""

LINEAR = str(ROOT.parent / "configs" / "linear.yaml")


@pytest.mark.parametrize(
    ("arguments", "packages", "modules"),
    [
        (["--help"], {"typer"}, 28),
        (["schema"], {"pydantic", "typer", "yaml"}, 59),
        (["ops", "--help"], {"pydantic", "typer"}, 28),  # typer checks arguments with pydantic
        ([LINEAR, "--no-record"], {"numpy", "pydantic", "torch", "typer", "yaml"}, 172),
        ([LINEAR], {"numpy", "pyarrow", "pydantic", "torch", "typer", "yaml"}, 178),
    ],
    ids=["help", "schema", "ops", "run", "recorded-run"],
)
def test_a_command_imports_what_it_needs(
    arguments: list[str], packages: set[str], modules: int, tmp_path: Path
) -> None:
    report = (
        "import json, sys; from runner.cli.main import main; code = main(sys.argv[1:]); "
        "print(json.dumps([code, *sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", report, *arguments], capture_output=True, text=True, cwd=tmp_path)
    code, *loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert {name for name in loaded if name in PACKAGES} == packages
    assert sum(name.partition(".")[0] == "runner" for name in loaded) <= modules  # a new one there has a reason
    assert "torch._dynamo" not in loaded


def test_every_public_name_is_there() -> None:
    assert sorted(runner.__all__) == runner.__all__
    for name in runner.__all__:
        assert getattr(runner, name) is not None
    assert set(runner.__all__) <= set(dir(runner))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'runner' has no attribute 'lod'"):
        runner.lod  # noqa: B018
