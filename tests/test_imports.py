"""The shape of the package: imports point one way, folders and modules stay small, a start imports nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import runner
import runner.record
from tests.tables import over

ROOT = Path(runner.__file__).parent

LAYERS = {
    "text": -1,
    "errors": 0,
    "catalogue": 1,
    "config": 2,
    "language": 2,
    "faults": 2.5,
    "optim": 3,
    "plan": 4,
    "engine": 5,
    "record": 6,
    "compare": 7,
    "sweep": 8,
    "report": 8.5,
    "cli": 9,
}
"""How high each part of the package stands: a part may import what stands lower, and itself."""

HEAVY = ("torch", "pyarrow", "numpy", "pandas")


MOST_ENTRIES = 14
"""How many modules and sub-packages a folder may have, so that a person holds them in mind."""

STARTS = ("__init__", "__main__", "pytest_plugin")
"""Modules that Python or pytest imports by name, and that no other module imports."""

MOST_LINES = 450

LONG: dict[str, int] = {}
"""Modules that are longer than that, and how long: a list that only shrinks, and wants to be empty."""

PACKAGES_OF_RUNNER = sorted(path.parent for path in ROOT.rglob("__init__.py"))


def modules() -> list[Path]:
    """Every module of a part; those of the root that belong to no part import what they like."""
    return sorted(
        path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in ("errors", "faults", "text")
    )


@cache
def imported(path: Path) -> tuple[tuple[str, int], ...]:
    """The modules that a file imports and in which line, inside functions and for type checkers too."""
    package = ["runner", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found += [(name, node.lineno)] + [(f"{name}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    wrong = []
    for path in modules():
        own = part_of(path)
        for name, line in imported(path):
            parts = name.split(".")
            if parts[0] != "runner" or len(parts) < 2 or parts[1] == own or parts[1] not in LAYERS:
                continue
            if LAYERS[parts[1]] >= LAYERS[own]:
                wrong.append(f"{path.relative_to(ROOT.parent)}:{line} imports runner.{parts[1]}")
    assert wrong == []


def test_every_part_has_its_layer() -> None:
    assert {part_of(path) for path in modules()} == set(LAYERS)


def rooms(folder: Path) -> dict[str, list[Path]]:
    """The modules and sub-packages of a folder, each with its files; not those that a program outside starts with."""
    found = {path.stem: [path] for path in folder.glob("*.py") if path.stem not in STARTS}
    return found | {
        each.name: sorted(each.rglob("*.py")) for each in folder.iterdir() if (each / "__init__.py").exists()
    }


def arrows(folder: Path) -> dict[str, dict[str, str]]:
    """Which rooms of a folder each of them imports, and where."""
    prefix = ["runner", *folder.relative_to(ROOT).parts]
    inside = rooms(folder)
    found: dict[str, dict[str, str]] = {room: {} for room in inside}
    for room, files in inside.items():
        for path in files:
            for name, line in imported(path):
                parts = name.split(".")
                target = parts[len(prefix)] if parts[: len(prefix)] == prefix and len(parts) > len(prefix) else room
                if target != room and target in inside:
                    found[room].setdefault(target, f"{path.relative_to(ROOT.parent)}:{line} imports {target}")
    return found


def circle(edges: dict[str, dict[str, str]]) -> list[str]:
    """The rooms of one circle of imports in the order that they import one another, none where there is no circle."""
    left = {room: set(targets) for room, targets in edges.items()}
    while free := {room for room, targets in left.items() if not targets}:
        left = {room: targets - free for room, targets in left.items() if room not in free}
    if not left:
        return []
    way = [min(left)]  # each room that is left imports one that is left, so that a walk comes back
    while (following := min(left[way[-1]])) not in way:
        way.append(following)
    return way[way.index(following) :]


def test_a_circle_is_found_where_there_is_one() -> None:
    place = dict.fromkeys
    assert circle({"a": place("b", ""), "b": place("c", ""), "c": {}}) == []
    assert circle({"a": place("b", ""), "b": place("cd", ""), "c": place("b", ""), "d": {}}) == ["b", "c"]


def test_no_rooms_of_a_folder_import_one_another_in_a_circle() -> None:
    assert sum(len(targets) for folder in PACKAGES_OF_RUNNER for targets in arrows(folder).values()) > 100
    circles = []
    for folder in PACKAGES_OF_RUNNER:
        edges = arrows(folder)
        found = circle(edges)
        for room, following in zip(found, [*found[1:], *found[:1]], strict=True):
            circles.append(f"{folder.relative_to(ROOT.parent)}: {edges[room][following]}")
    assert circles == []


def test_a_folder_has_few_entries() -> None:
    counts = {str(folder.relative_to(ROOT.parent)): len(rooms(folder)) for folder in PACKAGES_OF_RUNNER}
    assert {folder: count for folder, count in counts.items() if count > MOST_ENTRIES} == {}


def test_every_folder_with_modules_is_a_package() -> None:
    assert sorted({path.parent for path in ROOT.rglob("*.py")}) == PACKAGES_OF_RUNNER


def test_a_module_is_short() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > LONG.get(name, MOST_LINES)} == {}
    done = [name for name in LONG if lines.get(name, 0) <= MOST_LINES]
    assert done == [], "these are short now: take them off the list"


def test_a_package_says_what_it_is_what_comes_in_and_what_goes_out() -> None:
    wrong = []
    for folder in PACKAGES_OF_RUNNER:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        lines = [line for line in text.splitlines() if line.strip() and line[0] != " "]  # an example is indented
        says = lines and lines[0].endswith(".") and any("In: " in line for line in lines) and "Out: " in text
        if not says or len(lines) > 4:
            wrong.append(str(folder.relative_to(ROOT.parent)))
    assert wrong == []


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`."""
    report = "import sys; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@over(
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

NEVER = ("pandas", "polars", "pyarrow.compute", "pyarrow.dataset", "sympy", "torch._dynamo")
"""What these import where somebody asks: hundreds of modules, and seconds."""

LINEAR = str(ROOT.parent / "configs" / "linear.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "packages"),
    [
        (["--help"], {"typer"}),
        (["schema"], {"pydantic", "typer", "yaml"}),
        (["ops", "--help"], {"pydantic", "typer"}),  # typer checks arguments with pydantic
        ([LINEAR, "--no-record"], {"numpy", "pydantic", "torch", "typer", "yaml"}),  # torch itself imports numpy
        ([LINEAR], {"numpy", "pyarrow", "pydantic", "torch", "typer", "yaml"}),
    ],
    ids=["help", "schema", "ops", "run", "recorded-run"],
)
def test_a_command_imports_what_it_needs_and_nothing_heavy_besides(
    arguments: list[str], packages: set[str], tmp_path: Path
) -> None:
    report = (
        "import json, sys; from runner.cli.main import main; code = main(sys.argv[1:]); "
        "print(json.dumps([code, *sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", report, *arguments], capture_output=True, text=True, cwd=tmp_path)
    code, *loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert {name for name in loaded if name in (*PACKAGES, *NEVER)} == packages


def test_every_public_name_is_found_in_its_module() -> None:
    for package in (runner, runner.record):
        assert sorted(package.__all__) == package.__all__
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert set(package.__all__) <= set(dir(package))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'runner' has no attribute 'lod'"):
        runner.lod  # noqa: B018
