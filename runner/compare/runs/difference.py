"""Compares two recorded runs: their configs, their environments and their rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.compare.numbers.tolerances import BITWISE, BY_DTYPE, Tolerances
from runner.compare.rows.causes import BATCH, RANDOM
from runner.compare.rows.results import Verdict
from runner.compare.rows.together import compare_together
from runner.compare.rows.verdict import Observe, align, compare
from runner.config.text.nodes import ListNode, MapNode, Node, ScalarNode, dotted, plain
from runner.errors import Mark, Problem, UsageError, listing
from runner.record import Run
from runner.text import Shown, Table

ABSENT = object()
"""The value of a key that one of the two does not have."""

ENVIRONMENT = (
    "versions.steprun", "versions.torch", "versions.python", "versions.jax", "versions.jaxlib", "engine",
    "environment.device", "environment.device_name", "environment.cpu_capability", "environment.threads",
    "git.commit", "git.dirty", "process.host",
)  # fmt: skip
"""The fields of two manifests that are compared."""


WITHOUT_NUMBERS = frozenset({"name", "description", "log", "snapshot", "sweep", "health", "on_nonfinite"})
"""The keys of a config that change no number of a row."""

MOST_CHANGED = 6
"""The most keys that one cause names."""


@dataclass(frozen=True, slots=True)
class Written:
    """A value, and its place in a config."""

    value: Any  # `ABSENT` if the config does not have it
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """One key of two configs, or of two environments."""

    key: str
    expected: Written
    found: Written


@dataclass(frozen=True, slots=True)
class RunDifference(Shown):
    """The differences of two runs."""

    config: tuple[KeyDifference, ...]
    environment: tuple[KeyDifference, ...]
    tolerance: str  # "bitwise", "dtype", or the user's own
    cut: int | None  # rows compared if a run is not finished; None: all
    verdict: Verdict
    draws: tuple[str, ...]  # which of `BATCH` and `RANDOM` may differ
    every: int  # iterations from one row to the next

    @property
    def changed(self) -> tuple[str, ...]:
        """The changes of the config that can explain a difference, as a cause; empty if nothing differs."""
        keys = [f"`{each.key}`" for each in self.config if each.key.partition(".")[0] not in WITHOUT_NUMBERS]
        if not keys or self.verdict.first_difference is None:
            return ()
        can = ", which can explain this" if len(keys) == 1 else ": try one change at a time"
        return (f"the configs differ in {listing(keys, MOST_CHANGED)}{can}",)

    def _tables(self) -> Iterator[Table]:
        yield from self.verdict._tables()
        for title, differences in (("config", self.config), ("environment", self.environment)):
            if differences:
                rows = [(each.key, _shown(each.expected), _shown(each.found)) for each in differences]
                yield Table(rows, (title, "expected", "found"))


def _shown(written: Written) -> str:
    return "absent" if written.value is ABSENT else str(written.value)


def compare_runs(
    found: Run, expected: Run, tolerances: Tolerances | None = None, name: str = "", observe: Observe | None = None
) -> RunDifference:
    """Compare two runs. For unfinished runs, only the rows that both have so far are compared.

    Args:
        tolerances: named `name` in the result; by default, bitwise if the environments are the same, else by dtype.
        observe: sees each pair of rows after it was compared.
    Raises:
        UsageError: a run has no rows, or its config cannot be read.
    """
    for run in (expected, found):
        if not len(run):
            hint = "wait for its first row" if run.status == "running" else "take another run"
            raise UsageError(Problem(f"{run.path} is {run.status} and has no rows", hint))
    if tolerances is None:
        same = _fingerprint(found) == _fingerprint(expected)
        tolerances, name = Tolerances(BITWISE if same else BY_DTYPE), "bitwise" if same else "dtype"
    unfinished = [len(run) for run in (expected, found) if run.status != "finished"]
    cut = min(unfinished) if unfinished and min(unfinished) < max(len(expected), len(found)) else None
    keys = tuple(config_differences(found, expected))
    configs, every = [found.config, expected.config], expected.config.log.every
    may_differ = ((BATCH, any(config.data for config in configs)), (RANDOM, configs[0].seed != configs[1].seed))
    return RunDifference(
        keys,
        tuple(environment_differences(found, expected)),
        name,
        cut,
        _rows_of(found, expected, tolerances, cut, observe),
        tuple(name for name, differs in may_differ if differs),
        every if isinstance(every, int) else 1,
    )


def _rows_of(found: Run, expected: Run, tolerances: Tolerances, cut: int | None, observe: Observe | None) -> Verdict:
    """The verdict on the rows of both runs, read together, or one by one if each is observed."""
    if observe is None:
        return compare_together(found, expected, tolerances, cut)
    pairs = align(itertools.islice(found.rows(), cut), itertools.islice(expected.rows(), cut))
    return compare(pairs, found.columns, expected.columns, tolerances, observe=observe)


def _fingerprint(run: Run) -> tuple[Any, Any]:
    return run.manifest.get("environment"), run.manifest.get("engine")


# --- configs


def config_differences(found: Run, expected: Run) -> Iterator[KeyDifference]:
    """The keys of the resolved configs that differ, each with its place."""
    yield from _differences((), expected.config.document.root, found.config.document.root)


def _differences(path: tuple[str | int, ...], expected: Node, found: Node) -> Iterator[KeyDifference]:
    if isinstance(expected, MapNode) and isinstance(found, MapNode):
        sides = [{key: entry.value for key, entry in node.entries.items()} for node in (expected, found)]
    elif isinstance(expected, ListNode) and isinstance(found, ListNode) and _of_mappings(expected, found):
        sides = [{str(index): item for index, item in enumerate(node.items)} for node in (expected, found)]
    else:
        if _value(expected) != _value(found):
            yield KeyDifference(dotted(path), _written(expected), _written(found))
        return
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = sides[0].get(key), sides[1].get(key)
        if one is not None and other is not None:
            yield from _differences((*path, key), one, other)
        else:
            yield KeyDifference(dotted((*path, key)), _written(one), _written(other))


def _of_mappings(*lists: ListNode) -> bool:
    """Whether lists contain more than plain values, as `steps` does; a list of numbers is one value."""
    return all(any(not isinstance(item, ScalarNode) for item in node.items) for node in lists)


def _value(node: Node) -> tuple[type, Any]:
    """The value of a node with its type, so that true differs from 1 and NaN equals NaN."""
    value = plain(node)
    return type(value), repr(value) if value != value else value


def _written(node: Node | None) -> Written:
    if node is None:
        return Written(ABSENT, None)
    return Written(plain(node), node.source.mark(node.start))


# --- environments


def environment_differences(found: Run, expected: Run) -> Iterator[KeyDifference]:
    """The differences between the environments of two runs: versions, device, threads, the commit."""
    for key in ENVIRONMENT:
        values = [_entry(run.manifest, key) for run in (expected, found)]
        if values[0] != values[1]:
            name = key.removeprefix("environment.").removeprefix("versions.").removeprefix("process.")
            yield KeyDifference(name.replace(".", " ").replace("_", " "), *(Written(value, None) for value in values))


def _entry(manifest: Mapping[str, Any], key: str) -> Any:
    value: Any = manifest
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
