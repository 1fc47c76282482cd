"""`pytest --steprun` collects each snapshot below the tested paths as a test. Otherwise this imports only pytest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.compare.snapshots.checking import Outcome

FOLDER = "snapshots"
SUFFIX = ".yaml"
_SIGNATURE = b"# the numbers of "


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("steprun", "snapshots of training computations")
    group.addoption("--steprun", action="store_true", help="compare configs with their snapshots, one test for each")
    group.addoption(
        "--steprun-update",
        action="store_true",
        help="rewrite snapshots that differ; implies --steprun",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not _is_asked_for(parent.config) or file_path.suffix != SUFFIX:
        return None
    named = parent.session.isinitpath(file_path) and (file_path.parent / FOLDER).is_dir()
    if not (named or _is_snapshot(file_path)):
        return None  # neither a snapshot nor a config that the command line names
    collector: pytest.Collector = SnapshotFile.from_parent(parent, path=file_path)
    return collector


def _is_asked_for(config: pytest.Config) -> bool:
    return bool(config.getoption("steprun") or config.getoption("steprun_update"))


def _is_snapshot(path: Path) -> bool:
    if path.parent.name != FOLDER:
        return False
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


class SnapshotFile(pytest.File):
    """A snapshot file, or the config that a snapshot belongs to."""

    def collect(self) -> Iterator[pytest.Item]:
        yield SnapshotItem.from_parent(self, name=self.path.stem)


class SnapshotDiffers(Exception):
    """A run differs from its snapshot."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__("\n".join(outcome.lines))
        self.outcome = outcome


class SnapshotItem(pytest.Item):
    """Runs a config and compares it with its snapshot."""

    def runtest(self) -> None:
        from runner.compare.snapshots.checking import FINE, Request, Target, check
        from runner.compare.snapshots.targets import target_of

        request = Request("differing") if self.config.getoption("steprun_update") else Request()
        target = Target(None, str(self.path)) if _is_snapshot(self.path) else target_of(str(self.path))
        outcome = check(target, request)
        if outcome.status not in FINE:
            raise SnapshotDiffers(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from runner.errors import SteprunError

        if isinstance(excinfo.value, SteprunError):
            return str(excinfo.value)
        if isinstance(excinfo.value, SnapshotDiffers):
            outcome = excinfo.value.outcome
            return "\n".join([f"{outcome.name}: {outcome.status}", *outcome.lines])
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"steprun: {self.name}"
