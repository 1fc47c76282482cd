"""Reads snapshots: reports every fault of an edited, cut-off or incomplete one at its place."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from runner.compare.environment import Environment
from runner.compare.marked_nodes import MarkedNodes
from runner.compare.numbers import bounds, digested, numerals
from runner.compare.numbers.bounds import Uncertainty, UncertaintyError
from runner.compare.numbers.numerals import NumeralError
from runner.compare.snapshots.model import (
    FIRST_FORMAT,
    FORMAT,
    SIDECAR_SUFFIX,
    Calibration,
    Measured,
    Overlay,
    Restart,
    Snapshot,
    StoredRow,
    StoredTensor,
    first_sidecar_path,
    folder_of,
    state_path,
)
from runner.compare.snapshots.restart_state import LARGEST_STATE, StateError, check_content
from runner.compare.snapshots.wholeness import AGAIN, check_whole
from runner.compare.snapshots.writing import LARGEST_FILE, UNSTORED
from runner.compare.tensor_files import TensorFile, TensorFileError, as_declared
from runner.compare.uncertainty.rules import RULES
from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.nodes import ListNode, MapNode, Node, ScalarNode, describe, plain
from runner.config.text.source import Source, decode, text_source
from runner.errors import ConfigError, Problem, SnapshotError, UsageError, did_you_mean
from runner.language.dtypes import dtype_name
from runner.plan.checks.engines.versions import JAX
from runner.plan.rows.columns import Column, Role
from runner.record.rows.digest import digest_of
from runner.record.rows.storage import dtype_named

LARGEST_SIDECAR = 16 << 30
LARGE = ("full", "stats", "digest")

_RESTORE = "restore the file that belongs to this snapshot, or take it again"
LARGEST_SPREAD = 2.0**20
"""The limit for an uncertainty, as a multiple of the largest number of its dtype: a norm sums over many elements."""

_PUT_BACK = "restore the old text, or remove the file and take the snapshot again"
_WIDEST_MARK = 23
_NEEDED = ("format", "of", "config", "environment", "large", "tensors", "rows")
_OPTIONAL = {
    FORMAT: ("files", "uncertainty", "elements", "overlays", "restarts"),
    FIRST_FORMAT: ("files", "calibration", "overlays"),
}
_FIRST_ENVIRONMENT: Mapping[str, tuple[type | None, ...]] = {
    "torch": (str,), "device": (str,), "device_name": (str, None), "dtype": (str,), "cpu_capability": (str,),
    "threads": (int,), "engine": (str,),
}  # fmt: skip
_ENVIRONMENT = {
    FORMAT: {**_FIRST_ENVIRONMENT, "processor": (str,), "libraries": (str,), "battery": (str,)},
    FIRST_FORMAT: _FIRST_ENVIRONMENT,
}
_VERSIONS: Mapping[str, tuple[type | None, ...]] = dict.fromkeys(JAX, (str,))
"""Entries of the environment that a snapshot of another engine than `xla`, or of an earlier version, lacks."""
_UNCERTAIN = re.compile(r"(.*) ~(\S*)", re.DOTALL)
_COLUMN = re.compile(r"(\w+) (\w+) (varying|\[(?:\d+(?:, \d+)*)?\])")
_ROW = re.compile(r"(\d+) (\S+)")
_SHAPE = re.compile(r"\(((?:\d+(?:, \d+)*)?)\) (.*)", re.DOTALL)


def read(path: Path) -> tuple[Snapshot, str]:
    """The snapshot in a file, and the name of its config's file.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        SnapshotError: it is damaged, of another format, or its large tensors are missing. Every fault is reported.
    """
    content = _content(path)
    while True:
        try:
            return _parsed(path, content)
        except SnapshotError:
            before, content = hashlib.sha256(content).digest(), b""  # never keep both contents in memory
            content = _content(path)
            if hashlib.sha256(content).digest() == before:
                raise  # the file did not change meanwhile, so another process was not writing it


def _parsed(path: Path, content: bytes) -> tuple[Snapshot, str]:
    hole = content.find(0)
    if hole >= 0:
        content = content[: hole + 1]  # the first null byte is the fault; millions may follow, as in a sparse file
    try:
        source = text_source(decode(str(path), content), path.parent, str(path), Limits(file_bytes=LARGEST_FILE))
        check_whole(source)
        problems: list[Problem] = []
        root = compose(source, Limits(file_bytes=LARGEST_FILE), problems)
    except ConfigError as error:
        raise SnapshotError(error.problems) from error
    if problems:
        raise SnapshotError(problems)
    assert isinstance(root, MapNode)
    return _Reader(source, path).snapshot(root)


def _content(path: Path) -> bytes:
    try:
        with folder_of(path) as folder:
            return folder.read(path.name, LARGEST_FILE)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "put the snapshot there as an ordinary file, in a folder `snapshots` that is not a link"
        raise UsageError(Problem(f"cannot read {path}: {reason.lower()}", hint)) from error


class _Reader:
    """Reads one file, and collects its faults."""

    def __init__(self, source: Source, path: Path) -> None:
        self._nodes = MarkedNodes(source, AGAIN)
        self._path = path
        self._stored: TensorFile | None = None
        self._columns: dict[str, Column] = {}
        self._large = "full"
        self._format = FORMAT
        self._overlaid = False
        self._measured: Measured | None = None
        self._sidecar = first_sidecar_path(path).name

    def snapshot(self, root: MapNode) -> tuple[Snapshot, str]:
        first = "format" in root.entries and plain(root.entries["format"].value) == FIRST_FORMAT
        self._format = FIRST_FORMAT if first else FORMAT
        self._nodes.check_keys(root, _NEEDED, _OPTIONAL[self._format], "a snapshot")
        self._nodes.stop()
        entries = {key: entry.value for key, entry in root.entries.items()}
        of = self._nodes.text(entries["of"], "the name of a config's file")
        if Path(of).name != of:
            message = "this is not the name of a file: a snapshot belongs to a config in its parent folder"
            self._nodes.add(entries["of"], message, "write the name of the config's file, without folders")
        config = self._nodes.texts(entries["config"], "config")
        files = self._nodes.texts(entries["files"], "files") if "files" in entries else {}
        environment = self._environment(entries["environment"])
        self._large = self._nodes.text(entries["large"], "`full`, `stats` or `digest`")
        if self._large not in LARGE:
            self._nodes.add(entries["large"], f"`large` cannot be `{self._large}`", f"write {', '.join(LARGE)}")
        self._columns = {column.name: column for column in self._read_columns(entries["tensors"])}
        self._measured = self._read_measured(entries["uncertainty"]) if "uncertainty" in entries else None
        if "elements" in entries:
            self._sidecar = self._read_sidecar_name(entries["elements"])
        self._nodes.stop()
        rows = tuple(self._rows(entries["rows"]))
        calibration = self._calibration(entries["calibration"]) if "calibration" in entries else None
        overlays = tuple(self._overlays(entries["overlays"], rows)) if "overlays" in entries else ()
        restarts = tuple(self._restarts(entries["restarts"], rows)) if "restarts" in entries else ()
        self._nodes.stop()
        columns = tuple(self._columns.values())
        sidecar = self._sidecar if "elements" in entries else None
        return (
            Snapshot(
                config, environment, self._large, columns, rows, calibration, overlays, files, self._measured,
                self._format, sidecar, restarts,
            ),
            of,
        )  # fmt: skip

    # --- parts

    def _environment(self, node: Node) -> Environment:
        found = self._nodes.mapping(node, "the environment")
        needed = _ENVIRONMENT[self._format]
        self._nodes.check_keys(found, tuple(needed), tuple(_VERSIONS), "the environment")
        known = {**needed, **_VERSIONS}
        values: Mapping[str, Any] = plain(found)
        for key, entry in found.entries.items():
            kind = None if values[key] is None else type(values[key])
            if kind not in known.get(key, (kind,)):
                wanted = "a number" if int in known[key] else "a text in quotes"
                self._nodes.add(entry.value, f"expected {wanted}, found {describe(values[key])}")
        return values

    def _read_measured(self, node: Node) -> Measured | None:
        found = self._nodes.mapping(node, "how uncertainties were measured")
        self._nodes.check_keys(found, ("rules", "runs"), ("asked",), "`uncertainty`")
        self._nodes.stop()
        values: Mapping[str, Any] = plain(found)
        for key, entry in found.entries.items():
            if not isinstance(values[key], int) or isinstance(values[key], bool) or values[key] < 1:
                self._nodes.add(entry.value, f"expected a count from 1, found {describe(values[key])}")
        self._nodes.stop()
        if values["rules"] > RULES:
            message = f"uncertainties were measured by version {values['rules']} of the rules, and this version of "
            message += f"steprun knows up to {RULES}"
            self._nodes.add(found.entries["rules"].value, message, "update steprun, or take the snapshot again")
        return Measured(values["rules"], values["runs"], values.get("asked", values["runs"]))

    def _read_sidecar_name(self, node: Node) -> str:
        name = self._nodes.text(node, "the name of a file next to this one")
        if name and (Path(name).name != name or not name.endswith(SIDECAR_SUFFIX)):
            self._nodes.add(node, f"`{name}` is not the name of a {SIDECAR_SUFFIX} file next to this one", AGAIN)
        return name

    def _calibration(self, node: Node) -> Calibration | None:
        found = self._nodes.mapping(node, "what was measured")
        self._nodes.check_keys(found, ("runs", "over", "torch", "spread"), (), "a calibration")
        self._nodes.stop()
        entries = {key: entry.value for key, entry in found.entries.items()}
        runs = plain(entries["runs"])
        spread = self._nodes.mapping(entries["spread"], "a spread for each tensor")
        for name, entry in spread.entries.items():
            value = plain(entry.value)
            if name not in self._columns:
                self._nodes.add(entry.key, f"there is no tensor `{name}` in this snapshot")
            elif not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
                self._nodes.add(entry.value, f"a spread is a number, 0 or more, found {describe(value)}")
        if not isinstance(runs, int) or runs < 1:
            self._nodes.add(entries["runs"], f"expected how many runs, found {describe(runs)}")
        over = self._nodes.text(entries["over"], "what the runs differed in")
        version = self._nodes.text(entries["torch"], "torch's version")
        self._nodes.stop()
        return Calibration(int(runs), over, version, {key: float(value) for key, value in plain(spread).items()})

    def _read_columns(self, node: Node) -> Iterator[Column]:
        for name, entry in self._nodes.mapping(node, "tensors").entries.items():
            text = self._nodes.text(entry.value, "`weight float32 [2, 3]`")
            column = _column(name, text)
            if column is not None:
                yield column
            elif text:
                self._nodes.add(entry.value, f"`{text}` does not declare a tensor", "write `weight float32 [2, 3]`")

    def _rows(self, node: Node) -> Iterator[StoredRow]:
        last = -1
        for key, entry in self._nodes.mapping(node, "rows").entries.items():
            found = _ROW.fullmatch(key)
            if found is None:
                self._nodes.add(entry.key, f"`{key}` is not a row", "write number and path: `17 repeat[17].1.train`")
                continue
            number = int(found[1])
            if number <= last:
                self._nodes.add(entry.key, f"row {number} follows row {last}", "put the rows back in order")
            last = number
            yield StoredRow(number, found[2], self._values(entry.value))

    def _overlays(self, node: Node, rows: tuple[StoredRow, ...]) -> Iterator[Overlay]:
        if not isinstance(node, ListNode):
            self._nodes.add(node, f"expected a list of overlays, found {describe(plain(node))}")
            return
        paths = {row.number: row.path for row in rows}
        for item in node.items:
            found = self._nodes.mapping(item, "an overlay")
            self._nodes.check_keys(found, ("environment", "rows"), (), "an overlay")
            self._nodes.stop()
            environment = self._environment(found.entries["environment"].value)
            values: dict[int, Mapping[str, StoredTensor]] = {}
            self._overlaid = True  # its lines have the uncertainty of the base rows
            for row in self._rows(found.entries["rows"].value):
                if paths.get(row.number) != row.path:
                    message = f"the overlay has a row `{row.number} {row.path}` that the snapshot does not have"
                    self._nodes.add(found.entries["rows"].key, message)
                values[row.number] = row.values
            yield Overlay(environment, values)

    def _restarts(self, node: Node, rows: tuple[StoredRow, ...]) -> Iterator[Restart]:
        if not isinstance(node, ListNode):
            self._nodes.add(node, f"expected a list of restarts, found {describe(plain(node))}")
            return
        numbers = [row.number for row in rows]
        for item in node.items:
            found = self._nodes.mapping(item, "a restart")
            self._nodes.check_keys(found, ("after", "state", "rows"), (), "a restart")
            self._nodes.stop()
            entries = {key: entry.value for key, entry in found.entries.items()}
            after = plain(entries["after"])
            if type(after) is not int or after not in numbers:
                self._nodes.add(entries["after"], f"expected the number of a row above, found {describe(after)}")
                continue
            yield Restart(after, self._state(entries["state"]), tuple(self._rows(entries["rows"])))

    def _state(self, node: Node) -> bytes:
        """The content of the file with a restart's state."""
        name = self._read_sidecar_name(node)
        content = self._file(node, name, f"the state is in {name}") if name else None
        if content is None:
            return b""
        try:
            if state_path(self._path, content).name != name:
                raise StateError("its digest is not the one in its name")
            check_content(content)
        except StateError as error:
            self._nodes.add(node, f"{name} is damaged: {error}", _RESTORE)
        return content

    def _values(self, node: Node) -> dict[str, StoredTensor]:
        values: dict[str, StoredTensor] = {}
        for name, entry in self._nodes.mapping(node, "the row's tensors").entries.items():
            column = self._columns.get(name)
            if column is None:
                hint = did_you_mean(name, self._columns, "declare it under `tensors`")
                self._nodes.add(entry.key, f"there is no tensor `{name}` in this snapshot", hint)
            elif not isinstance(entry.value, ScalarNode):
                self._nodes.add(entry.value, f"expected the numbers of `{name}`, found {describe(plain(entry.value))}")
            else:
                values[name] = self._read_tensor(column, entry.value)
        return values

    def _read_tensor(self, column: Column, node: ScalarNode) -> StoredTensor:
        raw = self._nodes.raw(node)
        if raw == "null":
            return StoredTensor(raw, None)
        text, uncertainty = self._uncertainty(node, column, raw)
        shape = column.shape
        if shape is None:
            found = _SHAPE.fullmatch(text)
            if found is None:
                self._nodes.add(node, f"`{column.name}` varies in shape, and this one is missing", "write `(2, 3) …`")
                return StoredTensor(raw, None)
            shape, text = tuple(map(int, filter(None, found[1].split(", ")))), found[2]
        condensed = digested.from_text(text, column.dtype, shape)
        if condensed is not None:
            value = self._stored_tensor(node, column, condensed) if self._large == "full" else condensed
            if self._large != "digest":
                self._check_measured(node, column, uncertainty)
            return StoredTensor(raw, value, uncertainty)
        if text.startswith("sha256:"):
            self._nodes.add(node, "this is not how a large tensor is written", AGAIN)
            return StoredTensor(raw, None)
        try:
            value = numerals.from_text(text, column.dtype, shape)
            if value.numel():
                self._check_measured(node, column, uncertainty)
            return StoredTensor(f"'{raw}'" if node.style else raw, value, uncertainty)
        except NumeralError as error:
            self._nodes.add(node, f"`{column.name}`: {error}", _PUT_BACK)
            return StoredTensor(raw, None)

    def _uncertainty(self, node: Node, column: Column, text: str) -> tuple[str, Uncertainty | None]:
        """Splits a line into the text without the uncertainty, and the uncertainty; None if it has none."""
        found = _UNCERTAIN.fullmatch(text)
        try:
            if found is not None:
                return found[1], bounds.from_text(found[2])
            if "~" in text and "sha256:" in text:
                bare, statistics = digested.statistics_of(text)
                bare_names = [name for name in digested.STATISTICS if f" {name} " in bare]
                if sorted(statistics) != sorted(bare_names):
                    missing = next(name for name in bare_names if name not in statistics)
                    raise UncertaintyError(f"the {missing} has no uncertainty here, and other statistics have one")
                largest = max(statistics.values(), default=0.0)
                return bare, Uncertainty(math.inf if math.isinf(largest) else 0.0, largest, statistics)
        except UncertaintyError as error:
            self._nodes.add(node, f"`{column.name}`: {error}", _PUT_BACK)
            return text.partition("~")[0].rstrip(), bounds.UNKNOWN
        return text, None

    def _check_measured(self, node: Node, column: Column, uncertainty: Uncertainty | None) -> None:
        rounds = column.dtype.is_floating_point or column.dtype.is_complex
        if uncertainty is not None and rounds and not uncertainty.unknown:
            most = max(uncertainty.largest, *uncertainty.statistics.values(), 0.0)
            if most > LARGEST_SPREAD * torch.finfo(column.dtype).max:
                message = f"`{column.name}`: this uncertainty is beyond all numbers of {dtype_name(column.dtype)}"
                self._nodes.add(node, message, _PUT_BACK)
        if self._measured is not None and uncertainty is None and rounds and not self._overlaid:
            self._nodes.add(node, f"`{column.name}` has no uncertainty here, and other lines have one", _PUT_BACK)
        elif self._measured is None and uncertainty is not None:
            message = f"`{column.name}` has an uncertainty, and the snapshot does not say by which rules"
            self._nodes.add(node, message, "write `uncertainty: {rules: 1, runs: 8}` above `large`, or take it again")

    # --- large tensors

    def _stored_tensor(self, node: Node, column: Column, digested: digested.Condensed) -> Tensor | None:
        stored = self._read_stored(node, column, digested)
        if stored is None:
            return None
        if column.dtype in UNSTORED:
            stored = as_declared(stored, column.dtype)
        if (
            stored is None
            or stored.dtype != column.dtype
            or tuple(stored.shape) != digested.shape
            or digest_of(stored) != digested.digest
        ):
            self._nodes.add(node, self._other_digest(column), _RESTORE)
            return None
        return stored

    def _read_stored(self, node: Node, column: Column, digested: digested.Condensed) -> Tensor | None:
        """Reads a tensor by its digest from the file of large tensors; adds a problem and returns None if it fails."""
        size = math.prod(digested.shape) * column.dtype.itemsize
        try:
            with folder_of(self._path) as folder:
                if self._stored is None:
                    self._stored = TensorFile(folder, self._sidecar, LARGEST_SIDECAR)
                if digested.digest not in self._stored:
                    self._nodes.add(node, f"{self._sidecar} does not contain this tensor", _RESTORE)
                    return None
                try:
                    return self._stored.tensor(folder, self._sidecar, digested.digest, size)
                except TensorFileError:
                    self._nodes.add(node, self._other_digest(column), _RESTORE)
        except TensorFileError as error:
            self._nodes.add(node, f"{self._sidecar} is damaged: {error}", _RESTORE)
            self._nodes.stop()
        except OSError as error:
            self._add_unreadable(node, self._sidecar, f"its elements are in {self._sidecar}", error)
            self._nodes.stop()
        return None

    def _other_digest(self, column: Column) -> str:
        return f"`{column.name}` in {self._sidecar} has a different digest"

    def _add_unreadable(self, node: Node, name: str, what: str, error: OSError) -> None:
        reason = f"{name} cannot be read: {(error.strerror or str(error)).lower()}"
        gone = isinstance(error, FileNotFoundError)
        self._nodes.add(node, f"{what}, and there is no such file" if gone else reason, _RESTORE)

    def _file(self, node: Node, name: str, what: str) -> bytes | None:
        """The content of a file next to the snapshot; adds a problem and returns None if it cannot be read."""
        try:
            with folder_of(self._path) as folder:
                return folder.read(name, LARGEST_STATE)
        except OSError as error:
            self._add_unreadable(node, name, what, error)
        return None


def _column(name: str, text: str) -> Column | None:
    found = _COLUMN.fullmatch(text)
    if found is None or found[1] not in get_args(Role):
        return None
    try:
        dtype = dtype_named(found[2])
    except (AttributeError, ValueError):
        return None
    shape = None if found[3] == "varying" else tuple(map(int, re.findall(r"\d+", found[3])))
    role: Any = found[1]
    return Column(name, role, dtype, shape)
